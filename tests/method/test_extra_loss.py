"""`method.extra_loss`: a function of the user's own in the student's loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.tiny import NUM_CLASSES, SIDE, tiny_four_ds

HERE = "tests.method.test_extra_loss"
NO_FUNCTION = 3


def relation(*, student_logits: Tensor, teacher_logits: Tensor, **_: Any) -> Tensor:
    assert student_logits.requires_grad
    assert not teacher_logits.requires_grad
    return (student_logits @ student_logits.T - teacher_logits @ teacher_logits.T).square().mean()


def of_maps(*, student_maps: list[Tensor], teacher_maps: list[Tensor], labels: Tensor, **_: Any) -> Tensor:
    assert [h.shape[0] for h in student_maps] == [h.shape[0] for h in teacher_maps] == [len(labels)] * 2
    assert not any(h.requires_grad for h in teacher_maps)
    return student_maps[-1].square().mean()


def for_each_image(*, student_logits: Tensor, **_: Any) -> Tensor:
    return student_logits.square().mean(1)


def of_two(student_logits: Tensor, labels: Tensor) -> Tensor:
    return student_logits.mean()


def of_its_own(student_logits: Tensor, *, margin: float, **_: Any) -> Tensor:
    return student_logits.mean() - margin


def a_float(**_: Any) -> float:
    return 0.5


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(-1, NUM_CLASSES, (4,), generator=generator)
    return torch.randn(4, 3, SIDE, SIDE, generator=generator), labels


@pytest.mark.parametrize("function", ["relation", "of_maps"])
def test_it_joins_the_loss_of_the_student_by_its_weight(function: str) -> None:
    images, labels = batch()
    torch.manual_seed(0)
    task = tiny_four_ds(dropout=0.0, extra_loss=f"{HERE}:{function}", extra_loss_weight=3.0)
    output = task(images, labels)
    torch.manual_seed(0)
    without = tiny_four_ds(dropout=0.0)(images, labels)
    assert set(output.losses) - set(without.losses) == {"extra"}
    torch.testing.assert_close(output.loss, without.loss + 3 * output.losses["extra"])
    output.loss.backward()


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("of_two", "unexpected keyword argument 'teacher_logits'"),
        ("of_its_own", "missing .* argument: 'margin'"),
    ],
)
def test_a_function_of_other_arguments_is_refused_by_its_key(function: str, reason: str) -> None:
    with pytest.raises(
        ValueError,
        match=rf"method\.extra_loss: .*{function}\(.* is called with student_logits.*{reason}.*\*\*others",
    ):
        tiny_four_ds(extra_loss=f"{HERE}:{function}")


def test_the_teacher_takes_part_for_it_alone() -> None:
    task = tiny_four_ds(preset="cross_entropy", extra_loss=f"{HERE}:relation")
    assert task.needs_teacher
    assert set(task(*batch()).losses) == {"student_ce", "extra"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.to_be_found:loss", "'nowhere.to_be_found' cannot be imported"),
        (f"{HERE}:nothing", "has no 'nothing'"),
        (HERE, "the form package.module:function"),
        (".relative:loss", "the form package.module:function"),
        (f"{HERE}:batch()", "the form package.module:function"),
        (f"{HERE}:NO_FUNCTION", "a function that takes logits, maps and labels is needed"),
        (":loss", "the form package.module:function"),
    ],
)
def test_a_name_of_no_function_is_refused(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=rf"method\.extra_loss: function .*{words}"):
        tiny_four_ds(extra_loss=name)


@pytest.mark.parametrize(
    ("function", "words"), [("for_each_image", r"a tensor of shape \(4,\)"), ("a_float", r"0\.5")]
)
def test_what_is_no_number_is_refused(function: str, words: str) -> None:
    with pytest.raises(ValueError, match=rf"{function} returned {words}; return one number"):
        tiny_four_ds(extra_loss=f"{HERE}:{function}")(*batch())
