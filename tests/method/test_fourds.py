"""The distiller: who learns from what, which choices change what, and what is refused."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from fourds_dist.data.stream.network_input import NetworkInput, resized
from fourds_dist.method import BackboneConfig, FourDs, MethodConfig, build_backbone
from fourds_dist.method.losses import class_confusion, kd_normalisation, pseudo_label_loss

STAGES = ("layer1", "layer2", "layer3", "layer4")
SMALL = BackboneConfig(arch="resnet10", stem="small")


def make(
    teacher: BackboneConfig = SMALL,
    student: BackboneConfig = SMALL,
    *,
    student_untrained: bool = False,
    **method: Any,
) -> FourDs:
    torch.manual_seed(0)
    task = FourDs(
        build_backbone(teacher, 5),
        build_backbone(student, 5),
        teacher_stages=STAGES,
        student_stages=STAGES,
        config=MethodConfig(**method),
        image_size=32,
        student_untrained=student_untrained,
    )
    return task.train()


def batch(labels: tuple[int, ...] = (0, 1, 2, -1)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(len(labels), 3, 32, 32, generator=generator), torch.tensor(labels)


def gradients(task: FourDs, *losses: str) -> dict[str, bool]:
    """Modules that get a gradient from `losses` alone."""
    weights = {"phase": task.config.phase_weight}
    kept: dict[str, torch.Tensor] = {}
    import fourds_dist.method.fourds as module

    original = module.Output.of
    try:
        module.Output.of = classmethod(
            lambda cls, parts, w, logits: kept.update(parts) or original(parts, w, logits)
        )  # type: ignore[method-assign]
        task(*batch())
    finally:
        module.Output.of = original  # type: ignore[method-assign]
    task.zero_grad()
    sum(weights.get(name, 1.0) * kept[name] for name in losses).backward()  # type: ignore[union-attr]
    parts = {"teacher": task.teacher, "adapters": task.adapters, "student": task.student}
    if task.fusion is not None:
        parts["fusion"] = task.fusion
    return {
        n: any(p.grad is not None and bool(p.grad.any()) for p in m.parameters()) for n, m in parts.items()
    }


@pytest.mark.parametrize("preset", ["4ds_released", "4ds"])
def test_each_side_s_losses_reach_that_side_alone(preset: str) -> None:
    task = make(preset=preset)
    gate = {"fusion": False} if preset == "4ds_released" else {}
    teacher_side = gradients(task, "teacher_ce", "teacher_kd")
    assert teacher_side == {"teacher": False, "adapters": True, "student": False} | gate
    student_side = gradients(task, "student_ce", "student_kd", "phase")
    gate = {"fusion": True} if preset == "4ds_released" else {}
    assert student_side == {"teacher": False, "adapters": False, "student": True} | gate


@pytest.mark.parametrize("preset", ["4ds_released", "4ds"])
def test_every_learning_parameter_gets_a_gradient(preset: str) -> None:
    """DDP waits for parameters that stay unused."""
    task = make(preset=preset)
    task(*batch()).loss.backward()
    grouped = [p for group in task.parameter_groups().values() for p in group]
    learning = [p for p in task.parameters() if p.requires_grad]
    assert {id(p) for p in grouped} == {id(p) for p in learning}
    assert len(grouped) == len(learning)
    assert [n for n, p in task.named_parameters() if p.requires_grad and p.grad is None] == []


def test_an_unlabelled_batch_trains_without_cross_entropy() -> None:
    output = make()(*batch((-1, -1, -1, -1)))
    assert output.losses["student_ce"] == 0
    assert output.losses["teacher_ce"] == 0
    assert output.losses["student_kd"] > 0
    assert torch.isfinite(output.loss)


def test_an_untrained_student_has_uniform_sample_weights_and_no_teacher_kd() -> None:
    images, labels = batch()
    uniform = make(kd_sample_weight="uniform")(images, labels)
    untrained = make(
        student_untrained=True,
        untrained_warmup_power=8.0,
        normalise_kd="never",
        kd_sample_weight="teacher_confidence",
    )
    output = untrained(images, labels)
    torch.testing.assert_close(output.losses, uniform.losses)
    torch.testing.assert_close(output.loss, uniform.loss - uniform.losses["teacher_kd"])


def test_an_untrained_student_at_ratio_one_learns_like_a_trained_one() -> None:
    images, labels = batch()
    other = make(kd_sample_weight="teacher_confidence")(images, labels)
    untrained = make(
        student_untrained=True,
        untrained_warmup_power=8.0,
        normalise_kd="never",
        kd_sample_weight="teacher_confidence",
    )
    untrained.on_validation({"teacher_adapted": 0.6, "student": 0.7})
    output = untrained(images, labels)
    torch.testing.assert_close(output.losses, other.losses)
    torch.testing.assert_close(output.loss, other.loss)


@pytest.mark.parametrize(
    ("choice", "student_untrained", "is_balanced"),
    [("never", True, False), ("untrained", True, True), ("untrained", False, False), ("always", False, True)],
)
def test_distillation_is_balanced_for_those_who_are_to_be(
    choice: str, student_untrained: bool, is_balanced: bool
) -> None:
    settings: dict[str, Any] = {"untrained_warmup_power": 0.0, "kd_weight": 3.0}
    plain = make(**settings, normalise_kd="never")(*batch())
    output = make(**settings, normalise_kd=choice, student_untrained=student_untrained)(*batch())
    times = kd_normalisation(output.logits["student"].shape[1], 4.0) if is_balanced else 1.0
    torch.testing.assert_close(output.losses, plain.losses)
    torch.testing.assert_close(output.loss, plain.loss + 3 * (times - 1) * plain.losses["student_kd"])


def test_the_student_ratio_is_the_ratio_of_accuracies_and_never_falls() -> None:
    task = make(student_untrained=True, untrained_warmup_power=8.0)
    ratios = []
    for student, teacher in ((0.0, 0.0), (0.3, 0.6), (0.54, 0.6), (0.3, 0.6), (0.7, 0.6)):
        task.on_validation({"teacher_adapted": teacher, "student": student})
        ratios.append(task.log_values()["student_ratio"].item())
    assert ratios == pytest.approx([0.0, 0.5**8, 0.9**8, 0.9**8, 1.0])
    assert "student_ratio" in task.state_dict()  # goes with checkpoints


@pytest.mark.parametrize("choice", [{"student_untrained": True}, {"untrained_warmup_power": 8.0}])
def test_no_warm_up_of_students_that_know_the_classes_or_without_the_power(choice: dict[str, Any]) -> None:
    task = make(**{"untrained_warmup_power": 0.0} | choice)
    assert "student_ratio" not in task.state_dict()
    task.on_validation({"teacher_adapted": 0.6, "student": 0.3})


def test_frozen_batch_norm_keeps_the_teacher_s_statistics_and_adapt_moves_them() -> None:
    for choice, moves in (("frozen", False), ("adapt", True)):
        task = make(teacher_batch_norm=choice)
        before = task.teacher.bn1.running_mean.clone()  # type: ignore[union-attr]
        task(*batch())
        assert torch.equal(before, task.teacher.bn1.running_mean) is not moves  # type: ignore[union-attr]


def test_evaluation_leaves_no_features_behind() -> None:
    task = make().eval()
    for predict in task.predictors().values():
        predict(batch()[0])
    assert task._teacher_hooks.take() == []
    assert task.sides[0].hooks.take() == []


def test_the_loss_is_the_weighted_sum_of_the_named_losses() -> None:
    output = make(phase_weight=0.5)(*batch())
    weighted = sum(value * (0.5 if name == "phase" else 1.0) for name, value in output.losses.items())
    torch.testing.assert_close(output.loss, weighted)


@pytest.mark.parametrize("phase_loss", ["circular", "squared"])
def test_unequal_widths_meet_through_projections(phase_loss: str) -> None:
    task = make(teacher=BackboneConfig(arch="resnet50", stem="small"), phase_loss=phase_loss)
    assert [type(p) for p in task.projections] == [nn.Conv2d] * 4
    task(*batch()).loss.backward()
    assert all(p.grad is not None for p in task.projections.parameters())


def test_plain_distillation_has_no_adapters_and_no_teacher_losses() -> None:
    task = make(adapters=False, phase_loss="none")
    assert set(task(*batch()).losses) == {"student_ce", "student_kd"}
    assert set(task.parameter_groups()) == {"student"}


def test_unequal_numbers_of_stages_or_classes_are_refused() -> None:
    def pair(teacher_stages: tuple[str, ...], num_classes: int) -> FourDs:
        return FourDs(
            build_backbone(SMALL, 5),
            build_backbone(SMALL, num_classes),
            teacher_stages=teacher_stages,
            student_stages=STAGES,
            config=MethodConfig(),
            image_size=32,
        )

    with pytest.raises(ValueError, match="teacher has 1 stages"):
        pair(("layer1",), 5)
    with pytest.raises(ValueError, match="teacher has 5 outputs, student 6"):
        pair(STAGES, 6)
    with pytest.raises(ValueError, match=r"teacher: stage 'fc' returns .* instead of a feature map"):
        pair((*STAGES[:3], "fc"), 5)


def test_the_teacher_s_dropout_stays_off_while_its_batch_norm_adapts() -> None:
    task = make(teacher_batch_norm="adapt")
    task.teacher.fc = nn.Sequential(nn.Dropout(0.5), task.teacher.fc)  # type: ignore[assignment, arg-type]
    task.train()
    assert task.teacher.bn1.training  # type: ignore[union-attr]
    images, _ = batch()
    assert torch.equal(task(images, batch()[1]).logits["teacher"], task(images, batch()[1]).logits["teacher"])
    assert not task.eval().teacher.bn1.training  # type: ignore[union-attr]


def test_cross_entropy_leaves_the_teacher_out() -> None:
    task = make(preset="cross_entropy")
    task._teacher_hooks = None  # type: ignore[assignment]  (it would be asked for the teacher's stages)
    images, labels = batch()
    output = task(images, labels)
    assert set(output.losses) == {"student_ce"}
    assert set(output.logits) == {"student"}
    expected = nn.functional.cross_entropy(output.logits["student"][:3], labels[:3])
    torch.testing.assert_close(output.loss.detach(), expected)
    assert set(task.parameter_groups()) == {"student"}


def test_plain_distillation_is_cross_entropy_and_kl_from_the_teacher_as_it_is() -> None:
    task = make(preset="distillation")
    untouched = deepcopy(task.teacher).eval()
    images, labels = batch()
    output = task(images, labels)
    with torch.no_grad():
        torch.testing.assert_close(output.logits["teacher"], untouched(images))
    assert set(output.losses) == {"student_ce", "student_kd"}
    for name, value in untouched.state_dict().items():
        assert torch.equal(value, task.teacher.state_dict()[name])
    halved = make(preset="distillation", kd_weight=0.5)(images, labels)
    torch.testing.assert_close(output.loss - halved.loss, output.losses["student_kd"] / 2)


@pytest.mark.parametrize(("feature_loss", "num_stages"), [("last", 1), ("all", 4)])
def test_hints_pull_the_student_s_maps_towards_the_teacher_s(feature_loss: str, num_stages: int) -> None:
    task = make(
        teacher=BackboneConfig(arch="resnet50", stem="small"), preset="fitnets", feature_loss=feature_loss
    )
    assert len(task.feature_loss.regressors) == num_stages
    task(*batch()).loss.backward()
    assert [n for n, p in task.named_parameters() if p.requires_grad and p.grad is None] == []
    optimizer = torch.optim.Adam(task.parameter_groups()["student"], lr=3e-3)
    losses = []
    for _ in range(8):
        output = task(*batch())
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.losses["feature"].item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(("teacher_px", "student_px"), [(32, 32), (40, 24)])
def test_a_network_with_images_of_its_own_learns_as_if_fed_by_hand(teacher_px: int, student_px: int) -> None:
    """A batch normalised by the data's values gives the losses and gradients of images that were normalised and
    resized for each network from the same pixels."""
    pixels = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 1, 2, -1])
    data = NetworkInput(32, (0.5, 0.4, 0.3), (0.25, 0.5, 0.2))
    own = {
        "teacher": NetworkInput(teacher_px, (0.1, 0.2, 0.3), (0.3, 0.2, 0.1)),
        "student": NetworkInput(student_px, data.mean, data.std),
    }
    task = make()
    task.inputs = {role: c for role, n in own.items() if (c := n.conversion(data)) is not None}
    by_hand = make()

    def normalised(of: NetworkInput) -> torch.Tensor:
        mean, std = (torch.tensor(value)[:, None, None] for value in (of.mean, of.std))
        return (resized(pixels, of.image_px) - mean) / std

    fed = {role: normalised(of) for role, of in own.items()}
    by_hand.teacher.register_forward_pre_hook(lambda _m, _a: (fed["teacher"],))
    by_hand.student.register_forward_pre_hook(lambda _m, _a: (fed["student"],))
    outputs = task(normalised(data), labels), by_hand(normalised(data), labels)
    torch.testing.assert_close(outputs[0].losses, outputs[1].losses, rtol=1e-4, atol=1e-5)
    for output in outputs:
        output.loss.backward()
    for one, other in zip(task.student.parameters(), by_hand.student.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-3 * other.grad.abs().max().item())


def test_losses_for_unlabelled_images_reach_the_networks_that_they_are_for() -> None:
    task = make(pseudo_label_weight=0.5, pseudo_label_threshold=0.01, confusion_weight=2.0)
    images, labels = batch((0, 1, -1, -1))
    output = task(images, labels)
    z_S, z_T = output.logits["student"], output.logits["teacher"]
    unlabelled = labels == -1
    expected = {
        "student_pseudo": pseudo_label_loss(z_T, z_S, unlabelled, threshold=0.01),
        "student_mcc": class_confusion(z_S, unlabelled, temperature=2.5),
        "teacher_mcc": class_confusion(z_T, unlabelled, temperature=2.5),
    }
    for name, value in expected.items():
        torch.testing.assert_close(output.losses[name], value)
    weights = {"phase": 0.1, "student_pseudo": 0.5, "student_mcc": 2.0, "teacher_mcc": 2.0}
    total = sum(weights.get(name, 1.0) * value for name, value in output.losses.items())
    torch.testing.assert_close(output.loss.detach(), total)
    plain = make()(images, labels)
    assert not expected.keys() & plain.losses.keys()
    assert MethodConfig(preset="cross_entropy", pseudo_label_weight=1.0).needs_teacher
