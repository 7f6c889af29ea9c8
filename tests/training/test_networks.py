"""First weights: from torchvision by name, from files, for other classes, other image sizes; and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import VisionTransformer, _api, get_model

from fourds_dist.method import BackboneConfig, build_backbone
from fourds_dist.training.networks import begin, build

SMALL = BackboneConfig(arch="resnet10")
VIT = BackboneConfig(arch="tests.method.networks:vit")


@pytest.fixture
def weights(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A file of resnet10's weights for 9 classes."""
    torch.manual_seed(1)
    state = build_backbone(SMALL, 9).state_dict()
    save_file(state, tmp_path / "r10.safetensors")
    return tmp_path / "r10.safetensors", state


def test_a_file_fills_all_but_a_last_layer_for_other_classes(
    weights: tuple[Path, dict[str, Tensor]], caplog: pytest.LogCaptureFixture
) -> None:
    path, state = weights
    same = build(SMALL, 9, start=str(path), key="student.start").state_dict()
    assert all(torch.equal(v, state[k]) for k, v in same.items())
    assert caplog.records == []
    with caplog.at_level(logging.WARNING):
        other = build(SMALL, 5, start=str(path), key="student.start").state_dict()
    assert all(torch.equal(v, state[k]) for k, v in other.items() if not k.startswith("fc."))
    assert other["fc.weight"].shape == (5, 512)
    assert "left random: fc.weight, fc.bias" in caplog.text


def test_who_knows_the_classes(
    weights: tuple[Path, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, other = str(weights[0]), BackboneConfig(arch="resnet10", stem="small")
    assert begin(SMALL, 5).is_novice
    assert not begin(SMALL, 9, start=file).is_novice
    assert begin(SMALL, 5, start=file).is_novice
    assert not begin(other, 9, start=file).is_novice  # of another shape is only the first convolution
    monkeypatch.setattr(_api, "load_state_dict_from_url", lambda *_, **__: get_model("resnet18").state_dict())
    assert begin(BackboneConfig(arch="resnet18"), 1000, start="torchvision").is_novice


def test_files_that_do_not_fit_are_refused(weights: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    path, state = weights
    with pytest.raises(ValueError, match=r"student\.start=.* does not fit .* lacks \d+ of its tensors"):
        build(BackboneConfig(arch="resnet18"), 9, start=str(path), key="student.start")
    with pytest.raises(ValueError, match=r"student\.start: .*absent.safetensors does not exist"):
        build(SMALL, 9, start=str(tmp_path / "absent.safetensors"), key="student.start")
    narrow = {k: v[:, :1].clone() if k == "layer1.0.conv1.weight" else v for k, v in state.items()}
    save_file(narrow, tmp_path / "narrow.safetensors")
    with pytest.raises(ValueError, match=r"layer1.0.conv1.weight is \(64, 1, 3, 3\) where \(64, 64, 3, 3\)"):
        build(SMALL, 9, start=str(tmp_path / "narrow.safetensors"), key="student.start")


def test_torchvision_s_weights_come_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    state = get_model("resnet18").state_dict()

    def fetch(url: str, *args: Any, **options: Any) -> dict[str, Tensor]:
        del args, options
        fetched.append(url)
        return state

    monkeypatch.setattr(_api, "load_state_dict_from_url", fetch)
    arch = BackboneConfig(arch="resnet18")
    for start in ("torchvision", "torchvision://IMAGENET1K_V1"):
        network = build(arch, 5, start=start, key="teacher.start").state_dict()
        assert all(torch.equal(v, state[k]) for k, v in network.items() if not k.startswith("fc."))
    small = build(BackboneConfig(arch="resnet18", stem="small"), 5, start="torchvision").state_dict()
    assert small["conv1.weight"].shape == (64, 3, 3, 3)
    assert torch.equal(small["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])
    assert len(fetched) == 3
    with pytest.raises(ValueError, match=r"teacher\.start=torchvision://V9: .* there are IMAGENET1K_V1"):
        build(arch, 5, start="torchvision://V9", key="teacher.start")
    with pytest.raises(
        ValueError, match=r"teacher\.start=torchvision: torchvision has no such weights for 'resnet10'"
    ):
        build(SMALL, 5, start="torchvision", key="teacher.start")

    def offline(url: str, *args: Any, **options: Any) -> dict[str, Tensor]:
        raise OSError("no route to host")

    monkeypatch.setattr(_api, "load_state_dict_from_url", offline)
    with pytest.raises(ValueError, match=r"cannot be fetched \(no route to host\); give a path"):
        build(arch, 5, start="torchvision", key="teacher.start")


def test_a_vit_s_positions_are_interpolated_to_the_image(tmp_path: Path) -> None:
    state = build(VIT, 5, image_size=32).state_dict()
    save_file(state, tmp_path / "vit.safetensors")
    network = build(VIT, 5, start=str(tmp_path / "vit.safetensors"), key="student.start", image_size=64)
    assert isinstance(network, VisionTransformer)
    positions, before = network.encoder.pos_embedding, state["encoder.pos_embedding"]
    assert positions.shape == (1, 65, 24)
    assert torch.equal(positions[:, 0], before[:, 0])
    grid = nn.functional.interpolate(
        before[:, 1:].transpose(1, 2).unflatten(2, (4, 4)), size=(8, 8), mode="bicubic", align_corners=True
    )
    torch.testing.assert_close(positions[:, 1:], grid.flatten(2).transpose(1, 2))
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
