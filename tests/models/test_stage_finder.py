"""Stages found by a forward pass: cuts of the graph, blocks, resolutions, and what the pass leaves in the network."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from fourds_dist.models.stage_finder import find_stages

PX = 64


class Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(inputs, outputs, 3, stride, 1),
            nn.Conv2d(outputs, outputs, 3, 1, 1),
        )
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.second(self.first(x).relu()) + self.shortcut(x))


def convolutional(*, blocks: int = 2, last: int = 32) -> nn.Sequential:
    """A network with `blocks` blocks at each stride from 4 to `last`, and a convolution that widens at the end."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Conv2d(3, 8, 3, 2, 1))
    stride = 4
    while stride <= last:
        parts[f"stride{stride}"] = nn.Sequential(
            *(Block(8, 8, stride=2 if k == 0 else 1) for k in range(blocks))
        )
        stride *= 2
    parts["widen"] = nn.Conv2d(8, 64, 1)
    parts["drop"] = nn.Identity()
    parts["pool"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    parts["head"] = nn.Linear(64, 5)
    return nn.Sequential(parts)


class Layer(nn.Module):
    """A residual layer of a transformer, without attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(x)


class Transformer(nn.Module):
    """A plain transformer with a class token and four registers, and a cache that its pass fills."""

    num_prefix_tokens = 5

    def __init__(self, *, depth: int = 8, patch: int = 14) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, patch, patch)
        self.prefix = nn.Parameter(torch.zeros(1, 5, 8))
        self.trunk = nn.Module()
        self.trunk.layers = nn.ModuleList(Layer(8) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)
        self.cache: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(images).flatten(2).transpose(1, 2)
        if self.cache is None:
            self.cache = torch.zeros(1, x.shape[1], 1, device=x.device)
        x = torch.cat([self.prefix.expand(len(x), -1, -1), x + self.cache], 1)
        for layer in self.trunk.layers:  # pyright: ignore[reportGeneralTypeIssues]
            x = layer(x)
        return self.head(self.norm(x)[:, 0])


def test_a_convolutional_network_has_its_last_blocks_at_the_strides() -> None:
    """Neither the stem, nor the convolution that widens, nor layers that change nothing."""
    assert find_stages(convolutional(), PX) == ("stride4", "stride8", "stride16", "stride32")
    assert find_stages(convolutional(blocks=1), PX) == ("stride4", "stride8", "stride16", "stride32")


def test_fewer_resolutions_share_the_stages() -> None:
    assert find_stages(convolutional(last=8), PX) == ("stride4.0", "stride4.1", "stride8.0", "stride8.1")
    assert find_stages(convolutional(last=16, blocks=3), PX) == (
        "stride4.0",
        "stride4.2",
        "stride8",
        "stride16",
    )


def test_a_transformer_has_stages_at_quarters_the_last_one_a_layer_early() -> None:
    for depth, layers in ((8, (1, 3, 5, 6)), (12, (2, 5, 8, 10))):
        names = tuple(f"trunk.layers.{layer}" for layer in layers)
        assert find_stages(Transformer(depth=depth), 70) == names
    assert find_stages(Transformer(patch=16), 64) == tuple(f"trunk.layers.{k}" for k in (1, 3, 5, 6))


def test_a_module_counts_only_if_later_layers_read_its_output() -> None:
    class Inner(nn.Module):
        """Uses its block's output, and returns another one."""

        def __init__(self) -> None:
            super().__init__()
            self.block, self.more = Block(8, 8, 2), nn.Conv2d(8, 8, 3, 1, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.block(x)
            return x, self.more(x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 5)
            self.parts = nn.ModuleList(Inner() for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            for part in self.parts:
                _, x = part(x)
            return self.head(x.mean((2, 3)))

    assert find_stages(Net(), PX) == tuple(f"parts.{k}.block" for k in range(4))


def test_branches_that_never_meet_have_the_last_block_of_each_resolution() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 5)
            self.branches = nn.ModuleList(Block(8, 8, 2**k) for k in range(4))

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head(sum(branch(x).mean((2, 3)) for branch in self.branches))

    assert find_stages(Branches(), PX) == tuple(f"branches.{k}" for k in range(4))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_pass_leaves_the_network_as_it_was(device: str) -> None:
    network = Transformer().to(device).train()
    network.trunk.layers[0].eval()  # pyright: ignore[reportIndexIssue]
    find_stages(network, 70)
    assert network.cache is None
    assert network.training
    assert not network.trunk.layers[0].training  # pyright: ignore[reportIndexIssue]
    assert all(p.requires_grad and p.device.type == device for p in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_a_network_that_reads_values_is_run_on_its_device() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = convolutional()

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x * float(x.sum() + 1))

    assert find_stages(Reads(), PX) == tuple(f"body.stride{s}" for s in (4, 8, 16, 32))


def test_a_network_with_too_few_maps_has_no_stages() -> None:
    parts = OrderedDict(stem=nn.Conv2d(3, 8, 4, 4), flat=nn.Flatten(), head=nn.Linear(8 * 16 * 16, 5))
    assert find_stages(nn.Sequential(parts), PX) is None
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        find_stages(nn.Sequential(parts), 32)
