"""Fused BatchNorms: the same results, gradients, statistics and names; what is fused and what is not."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fourds_dist.method import BackboneConfig, FourDs, MethodConfig, build_backbone
from fourds_dist.models.activation_checkpointing import checkpoint_blocks
from fourds_dist.models.memory_saving import save_activation_memory
from fourds_dist.models.norm_fusion import FusedBatchNorm2d, FusedNorms, WithFusedNorms, fuse_norms
from fourds_dist.ops import use_backend

NETWORKS = {  # BatchNorms, and those followed by an activation or a sum
    "resnet10": (12, 9),
    "resnet18": (20, 17),
    "resnet50": (53, 49),
    "resnext50_32x4d": (53, 49),
    "mobilenet_v2": (52, 45),
    "mobilenet_v3_small": (34, 29),
    "efficientnet_b0": (49, 33),
    "regnet_y_400mf": (53, 49),
    "densenet121": (121, 121),
    "vgg11_bn": (8, 8),
    "timm/resnet18": (20, 17),
    "timm/efficientnet_b0": (49, 42),
    "timm/regnety_002": (44, 40),
}
QUICK = ("resnet10", "mobilenet_v3_small")


def build(arch: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    network = build_backbone(BackboneConfig(arch=arch), 5)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.bias, std=0.3)
            nn.init.uniform_(norm.weight, 0.3, 1.5)
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def fused(network: nn.Module) -> tuple[nn.Module, FusedNorms]:
    """A copy with fused BatchNorms."""
    copied = copy.deepcopy(network)
    return copied, fuse_norms(nn.ModuleList([copied]))


def values(network: nn.Module, x: Tensor, *, backend: str = "eager") -> dict[str, Tensor]:
    """Result, gradients and statistics of a step, and the result in evaluation mode."""
    torch.manual_seed(1)  # of dropout
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    with use_backend(backend):
        y = network.train()(leaf)
        y.square().sum().backward()
        with torch.no_grad():
            in_evaluation = network.eval()(x)
    assert leaf.grad is not None
    gradients = {f"gradient of {n}": p.grad for n, p in network.named_parameters() if p.grad is not None}
    return {"y": y.detach(), "z": in_evaluation, "x": leaf.grad, **gradients, **dict(network.named_buffers())}


def same(got: dict[str, Tensor], expected: dict[str, Tensor], rtol: float, atol: float) -> None:
    assert got.keys() == expected.keys()
    for name, x in got.items():
        torch.testing.assert_close(x, expected[name], rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    "arch", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
)
def test_networks_compute_the_same(arch: str) -> None:
    """In float64, as gradients of deep networks in float32 differ from run to run by more than any mistake."""
    plain = build(arch).double()
    network, found = fused(plain)
    assert found == (NETWORKS[arch][0], *NETWORKS[arch])
    assert list(network.state_dict()) == list(plain.state_dict())
    side = 72 if arch == "densenet121" else 40  # BatchNorm of few values would enlarge rounding
    x = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x.to(memory_format=torch.channels_last)
    same(values(network, x), values(plain, x), rtol=1e-7, atol=1e-9)
    plain.load_state_dict(network.state_dict())
    network.load_state_dict(plain.state_dict())


def test_pytorchs_functions_give_pytorchs_bits() -> None:
    """As on CPUs, where no kernel serves."""
    plain = build("resnet10")
    network, _ = fused(plain)
    x = torch.randn(2, 3, 32, 32)
    same(values(network, x, backend="reference"), values(plain, x), rtol=0, atol=0)


def make_task(**method: object) -> FourDs:
    torch.manual_seed(0)
    networks = (build_backbone(BackboneConfig(arch="resnet10"), 5) for _ in range(2))
    stages = ("layer1", "layer2", "layer3", "layer4")
    config = MethodConfig.model_validate(method)
    task = FourDs(*networks, teacher_stages=stages, student_stages=stages, config=config, image_size=32)
    return task.double().train()


@pytest.mark.parametrize("teacher_batch_norm", ["adapt", "frozen"])
@pytest.mark.parametrize("domain_batch_norm", [True, False])
@pytest.mark.parametrize("recomputes", [True, False])
def test_a_step_of_the_method_computes_the_same(
    teacher_batch_norm: str, domain_batch_norm: bool, recomputes: bool
) -> None:
    """With adapters that rewrite stages, domains that run separately, and blocks that run again."""
    plain = make_task(teacher_batch_norm=teacher_batch_norm, domain_batch_norm=domain_batch_norm)
    task = copy.deepcopy(plain)
    save_activation_memory(task)
    found = fuse_norms(task)
    assert found.total == found.replaced == 2 * 12 + 4 * 2
    assert (
        found.with_more == 2 * (12 - 1 - 3) + 4
    )  # without those of the stems, which the pools follow, and of shortcuts
    if recomputes:
        assert checkpoint_blocks(task) > 0
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(6, 3, 32, 32, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 5, (6,), generator=generator)
    results = []
    for each in (task, plain):
        with use_backend("eager"):
            output = each(images.to(memory_format=torch.channels_last), labels, num_source=2)
            output.loss.backward()
        gradients = {n: p.grad for n, p in each.named_parameters() if p.grad is not None}
        results.append({**output.losses, **output.logits, **gradients, **dict(each.named_buffers())})
    same(*results, rtol=1e-5, atol=1e-7)  # phases of weak bins enlarge rounding


class Block(nn.Module):
    """A block whose forward a test names."""

    def __init__(self, forward: Callable[[Block, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.bn, self.bn2 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.act, self.drop, self.rate = nn.ReLU(inplace=True), nn.Identity(), 0.0
        self.path = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.path(self, x)


def in_training_only(b: Block, x: Tensor) -> Tensor:
    y = b.act(b.bn(b.conv(x)))
    return y * 2 if b.training else y


def by_its_values(b: Block, x: Tensor) -> Tensor:
    y = b.act(b.bn(b.conv(x)))
    return y if x.sum() > 0 else -y


PATHS: dict[str, tuple[Callable[[Block, Tensor], Tensor], int]] = {
    "activation": (lambda b, x: b.act(b.bn(b.conv(x))), 1),
    "function": (lambda b, x: torch.relu(b.bn(b.conv(x))), 1),
    "method": (lambda b, x: b.bn(b.conv(x)).relu_(), 1),
    "identity between": (lambda b, x: b.act(b.drop(b.bn(b.conv(x)))), 1),
    "sum": (lambda b, x: x + b.bn(b.conv(x)), 1),
    "sum of two norms": (lambda b, x: b.act(b.bn(b.conv(x)) + b.bn2(x)), 1),
    "norms in a row": (lambda b, x: b.act(b.bn2(b.act(b.bn(x)))), 2),
    "used twice": (lambda b, x: (lambda y: b.act(y) * y)(b.bn(b.conv(x))), 0),
    "sum with itself": (lambda b, x: (lambda y: y + y)(b.bn(b.conv(x))), 0),
    "sum with a number": (lambda b, x: b.bn(b.conv(x)) + 1.0, 0),
    "input used elsewhere": (lambda b, x: b.act(b.bn(x) + x), 0),
    "other code in training": (in_training_only, 0),
    "branch on values": (by_its_values, 0),
    "new tensor": (lambda b, x: b.act(b.bn(x)) + torch.ones(4, 1, 1, dtype=torch.float64), 0),
    "list": (lambda b, x: b.act(b.bn(torch.cat(x if isinstance(x, list) else [x], 1))), 1),
}


@pytest.mark.parametrize("path", list(PATHS))
def test_blocks(path: str) -> None:
    torch.manual_seed(0)
    forward, num = PATHS[path]
    plain = Block(forward).double()
    block, found = fused(plain)
    assert found == (2, 2, num)
    assert isinstance(block, WithFusedNorms) == (num > 0)
    assert not [name for name in vars(block) if name.startswith("_tensor_constant")]
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    same(values(block, x), values(plain, x), rtol=1e-9, atol=1e-10)
    if path == "list":
        with use_backend("eager"):
            torch.testing.assert_close(block([x[:, :2], x[:, 2:]]), plain([x[:, :2], x[:, 2:]]))


@torch.no_grad()
def test_an_input_that_changes_before_the_sum() -> None:
    def forward(b: Block, x: Tensor) -> Tensor:
        before = b.conv(x)
        y = b.bn(before)
        before.zero_()
        return b.act(y + x)

    plain = Block(forward)
    block, found = fused(plain)
    x = torch.randn(2, 4, 3, 3)
    assert found.with_more == 0
    torch.testing.assert_close(block(x), plain(x))


@pytest.mark.parametrize("name", ["0.1", "0.2", "0"])
@pytest.mark.parametrize("before", [True, False])
def test_a_module_with_a_hook_runs_by_itself(name: str, before: bool) -> None:
    """Whether the hook was there before or comes later."""
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()),
    )
    network, seen = copy.deepcopy(plain), []

    def hook() -> None:
        network.get_submodule(name).register_forward_hook(lambda _m, _a, y: seen.append(y.detach().clone()))

    if before:
        hook()
    found = fuse_norms(nn.ModuleList([network]))
    assert found == (2, 2, 1 if before and name != "0" else 2)
    if not before:
        hook()
    x = torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(network(x), plain(x))
        parts = nn.Sequential(*plain[0])[: 3 if name == "0" else int(name[-1]) + 1]  # pyright: ignore
        torch.testing.assert_close(seen[0], parts(x))
    again = fuse_norms(nn.ModuleList([network]))
    assert again == (2, 2, 1 if name != "0" else 2)


def test_other_norms_and_subclasses_stay() -> None:
    class Own(nn.BatchNorm2d):
        """A layer of a user, which may compute anything."""

    class OwnAct(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sin()

    network = nn.Sequential(
        Own(3), nn.ReLU(), nn.GroupNorm(1, 3), nn.BatchNorm2d(3), OwnAct(), nn.BatchNorm2d(3), nn.GELU()
    )
    found = fuse_norms(nn.ModuleList([network]))
    assert found == (3, 2, 0)
    assert type(network[0]) is Own
    assert type(network[3]) is FusedBatchNorm2d
    assert fuse_norms(nn.ModuleList([nn.Sequential(nn.Linear(2, 2))])) == (0, 0, 0)


def test_layers_without_statistics_or_weights() -> None:
    plain = nn.Sequential(
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.ReLU(),
        nn.BatchNorm2d(3, affine=False, momentum=None),
        nn.SiLU(),
    ).double()
    network, found = fused(plain)
    assert found == (2, 2, 2)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    same(values(network, x), values(plain, x), rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="expected 4D input"):
        network(torch.randn(2, 3, dtype=torch.float64))
