"""Memory saving: the same losses, gradients and state with less stored; which layers are replaced."""

import copy
import shutil

import pytest
import torch
from torch import Tensor, nn

from fourds_dist.method import BackboneConfig, FourDs, MethodConfig, SourceClassifiers, build_backbone
from fourds_dist.models.backbones import stage_names
from fourds_dist.models.memory_saving import (
    FrozenConv2d,
    FusedIntoPool,
    MemorySavingMaxPool2d,
    MemorySavingReLU,
    cast_frozen_weights,
    save_activation_memory,
)
from tests.ops import emulated_memory_saving as emulated_lean

STAGES = ("layer1", "layer2", "layer3", "layer4")


def make_task(teacher: str = "resnet10", student: str = "resnet10") -> FourDs:
    torch.manual_seed(0)
    networks = (build_backbone(BackboneConfig(arch=arch), 5) for arch in (teacher, student))
    task = FourDs(
        *networks,
        teacher_stages=STAGES,
        student_stages=STAGES,
        config=MethodConfig(),
        image_size=64,
    )
    return task.to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]


def step(task: FourDs, device: str) -> tuple[list[Tensor], int]:
    """Losses, gradients and buffers of one step; bytes that autograd stores."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, 3, 64, 64, generator=generator).to(device, memory_format=torch.channels_last)
    labels = torch.randint(0, 5, (4,), generator=generator).to(device)
    kept = {}

    def note(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.numel() * t.element_size()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        output = task(images, labels)
    parameters = {p.untyped_storage().data_ptr() for p in task.parameters()}
    output.loss.backward()
    gradients = [p.grad for p in task.parameters() if p.grad is not None]
    values = [*output.losses.values(), *gradients, *task.buffers()]
    return values, sum(size for address, size in kept.items() if address not in parameters)


@pytest.mark.parametrize("device", ["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_memory_saving_computes_the_same_and_stores_less(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = []
    plain = make_task()
    task = copy.deepcopy(plain)
    if device == "emulated":
        if shutil.which("g++") is None:
            pytest.skip("needs g++")
        device, launched = "cpu", emulated_lean.use(monkeypatch)
    save_activation_memory(task)
    assert list(task.state_dict()) == list(plain.state_dict())
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        expected, kept_before = step(plain.to(device), device)
        got, kept = step(task.to(device), device)
    assert len(got) == len(expected)
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)
    assert kept < 0.8 * kept_before
    if device == "cpu":
        assert launched.count("max_pool") == 2
        assert launched.count("max_pool_backward") == 1
        # the teacher's second, third and fourth block; below its first adapter nothing has a gradient
        assert launched.count("relu") == launched.count("relu_backward") == 6


def test_who_is_changed() -> None:
    task = make_task("resnet18", "resnet10")
    save_activation_memory(task)
    save_activation_memory(task)  # again is nothing more
    assert type(task.student.relu) is type(task.teacher.relu) is FusedIntoPool
    assert isinstance(task.student.maxpool, MemorySavingMaxPool2d)
    assert {type(m) for m in task.student.modules() if isinstance(m, nn.Conv2d)} == {nn.Conv2d}
    assert {type(m) for m in task.teacher.modules() if isinstance(m, nn.Conv2d)} == {FrozenConv2d}
    assert type(task.teacher.layer1[0].relu) is MemorySavingReLU  # pyright: ignore
    assert type(task.student.layer1[0].relu) is nn.ReLU  # pyright: ignore
    assert {type(m) for m in task.adapters.modules() if isinstance(m, nn.Conv2d)} == {nn.Conv2d}


def test_a_relu_with_a_hook_stays() -> None:
    network = build_backbone(BackboneConfig(arch="resnet10"), 5)
    heard = []
    network.relu.register_forward_hook(lambda _m, _a, output: heard.append(output.min().item()))  # pyright: ignore
    save_activation_memory(SourceClassifiers({"teacher": network}))
    network(torch.randn(2, 3, 64, 64))
    assert heard[0] >= 0
    assert type(network.maxpool) is MemorySavingMaxPool2d


@pytest.mark.parametrize("arch", ["resnet10", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_networks_with_other_pools_compute_the_same(arch: str) -> None:
    """Off a GPU every layer is PyTorch's."""
    network = build_backbone(BackboneConfig(arch=arch), 5).eval().requires_grad_(False)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = network(images)
        save_activation_memory(nn.ModuleDict({"teacher": network}))
        torch.testing.assert_close(network(images), expected)
    assert any(isinstance(m, MemorySavingMaxPool2d) for m in network.modules())


def test_compiled_without_a_graph_break(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile sees PyTorch's own layers."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
    network = nn.Sequential(*layers).requires_grad_(False)
    images = torch.randn(2, 3, 12, 12).contiguous(memory_format=torch.channels_last).requires_grad_()
    expected = network(images)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), images)
    save_activation_memory(nn.ModuleDict({"teacher": network}))
    launched = emulated_lean.use(monkeypatch)
    got = torch.compile(network, backend="aot_eager", fullgraph=True)(images)
    (gradient,) = torch.autograd.grad(got.sum(), images)
    assert launched == []
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("arch", ["resnet10", "mobilenet_v3_small", "swin_t"])
def test_a_teacher_held_in_bfloat16_is_half_as_large_and_computes_the_same_under_autocast(arch: str) -> None:
    torch.manual_seed(0)
    teacher, student = (build_backbone(BackboneConfig(arch=name), 5) for name in (arch, "resnet10"))
    task = FourDs(
        teacher,
        student,
        teacher_stages=stage_names(BackboneConfig(arch=arch), teacher),
        student_stages=STAGES,
        config=MethodConfig(),
        image_size=64,
    ).train()
    held = copy.deepcopy(task)
    cast_frozen_weights(torch.bfloat16, held)
    assert _num_bytes(held.teacher) < 0.52 * _num_bytes(task.teacher)
    assert {p.dtype for p in held.parameters() if p.requires_grad} == {torch.float32}
    norms = [m for m in held.teacher.modules() if isinstance(m, (nn.BatchNorm2d, nn.LayerNorm))]
    assert {p.dtype for norm in norms for p in norm.parameters()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(1)
        expected, _ = step(task, "cpu")
        torch.manual_seed(1)
        got, _ = step(held, "cpu")
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def _num_bytes(network: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in network.parameters())
