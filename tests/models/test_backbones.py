"""Networks and the names of their stages: every torchvision family, entry points, timm, refusals."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from fourds_dist.io.extras import fix
from fourds_dist.method import BackboneConfig, build_backbone
from fourds_dist.models.backbones import DEFAULT_STAGES, SMALL_VITS, num_parameters, stage_names
from fourds_dist.models.feature_hooks import inspect_stages
from tests.method.networks import VIT, VIT_STAGES

VIT_OF_TIMM = ("blocks.2", "blocks.5", "blocks.8", "blocks.10")
SMALL = BackboneConfig(arch="resnet10", stem="small")
WITHOUT_STAGES = {"alexnet", "googlenet", "inception_v3", "maxvit_t", "squeezenet1_0", "squeezenet1_1"}
OFFERED = [a for a in torchvision.models.list_models(module=torchvision.models) if a not in WITHOUT_STAGES]
OFFERED += SMALL_VITS


@pytest.mark.parametrize("arch", OFFERED)
def test_every_family_has_its_stages_at_its_strides(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device: shapes without memory or work."""
    for init in ("trunc_normal_", "kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_"):
        monkeypatch.setattr(nn.init, init, lambda tensor, *a, **k: tensor)
    config = BackboneConfig(arch=arch)
    if arch.startswith("regnet"):  # computes its widths with tensors
        network = build_backbone(config, 5).to("meta")
    else:
        with torch.device("meta"):
            network = build_backbone(config, 5)
    stages, num_classes = inspect_stages(network, stage_names(config, network), 224)
    strides = [224 / stage.size[0] for stage in stages]
    assert strides == ([224 / stages[0].size[0]] * 4 if arch.startswith("vit") else [4, 8, 16, 32])
    assert num_classes == 5
    assert all(later.channels >= earlier.channels for earlier, later in pairwise(stages))


def test_no_default_stages_are_left_over() -> None:
    used = {max((f for f in DEFAULT_STAGES if a.startswith(f)), key=len) for a in OFFERED}
    assert used == set(DEFAULT_STAGES)


def test_families_without_stages_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"no default stages are known for 'alexnet'.*top-level: features, avgpool"
    ):
        stage_names(BackboneConfig(arch="alexnet"), build_backbone(BackboneConfig(arch="alexnet"), 5))


def test_stage_names_are_checked() -> None:
    network = build_backbone(SMALL, 5)
    with pytest.raises(ValueError, match=r"resnet10 has no submodule 'layer9'.*layer"):
        stage_names(BackboneConfig(arch="resnet10", stages=("layer1", "layer9")), network)
    for stages in ((), ("layer1", "layer1")):
        with pytest.raises(ValueError, match="are empty or have duplicates; name each submodule once"):
            stage_names(BackboneConfig(arch="resnet10", stages=stages), network)


def test_architectures_are_checked() -> None:
    with pytest.raises(ValueError, match=r"'resnet43'.*resnet34"):
        build_backbone(BackboneConfig(arch="resnet43"), 5)
    with pytest.raises(ValueError, match="stem 'small' is for ResNets"):
        build_backbone(BackboneConfig(arch="vgg11", stem="small"), 5)
    with pytest.raises(ValueError, match=r"patches of 16 px, and 70 is not a multiple; set data.crop_px=64"):
        build_backbone(BackboneConfig(arch="vit_b_16"), 5, 70)
    with pytest.raises(ValueError, match=r"vit_nano_4 .*patches of 4 px, and 18 is not a multiple"):
        build_backbone(BackboneConfig(arch="vit_nano_4"), 5, 18)


@pytest.mark.parametrize(("arch", "millions"), [("vit_mini_4", 0.46), ("vit_nano_4", 0.17)])
def test_small_vits_have_a_grid_of_the_size_of_the_image_over_four(arch: str, millions: float) -> None:
    config = BackboneConfig(arch=arch)
    network = build_backbone(config, 5, 24)
    names = stage_names(config, network)
    assert [stage.size for stage in inspect_stages(network, names, 24).stages] == [(6, 6)] * 4
    blocks = [
        name for name, _ in network.named_modules() if "encoder_layer_" in name and name.count(".") == 2
    ]
    assert names[-1] == blocks[-2]  # the last block's patches do not reach the class token
    assert round(num_parameters(network) / 1e6, 2) == millions


