"""Several students of one teacher: each learns as alone, and the adapters learn from all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fourds_dist.method import FourDs
from tests.training.tiny import NUM_CLASSES, SIDE, tiny_network, tiny_students

BOTH = {"slim": 4, "broad": 8}
LABELS = (0, 1, 2, 3, 4, -1, -1, 2)


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(LABELS), 3, SIDE, SIDE, generator=generator), torch.tensor(LABELS)


def trained(task: FourDs, num_steps: int) -> FourDs:
    """The task after some steps of SGD on all parameters, whose losses are finite."""
    task.train()
    parameters = [p for group in task.parameter_groups().values() for p in group]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    for seed in range(num_steps):
        optimizer.zero_grad()
        output = task(*batch(seed))
        assert torch.isfinite(output.loss)
        output.loss.backward()
        optimizer.step()
    return task


def weights(task: FourDs, name: str) -> dict[str, Tensor]:
    """The weights and statistics of one student, after its network's names."""
    side = next(side for side in task.sides if side.name in (name, ""))
    return side.network.state_dict()


def gradients(task: FourDs, name: str) -> dict[str, Tensor]:
    side = next(side for side in task.sides if side.name in (name, ""))
    return {key: p.grad for key, p in side.network.named_parameters() if p.grad is not None}


def is_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and len(a) > 0 and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    "method",
    [
        {"preset": "distillation"},
        {"preset": "distillation", "teacher_batch_norm": "adapt", "pseudo_label_weight": 1.0},
        {"preset": "cross_entropy"},
        {"preset": "adabn"},
        {"preset": "distillation", "kd_sample_weight": "where_teacher_better", "confusion_weight": 1.0},
    ],
)
def test_without_adapters_each_student_learns_bit_for_bit_as_alone(method: dict[str, Any]) -> None:
    together = trained(tiny_students(BOTH, **method), 4)
    for name, width in BOTH.items():
        alone = trained(tiny_students({name: width}, **method), 4)
        assert is_same(weights(together, name), weights(alone, name)), name
        other = trained(tiny_students({name: width}, **{**method, "preset": "fitnets"}), 4)
        assert not is_same(weights(together, name), weights(other, name))  # the comparison can tell


def test_with_adapters_the_first_gradient_of_each_student_is_that_alone() -> None:
    together = tiny_students(BOTH, phase_loss="none").train()
    together(*batch(0)).loss.backward()
    for name, width in BOTH.items():
        alone = tiny_students({name: width}, phase_loss="none").train()
        alone.adapters.load_state_dict(together.adapters.state_dict())
        alone(*batch(0)).loss.backward()
        assert is_same(gradients(together, name), gradients(alone, name))


def test_the_adapters_learn_from_the_mean_over_the_students() -> None:
    together = tiny_students(BOTH, phase_loss="none").train()
    together(*batch(0)).loss.backward()
    expected = [torch.zeros_like(p) for p in together.adapters.parameters()]
    differ = []
    for name, width in BOTH.items():
        alone = tiny_students({name: width}, phase_loss="none").train()
        alone.adapters.load_state_dict(together.adapters.state_dict())
        alone(*batch(0)).loss.backward()
        found = [p.grad for p in alone.adapters.parameters()]
        expected = [a + b / len(BOTH) for a, b in zip(expected, found, strict=True) if b is not None]
        differ.append(found[0])
    assert not torch.allclose(*differ)
    for p, mean in zip(together.adapters.parameters(), expected, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, mean)


def test_names_of_losses_logits_groups_and_predictors() -> None:
    task = tiny_students(BOTH, untrained=("broad",), untrained_warmup_power=2.0)
    output = task.train()(*batch(0))
    terms = ("student_ce", "student_kd", "teacher_kd", "phase")
    assert set(output.losses) == {f"{term}/{name}" for term in terms for name in BOTH} | {"teacher_ce"}
    assert set(output.logits) == {"student/slim", "student/broad", "teacher"}
    assert list(task.parameter_groups()) == ["student/slim", "student/broad", "adapters"]
    assert list(task.predictors()) == ["student/slim", "student/broad", "teacher_adapted"]
    grouped = [p for group in task.parameter_groups().values() for p in group]
    learning = [p for p in task.parameters() if p.requires_grad]
    assert {id(p) for p in grouped} == {id(p) for p in learning}
    assert len(grouped) == len(learning)
    assert len(task.classifiers()) == 3


def test_the_ratio_of_each_untrained_student_follows_its_own_accuracy() -> None:
    task = tiny_students(
        BOTH | {"known": 6}, untrained=("slim", "broad"), untrained_warmup_power=2.0, normalise_kd="never"
    ).train()
    before = task(*batch(0))
    task.on_validation(
        {"student/slim": 0.3, "student/broad": 0.6, "student/known": 0.6, "teacher_adapted": 0.6}
    )
    ratios = {name: value.item() for name, value in task.log_values().items() if "ratio" in name}
    assert ratios == {"student_ratio/slim": 0.25, "student_ratio/broad": 1.0}
    assert {"student_ratio_0", "student_ratio_1"} < set(task.state_dict())
    kd = before.losses["teacher_kd/known"]  # at the start, the adapters learn from this student alone
    rest = sum(
        value * (0.1 if name.startswith("phase") else 1.0)
        for name, value in before.losses.items()
        if not name.startswith("teacher_kd")
    )
    torch.testing.assert_close(before.loss.detach(), rest + kd / 3)


def test_prefixes_of_the_weights_cover_each_student_and_leave_the_teacher_s() -> None:
    task = tiny_students(BOTH)
    names = {name for name, p in task.named_parameters() if p.requires_grad}
    found = {key: {n for n in names if n.startswith(prefix)} for key, prefix in task.selected_apart().items()}
    groups = {key: {id(p) for p in group} for key, group in task.parameter_groups().items()}
    for key, own in found.items():
        assert {id(task.get_parameter(name)) for name in own} == groups[key]
    rest = names - set().union(*found.values())
    assert {id(task.get_parameter(name)) for name in rest} == groups["adapters"]
    assert tiny_students({"only": 4}).selected_apart() == {}


def test_a_student_that_does_not_fit_is_named() -> None:
    from fourds_dist.method import MethodConfig, StudentNetwork

    stages = ("layer1", "layer2")

    def pair(other: StudentNetwork) -> FourDs:
        students = {"student/good": StudentNetwork(tiny_network(4), stages), "student/odd": other}
        return FourDs(
            tiny_network(8), students, teacher_stages=stages, config=MethodConfig(), image_size=SIDE
        )

    with pytest.raises(ValueError, match=r"student odd 1 \('layer1',\); .* the stages of students \(odd\)"):
        pair(StudentNetwork(tiny_network(4), ("layer1",)))
    six = tiny_network(4)
    six.fc = torch.nn.Linear(8, NUM_CLASSES + 1)
    with pytest.raises(ValueError, match="teacher has 5 outputs, student odd 6"):
        pair(StudentNetwork(six, stages))
