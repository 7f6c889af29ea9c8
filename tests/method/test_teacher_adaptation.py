"""Adapting the teacher before distillation: what learns, from which images."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from fourds_dist.method import AdaptConfig, AdaptTeacher, BackboneConfig, build_backbone
from fourds_dist.method.losses import class_confusion, cross_entropy

Method = Literal["fine_tune", "mcc", "cdan"]


def make(method: Method) -> AdaptTeacher:
    torch.manual_seed(0)
    teacher = build_backbone(BackboneConfig(arch="resnet10", stem="small"), 3).requires_grad_(False)
    config = AdaptConfig(method=method, cdan_hidden=8)
    return AdaptTeacher(teacher, config, last_stage="layer4", image_size=32).train()


def images(num: int) -> torch.Tensor:
    return torch.randn(num, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", ["fine_tune", "mcc", "cdan"])
def test_the_whole_teacher_learns(method: Method) -> None:
    task = make(method)
    before = task.teacher.bn1.running_mean.clone()  # type: ignore[union-attr]
    task(images(4), torch.tensor([0, 1, -1, -1])).loss.backward()
    grouped = [p for group in task.parameter_groups().values() for p in group]
    assert {id(p) for p in grouped} == {id(p) for p in task.parameters()}
    assert all(p.grad is not None for p in task.parameters())
    assert not torch.equal(before, task.teacher.bn1.running_mean)  # type: ignore[union-attr]
    assert task.eval().predictors()["teacher"](images(2)).shape == (2, 3)


def test_losses_take_the_images_that_they_are_for() -> None:
    labels = torch.tensor([0, 1, -1, -1, 2])
    output = make("mcc")(images(5), labels)
    z = output.logits["teacher"]
    torch.testing.assert_close(output.losses["teacher_ce"], cross_entropy(z, labels))
    torch.testing.assert_close(
        output.losses["teacher_mcc"], class_confusion(z, labels == -1, temperature=2.5)
    )
    torch.testing.assert_close(output.loss.detach(), sum(output.losses.values()))
    assert set(make("fine_tune")(images(5), labels).losses) == {"teacher_ce"}


def test_the_adversary_takes_features_of_the_last_stage() -> None:
    labels, task = torch.tensor([0, 1, -1, -1, 2]), make("cdan")
    maps: list[torch.Tensor] = []
    task.teacher.layer4.register_forward_hook(lambda *of: maps.append(of[2]))  # pyright: ignore
    output = task(images(5), labels)
    expected = task.adversary(maps[0].mean((2, 3)), output.logits["teacher"], labels == -1)
    torch.testing.assert_close(output.losses["teacher_cdan"], expected.detach())
    torch.testing.assert_close(output.loss.detach(), sum(output.losses.values()))
    assert set(output.losses) == {"teacher_ce", "teacher_cdan"}


def test_class_confusion_falls_on_images_without_labels() -> None:
    task = make("mcc")
    optimizer = torch.optim.Adam(task.parameters(), lr=3e-3)
    falling = []
    for _ in range(6):
        output = task(images(12), torch.full((12,), -1))
        assert output.losses["teacher_ce"] == 0
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        falling.append(output.losses["teacher_mcc"].item())
    assert falling[-1] < 0.8 * falling[0]
