"""What weights say of their images, before they are loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from fourds_dist.data import DataConfig
from fourds_dist.data.stream.network_input import NetworkInput
from fourds_dist.data.stream.preprocessing import Preprocessing
from fourds_dist.models.backbones import BackboneConfig
from fourds_dist.models.weights.loading import encode_weights
from fourds_dist.models.weights.networks import metadata
from fourds_dist.models.weights.weights_input import weights_input

HALF = (0.5, 0.5, 0.5)
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
VIT = "tests.method.networks:vit"
WEIGHTS = {"layer": torch.ones(2)}


def said(arch: str, start: str) -> dict[str, Any]:
    return weights_input(BackboneConfig(arch=arch), start, "student.start")


@pytest.mark.parametrize("start", ["random", "source"])
def test_no_weights_say_nothing(start: str) -> None:
    assert said("resnet18", start) == {}


def test_torchvision_describes_its_weights() -> None:
    for start in ("pretrained", "torchvision", "torchvision://IMAGENET1K_V1"):
        assert said("resnet18", start) == IMAGENET
    assert said("vit_b_16", "pretrained") == IMAGENET | {"image_px": 224}
    assert said("vit_b_16", "torchvision://IMAGENET1K_SWAG_E2E_V1") == IMAGENET | {"image_px": 384}
    with pytest.raises(
        ValueError, match=r"student\.start=torchvision://NONE: torchvision has no such weights"
    ):
        said("resnet18", "torchvision://NONE")


def test_timm_describes_its_weights() -> None:
    pytest.importorskip("timm")
    assert said("timm/resnet18.a1_in1k", "pretrained") == IMAGENET  # a network of any size
    assert said("timm/vit_tiny_patch16_384.augreg_in21k_ft_in1k", "pretrained") == {
        "mean": HALF, "std": HALF, "image_px": 384
    }  # fmt: skip
    assert said("timm/vit_small_patch14_dinov2.lvd142m", "pretrained") == IMAGENET | {"image_px": 518}


def test_a_repository_describes_its_weights(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    config = {
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "input_size": [3, 96, 96],
        "fixed_input_size": True,
    }
    text = {"architecture": "test_vit", "num_classes": 2, "pretrained_cfg": config}
    (tmp_path / "config.json").write_text(json.dumps(text))
    expected = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "image_px": 96}
    assert said(f"local-dir:{tmp_path}", "pretrained") == expected


def of_run(path: Path, own: NetworkInput) -> str:
    preprocessing = Preprocessing.of(DataConfig(resize_px=36, crop_px=32), network=own).to_json()
    about = metadata(BackboneConfig(arch="resnet18"), ("a", "b"), preprocessing=preprocessing)
    path.write_bytes(encode_weights(WEIGHTS, about))
    return str(path)


def test_a_file_of_a_run_names_the_network_s_own_images(tmp_path: Path) -> None:
    file = of_run(tmp_path / "w.safetensors", NetworkInput(40, HALF, (0.25, 0.5, 1.0)))
    expected = {"mean": HALF, "std": (0.25, 0.5, 1.0), "image_px": 40}
    assert said("resnet18", file) == said(VIT, file) == expected
    plain = of_run(tmp_path / "plain.safetensors", NetworkInput(32, HALF, HALF))
    assert said("resnet18", plain) == {"mean": HALF, "std": HALF}
    assert said(VIT, plain) == {"mean": HALF, "std": HALF, "image_px": 32}  # its positions have one size


def test_files_of_other_trainers_name_their_normalisation(tmp_path: Path) -> None:
    torch.save({"state_dict": WEIGHTS, "args": {"mean": [127.5] * 3, "std": [51.0] * 3}}, tmp_path / "w.pt")
    assert said("resnet18", str(tmp_path / "w.pt")) == {"mean": HALF, "std": (0.2, 0.2, 0.2)}
    bgr = {"to_rgb": False, "mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0]}
    torch.save({"state_dict": WEIGHTS, "cfg": bgr}, tmp_path / "bgr.pt")
    assert said("resnet18", str(tmp_path / "bgr.pt"))["mean"] == (0.3, 0.2, 0.1)
    (tmp_path / "none.safetensors").write_bytes(save(WEIGHTS))
    assert said("resnet18", str(tmp_path / "none.safetensors")) == {}
    with pytest.raises(ValueError, match="does not exist"):
        said("resnet18", str(tmp_path / "missing.pt"))


def with_normaliser(num_classes: int) -> torch.nn.Module:
    """A network that normalises images by a layer of its own."""
    network = torch.nn.Sequential(torch.nn.Conv2d(3, num_classes, 1))
    layer = torch.nn.Module()
    for module in (network, layer):
        module.register_buffer("mean", torch.zeros(3))
        module.register_buffer("std", torch.ones(3))
    network.add_module("normalise", layer)
    return network


def test_a_normalising_layer_counts_unless_the_run_s_network_has_the_layer(tmp_path: Path) -> None:
    layer = {"normalize.mean": torch.full((1, 3, 1, 1), 0.5), "normalize.std": torch.full((1, 3, 1, 1), 0.25)}
    torch.save({**WEIGHTS, **layer}, tmp_path / "w.pt")
    assert said("resnet10", str(tmp_path / "w.pt")) == {"mean": HALF, "std": (0.25, 0.25, 0.25)}
    own = "tests.models.weights.test_weights_input:with_normaliser"
    for prefix in ("", "normalise."):
        layer = {f"{prefix}mean": torch.zeros(3), f"{prefix}std": torch.ones(3)}
        torch.save({**layer, **WEIGHTS}, tmp_path / "own.pt")
        assert said(own, str(tmp_path / "own.pt")) == {}
        assert said("resnet10", str(tmp_path / "own.pt")) == {"mean": (0.0,) * 3, "std": (1.0,) * 3}