def test_a_vit_is_built_for_the_images_it_gets() -> None:
    with torch.device("meta"):
        network = build_backbone(BackboneConfig(arch="vit_b_32"), 5, 64)
        usual = build_backbone(BackboneConfig(arch="vit_b_32"), 5)
    names = stage_names(BackboneConfig(arch="vit_b_32"), network)
    stages, _ = inspect_stages(network, names, 64)
    assert {(s.layout, s.channels, s.size) for s in stages} == {("tokens", 768, (2, 2))}
    with pytest.raises(ValueError, match=r"teacher: .* does not take images of 64 px .*224.* data.crop_px"):
        inspect_stages(usual, names, 64, what="teacher")


def test_entry_points_are_called_with_classes_and_size() -> None:
    config = BackboneConfig(arch=VIT, stages=VIT_STAGES)
    network = build_backbone(config, 7, 64)
    stages, num_classes = inspect_stages(network, stage_names(config, network), 64)
    assert num_classes == 7
    assert {s.size for s in stages} == {(8, 8)}
    with pytest.raises(ValueError, match="name submodules under `stages`"):
        stage_names(BackboneConfig(arch=VIT), network)


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("nowhere.to_be_found:net", "'nowhere.to_be_found' cannot be imported"),
        ("tests.method.networks:vitt", "has no 'vitt'"),
        ("tests.method.networks:VIT", "a function that takes num_classes"),
        ("tests.method.networks:without_classes", "a function that takes num_classes"),
        ("tests.method.networks:no_network", "returned a Tensor, not a torch.nn.Module"),
    ],
)
def test_entry_points_are_checked(arch: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_backbone(BackboneConfig(arch=arch), 5)


def test_timm_is_asked_for_when_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=f"'timm/convnext_atto' needs timm.*{re.escape(fix('timm'))}"):
        build_backbone(BackboneConfig(arch="timm/convnext_atto"), 5)

    asked: dict[str, Any] = {}
    timm = ModuleType("timm")
    fixed = {"vit_tiny": True, "convnext_atto": False}
    timm.is_model = fixed.__contains__  # type: ignore[attr-defined]
    timm.list_models = lambda: list(fixed)  # type: ignore[attr-defined]
    timm.get_pretrained_cfg = lambda name: SimpleNamespace(fixed_input_size=fixed[name])  # type: ignore[attr-defined]
    timm.create_model = lambda name, **options: asked.update(name=name, **options) or nn.Linear(1, 1)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", timm)
    build_backbone(BackboneConfig(arch="timm/vit_tiny"), 5, 64)
    assert asked == {"name": "vit_tiny", "pretrained": False, "num_classes": 5, "img_size": 64}
    asked.clear()
    build_backbone(BackboneConfig(arch="timm/convnext_atto"), 5, 64)
    assert asked == {"name": "convnext_atto", "pretrained": False, "num_classes": 5}
    with pytest.raises(ValueError, match="did you mean 'timm/convnext_atto'"):
        build_backbone(BackboneConfig(arch="timm/convnext_ato"), 5)


def test_auxiliary_heads_are_left_out() -> None:
    """In training they would give a tuple."""
    with torch.device("meta"):
        for arch in ("googlenet", "inception_v3"):
            network = build_backbone(BackboneConfig(arch=arch), 5).train()
            assert network(torch.zeros(2, 3, 96, 96)).shape == (2, 5)
            assert not network.transform_input


def test_patches_of_timm_have_to_fit_the_image() -> None:
    pytest.importorskip("timm")
    with (
        torch.device("meta"),
        pytest.raises(ValueError, match=r"patches of 16 px, and 72 .* data\.crop_px=64"),
    ):
        build_backbone(BackboneConfig(arch="timm/vit_tiny_patch16_224"), 5, 72)


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("vit_tiny_patch16_224", VIT_OF_TIMM),
        ("eva02_tiny_patch14_224", VIT_OF_TIMM),
        ("mixer_s32_224", ("blocks.1", "blocks.3", "blocks.5", "blocks.6")),
        ("convnext_atto", ("stages.0", "stages.1", "stages.2", "stages.3")),
        ("efficientnet_b0", ("blocks.1", "blocks.2", "blocks.4", "blocks.6")),
        ("resnet10t", ("layer1", "layer2", "layer3", "layer4")),
        ("hrnet_w18_small", ("incre_modules.0", "incre_modules.1", "incre_modules.2", "incre_modules.3")),
    ],
)
def test_stages_of_timm_s_networks_are_found(name: str, stages: tuple[str, ...]) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        network = timm.create_model(name)
    assert stage_names(BackboneConfig(arch=f"timm/{name}"), network) == stages


def test_lazy_layers_find_their_sizes() -> None:
    network = build_backbone(BackboneConfig(arch="tests.method.networks:lazy"), 5, 16)
    assert network.state_dict()["head.weight"].shape == (5, 8)
