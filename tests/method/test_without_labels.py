"""The method without target labels: no collapse, normalisation by domain, and which images the adapters learn from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fourds_dist.method import FourDs, MethodConfig
from fourds_dist.method.label_mix import LabelMix
from fourds_dist.method.losses import cross_entropy, information_maximisation, kd_loss
from fourds_dist.method.presets import PRESETS, WITH_TARGET_LABELS, WITHOUT_TARGET_LABELS
from tests.method.networks import VIT_STAGES, vit
from tests.method.test_fourds import batch, make

NUM_CLASSES = 4


class Small(nn.Module):
    """Two blocks on images of 8 px."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, NUM_CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.second(self.first(images)))


def draw(num: int, random: torch.Generator, *, target: bool) -> tuple[Tensor, Tensor]:
    """A bright quarter is the class; it is faint in the target, under noise and a colour cast."""
    labels = torch.randint(0, NUM_CLASSES, (num,), generator=random)
    quarters = nn.functional.one_hot(labels, NUM_CLASSES).float().view(num, 1, 2, 2)
    images = nn.functional.interpolate(quarters, scale_factor=4).repeat(1, 3, 1, 1)
    if target:
        cast = torch.rand(num, 3, 1, 1, generator=random)
        images = 0.3 * images + 1.5 * (cast + torch.randn(num, 3, 8, 8, generator=random))
    return images + 0.1 * torch.randn(num, 3, 8, 8, generator=random), labels


def largest_share_of_a_class(*, has_labels: bool, num_steps: int) -> float:
    """Train on labelled source and unlabelled target images; return the student's most frequent class's share."""
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    networks = Small(), Small()
    before = torch.optim.Adam([p for network in networks for p in network.parameters()], lr=1e-2)
    for _ in range(40):
        images, labels = draw(32, random, target=False)
        before.zero_grad()
        torch.stack([cross_entropy(network(images), labels) for network in networks]).sum().backward()
        before.step()
    config = MethodConfig().for_target(has_labels=has_labels)
    stages = ("first", "second")
    task = FourDs(*networks, teacher_stages=stages, student_stages=stages, config=config, image_size=8)
    groups = task.train().parameter_groups()
    optimizers = torch.optim.SGD(groups["student"], 0.1, 0.9), torch.optim.AdamW(groups["adapters"], 3e-2)
    shown, _ = draw(512, random, target=True)
    for _ in range(num_steps):
        (of_target, _), (of_source, labels) = (
            draw(32, random, target=is_target) for is_target in (True, False)
        )
        labels = torch.cat([torch.full((32,), -1), labels])
        output = task(torch.cat([of_target, of_source]), labels, num_source=32)
        task.zero_grad()
        output.loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    with torch.no_grad():
        classes = task.eval().predictors()["student"](shown).argmax(dim=1)
    return classes.bincount(minlength=NUM_CLASSES).max().item() / len(shown)


def test_the_student_does_not_collapse_to_one_class() -> None:
    """The losses for labelled targets collapse on the same images: both networks can agree on one class there."""
    assert largest_share_of_a_class(has_labels=True, num_steps=160) > 0.9
    assert largest_share_of_a_class(has_labels=False, num_steps=160) < 0.5


def test_the_values_of_null_follow_the_labels() -> None:
    for preset in PRESETS:
        labelled, free = (MethodConfig(preset=preset).for_target(has_labels=h) for h in (True, False))  # type: ignore[arg-type]
        expected = WITH_TARGET_LABELS | WITHOUT_TARGET_LABELS.get(preset, {})
        assert {key: getattr(labelled, key) for key in WITH_TARGET_LABELS} == WITH_TARGET_LABELS
        assert {key: getattr(free, key) for key in WITH_TARGET_LABELS} == expected
    given: dict[str, Any] = {"domain_batch_norm": False, "infomax_weight": 0.5, "adapter_kd": "all"}
    free = MethodConfig(**given).for_target(has_labels=False)
    assert free.model_dump() | given == free.model_dump()


