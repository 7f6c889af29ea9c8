"""Hooks on the stages of a network: maps that are recorded and rewritten, and stages that are refused."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from fourds_dist.method import BackboneConfig, build_backbone
from fourds_dist.models.feature_hooks import FeatureHooks, StageInfo, inspect_stages, what_is
from tests.method.networks import VIT, VIT_STAGES, Convolutions
from tests.models.test_backbones import SMALL


class Scale(nn.Module):
    """Multiplies a map by a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.factor * h


def test_stages_are_inspected() -> None:
    info = inspect_stages(Convolutions(5), ("a", "b"), 16)
    assert info.stages == (StageInfo("a", "NCHW", 8, (16, 16)), StageInfo("b", "NCHW", 8, (8, 8)))
    assert info.num_classes == 5


def test_maps_are_recorded_and_rewritten() -> None:
    torch.manual_seed(0)
    network = Convolutions(5).eval()
    images = torch.randn(2, 3, 8, 8)
    a = network.a(images)
    b = network.b(2 * a)
    expected = network.head((3 * b).mean((2, 3)))
    stages = inspect_stages(network, ("a", "b"), 8).stages
    names = list(network.state_dict())
    hooks = FeatureHooks(network, stages, nn.ModuleList([Scale(2), Scale(3)]))
    torch.testing.assert_close(network(images), expected)
    torch.testing.assert_close(hooks.take(), [a, b])
    assert hooks.take() == []
    assert list(network.state_dict()) == names


def test_without_rewrite_the_network_computes_the_same() -> None:
    network = Convolutions(5).eval()
    images = torch.randn(2, 3, 8, 8)
    before = network(images)
    hooks = FeatureHooks(network, inspect_stages(network, ("b",), 8).stages)
    assert torch.equal(network(images), before)
    torch.testing.assert_close(hooks.take(), [network.b(network.a(images))])


def test_tokens_are_rewritten_as_maps_and_the_class_token_stays() -> None:
    config = BackboneConfig(arch=VIT, stages=VIT_STAGES)
    network = build_backbone(config, 5, 32).eval()
    stages = inspect_stages(network, VIT_STAGES[:1], 32).stages
    outputs: list[Any] = []
    layer = network.get_submodule(VIT_STAGES[0])
    layer.register_forward_hook(lambda _m, _a, output: outputs.append(output))
    hooks = FeatureHooks(network, stages, nn.ModuleList([Scale(2)]))
    layer.register_forward_hook(lambda _m, _a, output: outputs.append(output))
    network(torch.randn(1, 3, 32, 32))
    before, after = outputs
    assert before.shape == (1, 17, 24)
    assert torch.equal(after[:, :1], before[:, :1])
    assert torch.equal(after[:, 1:], 2 * before[:, 1:])
    assert torch.equal(hooks.take()[0][0, :, 1, 2], before[0, 1 + 4 + 2])


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (
            "tests.method.networks:of_grey_images",
            r"^student: Convolutions does not take images of 16 px in three channels \(.*"
            r"\); change data\.crop_px or student\.arch$",
        ),
        (
            "tests.method.networks:named_logits",
            r"^student: _Named returns a SimpleNamespace instead of logits of shape \(B, K\); name an entry point "
            r"under student\.arch whose network returns only logits$",
        ),
    ],
)
def test_networks_without_logits_are_refused(arch: str, message: str) -> None:
    network = build_backbone(BackboneConfig(arch=arch), 5, 16)
    with pytest.raises(ValueError, match=message):
        inspect_stages(network, ("a",), 16, what="student")
    assert not any(m._forward_hooks for m in network.modules())


def test_outputs_are_described() -> None:
    assert what_is(torch.zeros(2, 3)) == "a tensor of shape (2, 3)"
    assert what_is((1, 2)) == "a tuple"


@pytest.mark.parametrize(
    ("arch", "stages", "words"),
    [
        ("tests.method.networks:recurrent", ("conv",), "student: stage 'conv' runs 2 times"),
        (
            VIT,
            ("heads",),
            r"student: stage 'heads' returns a tensor of shape \(1, 5\) instead of a feature map",
        ),
        (
            "tests.models.test_feature_hooks:rows",
            ("strip",),
            "student: stages strip: .* not square feature maps of one layout",
        ),
    ],
)
def test_stages_that_are_no_maps_are_refused(arch: str, stages: tuple[str, ...], words: str) -> None:
    network = build_backbone(BackboneConfig(arch=arch), 5)
    with pytest.raises(ValueError, match=words):
        inspect_stages(network, stages, 32, what="student")


def test_looking_leaves_the_network_as_it_was() -> None:
    network = build_backbone(SMALL, 5).train()
    network.layer2.eval()  # type: ignore[union-attr]
    before = {k: v.clone() for k, v in network.state_dict().items()}
    inspect_stages(network, ("layer1",), 32)
    assert network.training
    assert not network.layer2.training  # type: ignore[union-attr]
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert not any(m._forward_hooks for m in network.modules())


def test_stages_are_named_as_they_run() -> None:
    network = build_backbone(SMALL, 5)
    with pytest.raises(
        ValueError, match="layer2, layer1 do not run in this order; name them in the order layer1, l"
    ):
        inspect_stages(network, ("layer2", "layer1"), 32)


def rows(num_classes: int) -> nn.Module:
    """A network with a map that is not square."""
    parts = OrderedDict(
        strip=nn.Conv2d(3, 4, 3, stride=(1, 2)),
        pool=nn.AdaptiveAvgPool2d(1),
        flat=nn.Flatten(),
        head=nn.Linear(4, num_classes),
    )
    return nn.Sequential(parts)


class Pairs(nn.Module):
    """A network whose stage returns a tuple, the map first, after a stage of another layout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 4, stride=4)
        self.block = Pair()
        self.head = nn.Linear(4, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens, more = self.block(self.stem(images))
        return self.head(tokens.mean(1)) + more


class Pair(nn.Module):
    def forward(self, map_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return map_BCHW.flatten(2).transpose(1, 2), map_BCHW.new_zeros(())


def test_hybrids_have_maps_and_tokens_and_stages_return_tuples() -> None:
    network = Pairs().eval()
    stages = inspect_stages(network, ("stem", "block"), 16).stages
    assert stages == (("stem", "NCHW", 4, (4, 4)), ("block", "tokens", 4, (4, 4)))
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = network(images)
    hooks = FeatureHooks(network, stages, nn.ModuleList([nn.Identity(), nn.ReLU()]))
    rewritten = network(images)
    stem, block = hooks.take()
    torch.testing.assert_close(stem, block)
    torch.testing.assert_close(rewritten, network.head(block.relu().mean((2, 3))))
    assert not torch.allclose(plain, rewritten)
