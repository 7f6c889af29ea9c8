"""Any pair of networks: a training step of 4Ds, with unequal widths and resolutions. The list of pairs stands in
`fourds_dist.models.backbones`.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from fourds_dist.data.stream.network_input import InputConversion, NetworkInput
from fourds_dist.method import BackboneConfig, FourDs, MethodConfig, build_backbone
from fourds_dist.models import backbones
from fourds_dist.models.backbones import DEFAULT_STAGES, stage_names
from tests.method.networks import VIT, VIT_STAGES

SMALL = BackboneConfig(arch="resnet10", stem="small")
# Every family once as teacher and once as student.
PAIRS = (
    ("resnet18", "mobilenet_v3_small"),
    ("mobilenet_v3_small", "resnet10"),
    ("convnext_tiny", "resnet10"),
    ("resnet10", "convnext_tiny"),
    ("swin_t", "mobilenet_v2"),
    ("mobilenet_v2", "swin_t"),
    ("swin_v2_t", "efficientnet_b0"),
    ("efficientnet_b0", "swin_v2_t"),
    ("vgg11_bn", "shufflenet_v2_x0_5"),
    ("shufflenet_v2_x0_5", "vgg11_bn"),
    ("densenet121", "regnet_y_400mf"),
    ("regnet_y_400mf", "densenet121"),
    ("a ViT", "mnasnet0_5"),
    ("mnasnet0_5", "a ViT"),
    ("a ViT", "resnet10"),
)
IMAGE_PX = 64


def config_of(name: str) -> BackboneConfig:
    if name == "a ViT":
        return BackboneConfig(arch=VIT, stages=VIT_STAGES)
    if name == "vgg11_bn":
        return BackboneConfig(arch="tests.method.networks:vgg11_bn", stages=DEFAULT_STAGES[name])
    return SMALL if name == "resnet10" else BackboneConfig(arch=name)


def make(teacher: str, student: str, **method) -> FourDs:
    torch.manual_seed(0)
    configs = config_of(teacher), config_of(student)
    networks = [build_backbone(config, 5, IMAGE_PX) for config in configs]
    stages = [stage_names(c, n) for c, n in zip(configs, networks, strict=True)]
    return FourDs(
        networks[0],
        networks[1],
        teacher_stages=stages[0],
        student_stages=stages[1],
        config=MethodConfig(**method),
        image_size=IMAGE_PX,
    ).train()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, IMAGE_PX, IMAGE_PX, generator=generator), torch.tensor([3, -1])


@pytest.mark.parametrize(("teacher", "student"), PAIRS)
def test_a_step_of_any_pair(teacher: str, student: str) -> None:
    task = make(teacher, student)
    before = {
        k: v.clone() for k, v in task.teacher.state_dict().items() if "running" not in k and "num_b" not in k
    }
    output = task(*batch())
    output.loss.backward()
    assert all(torch.isfinite(value) for value in output.losses.values())
    assert output.losses["phase"] > 0.05  # unrelated networks: phases have nothing in common
    learning = {n: p for n, p in task.named_parameters() if p.requires_grad}
    assert [
        n for n, p in learning.items() if p.grad is None
    ] == []  # DDP waits for parameters that stay unused
    assert all(torch.isfinite(p.grad).all() for p in learning.values())  # pyright: ignore
    for adapter in task.adapters:
        assert adapter.mix.grad.abs().sum() > 0  # pyright: ignore
    first = next(p for p in task.student.parameters())
    assert first.grad.abs().sum() > 0  # pyright: ignore
    grouped = [id(p) for group in task.parameter_groups().values() for p in group]
    assert sorted(grouped) == sorted(id(p) for p in learning.values())
    assert all(torch.equal(v, task.teacher.state_dict()[k]) for k, v in before.items())

    task.eval()
    with torch.no_grad():
        for predict in task.predictors().values():
            assert predict(batch()[0]).shape == (2, 5)


def test_state_dicts_keep_torchvision_s_names() -> None:
    task = make("swin_t", "mobilenet_v3_small")
    for name, network in (("swin_t", task.teacher), ("mobilenet_v3_small", task.student)):
        assert list(network.state_dict()) == list(build_backbone(BackboneConfig(arch=name), 5).state_dict())


@pytest.mark.parametrize("preset", ["4ds_released", "fitnets"])
def test_other_methods_take_unequal_pairs_too(preset: str) -> None:
    task = make("a ViT", "mobilenet_v3_small", preset=preset)
    output = task(*batch())
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert [n for n, p in task.named_parameters() if p.requires_grad and p.grad is None] == []


def test_adapters_rewrite_what_the_teacher_s_later_layers_see() -> None:
    """Also where a stage's output is no map as it stands."""
    for teacher in ("a ViT", "swin_t", "resnet18"):
        task = make(teacher, "resnet10").eval()
        images, _ = batch()
        with torch.no_grad():
            before = task.predictors()["teacher_adapted"](images)
            for adapter in task.adapters:
                adapter.mix.copy_(
                    torch.tensor([-50.0, 50.0])
                )  # only the teacher's own amplitude: nothing changes
            own = task.predictors()["teacher_adapted"](images)
            handles = [m for m in task.teacher.modules() if m._forward_hooks]
            for module in handles:
                module._forward_hooks.clear()
            plain = task.teacher(images)
        torch.testing.assert_close(own, plain, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(before, plain, rtol=1e-3, atol=1e-3), teacher


def test_the_documented_pairs_are_the_tested_ones() -> None:
    documented = re.findall(r"(\w+|a ViT) > (\w+|a ViT)[,\n]", (backbones.__doc__ or "") + "\n")
    assert sorted(documented) == sorted(PAIRS)


@pytest.mark.parametrize("method", [{}, {"phase_loss": "squared"}, {"feature_loss": "all"}])
@pytest.mark.parametrize(
    ("teacher", "teacher_px", "student", "student_px"),
    [
        ("resnet10", 56, "resnet10", 40),  # as 224 and 160 px: maps of 14, 7, 4, 2 and 10, 5, 3, 2
        ("resnet10", 40, "resnet10", 56),
        ("a ViT", 120, "resnet10", 28),  # as 518 px: a grid of 15, and maps of 7, 4, 2, 1
        ("resnet10", 28, "a ViT", 72),
    ],
)
def test_a_step_of_networks_of_different_image_sizes(
    teacher: str, teacher_px: int, student: str, student_px: int, method: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    batches = NetworkInput(IMAGE_PX, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    sizes = {"teacher": (teacher, teacher_px), "student": (student, student_px)}
    inputs = {
        role: InputConversion(batches, NetworkInput(px, (0.4, 0.4, 0.4), (0.2, 0.2, 0.2)))
        for role, (_, px) in sizes.items()
    }
    networks = {role: build_backbone(config_of(name), 5, px) for role, (name, px) in sizes.items()}
    stages = {role: stage_names(config_of(name), networks[role]) for role, (name, _) in sizes.items()}
    task = FourDs(
        **networks,
        teacher_stages=stages["teacher"],
        student_stages=stages["student"],
        config=MethodConfig(**method),
        image_size=IMAGE_PX,
        inputs=inputs,
    ).train()
    output = task(*batch())
    output.loss.backward()
    assert all(torch.isfinite(value) for value in output.losses.values())
    assert [n for n, p in task.named_parameters() if p.requires_grad and p.grad is None] == []
    for predict in task.predictors().values():
        assert predict(batch()[0]).shape == (2, 5)