@pytest.mark.parametrize("preset", list(PRESETS))
def test_null_is_the_method_for_labelled_targets(preset: str) -> None:
    images, labels = batch()
    resolved = MethodConfig(preset=preset).for_target(has_labels=True)  # type: ignore[arg-type]
    outputs = make(preset=preset)(images, labels), make(**resolved.model_dump())(images, labels, num_source=2)
    assert torch.equal(outputs[0].loss, outputs[1].loss)
    assert outputs[0].losses.keys() == outputs[1].losses.keys()


@pytest.mark.parametrize("teacher_batch_norm", ["adapt", "frozen"])
def test_each_domain_is_normalised_separately_and_the_target_alone_updates_the_statistics(
    teacher_batch_norm: str,
) -> None:
    images, labels = batch((-1, -1, -1, 0, 1))
    task = make(domain_batch_norm=True, teacher_batch_norm=teacher_batch_norm)
    target, source = (make(domain_batch_norm=True, teacher_batch_norm=teacher_batch_norm) for _ in range(2))
    output = task(images, labels, num_source=2)
    alone = target(images[:3], labels[:3]), source(images[3:], labels[3:])
    for name, z in output.logits.items():
        torch.testing.assert_close(z, torch.cat([part.logits[name] for part in alone]))
    for (name, buffer), other in zip(task.named_buffers(), target.buffers(), strict=True):
        torch.testing.assert_close(buffer, other, msg=name)
    mean = alone[0].losses["phase"] * 3 / 5 + alone[1].losses["phase"] * 2 / 5
    torch.testing.assert_close(output.losses["phase"], mean)
    output.loss.backward()
    assert [n for n, p in task.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("adapters", [True, False])
def test_a_network_without_batch_norm_runs_once_for_both_domains(adapters: bool) -> None:
    """LayerNorm normalises each image by itself. The adapters have BatchNorm, so the teacher then runs twice."""
    images, labels = batch((-1, -1, -1, 0, 1))
    outputs, calls = [], []
    for by_domain in (True, False):
        torch.manual_seed(0)
        task = FourDs(
            vit(5, 32),
            vit(5, 32),
            teacher_stages=VIT_STAGES,
            student_stages=VIT_STAGES,
            config=MethodConfig(domain_batch_norm=by_domain, adapters=adapters),
            image_size=32,
        ).train()
        calls.append({"teacher": 0, "student": 0})
        for name, count in ((name, calls[-1]) for name in calls[-1]):
            task.get_submodule(name).register_forward_pre_hook(
                lambda *_, name=name, count=count: count.update({name: count[name] + 1})
            )
        outputs.append(task(images, labels, num_source=2))
    assert calls[0] == {"teacher": 2 if adapters else 1, "student": 1}
    assert calls[1] == {"teacher": 1, "student": 1}
    assert torch.equal(outputs[0].logits["student"], outputs[1].logits["student"])
    assert torch.equal(outputs[0].logits["teacher"], outputs[1].logits["teacher"]) is not adapters


def test_adapters_learn_from_the_student_on_labelled_images_alone() -> None:
    images, labels = batch((-1, -1, 0, 1))
    output = make(adapter_kd="labelled")(images, labels)
    z_S, z_T = output.logits["student"], output.logits["teacher"]
    labelled = torch.tensor([0.0, 0.0, 1.0, 1.0])
    torch.testing.assert_close(
        output.losses["teacher_kd"], kd_loss(z_S, z_T, temperature=4.0, weight_B=labelled)
    )
    mix = LabelMix(labels.roll(1), torch.full((4,), 0.4))
    output = make(adapter_kd="labelled")(images, labels, mix)
    z_S, z_T = output.logits["student"], output.logits["teacher"]
    both = torch.tensor([0.0, 0.0, 0.0, 1.0])  # the partner of the third image has no label
    torch.testing.assert_close(output.losses["teacher_kd"], kd_loss(z_S, z_T, temperature=4.0, weight_B=both))


def test_information_maximisation_reaches_both_networks_with_its_weight() -> None:
    images, labels = batch((0, 1, -1, -1))
    output, plain = make(infomax_weight=2.0)(images, labels), make()(images, labels)
    for network, z in output.logits.items():
        expected = information_maximisation(z, labels == -1)
        torch.testing.assert_close(output.losses[f"{network}_infomax"], expected)
    added = output.losses["student_infomax"] + output.losses["teacher_infomax"]
    torch.testing.assert_close((output.loss - plain.loss).detach(), 2 * added)
