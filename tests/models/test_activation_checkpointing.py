"""Activation checkpointing: the same results, gradients and running statistics, with less stored."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from fourds_dist.method import BackboneConfig, FourDs, MethodConfig, build_backbone
from fourds_dist.models.activation_checkpointing import checkpoint_blocks
from fourds_dist.models.backbones import stage_names
from tests.method.networks import VIT, VIT_STAGES

NUM_CLASSES, SIDE = 5, 64


def four_ds(teacher: str, student: str) -> FourDs:
    torch.manual_seed(0)
    configs = [
        BackboneConfig(arch=arch, stages=VIT_STAGES if arch == VIT else None) for arch in (teacher, student)
    ]
    networks = [build_backbone(config, NUM_CLASSES, SIDE) for config in configs]
    stages = [stage_names(*pair) for pair in zip(configs, networks, strict=True)]
    return FourDs(
        *networks,
        teacher_stages=stages[0],
        student_stages=stages[1],
        config=MethodConfig(),
        image_size=SIDE,
    ).train()


def a_pass(task: nn.Module, *, bfloat16: bool) -> tuple[dict[str, Tensor], int]:
    """Losses, gradients and buffers after one batch; bytes that autograd stored for the backward pass."""
    torch.manual_seed(1)
    images, labels = torch.randn(4, 3, SIDE, SIDE), torch.tensor([0, 1, 2, -1])
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    autocast = torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), autocast:
        output = task(images, labels)
    output.loss.backward()
    found = {f"loss {name}": value.detach() for name, value in output.losses.items()}
    found |= {f"gradient {name}": p.grad for name, p in task.named_parameters() if p.grad is not None}
    return found | {f"buffer {name}": b.clone() for name, b in task.named_buffers()}, sum(kept.values())


@pytest.mark.parametrize(
    ("teacher", "student", "bfloat16"),
    [("resnet10", "resnet10", False), (VIT, "mobilenet_v3_small", True)],
)
def test_same_results_with_less_stored(teacher: str, student: str, bfloat16: bool) -> None:
    task = four_ds(teacher, student)
    again = deepcopy(task)
    assert checkpoint_blocks(again) > 4  # the adapters, and blocks of both networks
    expected, kept = a_pass(task, bfloat16=bfloat16)
    found, kept_again = a_pass(again, bfloat16=bfloat16)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=name)
    assert kept_again < 0.6 * kept


@pytest.mark.parametrize(
    ("arch", "num_blocks"),
    [("resnet18", 8), ("convnext_tiny", 18), ("vit_b_32", 12), ("swin_t", 15), ("vgg11", 0)],
)
def test_blocks_of_usual_networks(arch: str, num_blocks: int) -> None:
    with torch.device("meta"):
        assert checkpoint_blocks(torchvision.models.get_model(arch)) == num_blocks


def test_a_block_is_heard_once() -> None:
    heard = []
    network = nn.Sequential(BasicBlock(3, 3), BasicBlock(3, 3))
    for name, module in network.named_modules():
        if name in ("0.conv1", "1"):
            module.register_forward_hook(lambda *_, name=name: heard.append(name))
    assert checkpoint_blocks(network) == 1  # not the first, whose outputs a hook captures
    network(torch.randn(2, 3, 4, 4, requires_grad=True)).sum().backward()
    assert heard == ["0.conv1", "1"]


class ChangesItsInput(nn.Module):
    """A ReLU in place first, as in some residual networks."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(nn.functional.relu_(x))


def test_a_changed_input_is_refused() -> None:
    network = nn.Sequential(nn.Linear(3, 3), ChangesItsInput())
    assert checkpoint_blocks(network) == 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        network(torch.randn(2, 3)).sum().backward()


class DrawsSometimes(nn.Module):
    """A block whose dropout begins after its first pass."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.rate = 0.0

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x)
        return nn.functional.dropout(x, self.rate) if self.rate else x


def test_random_numbers_are_noticed_in_the_first_pass() -> None:
    network = nn.Sequential(DrawsSometimes(), DrawsSometimes())
    network[1].rate = 0.5
    assert checkpoint_blocks(network) == 2
    for _ in range(2):
        network(torch.randn(2, 3)).sum().backward()
    assert [block.draws_random_numbers for block in network] == [False, True]
    network[0].rate = 0.5
    with pytest.raises(RuntimeError, match="DrawsSometimes drew random numbers"):
        network(torch.randn(2, 3))
