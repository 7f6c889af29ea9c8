"""First weights: from torchvision by name, from files, for other classes, other image sizes; and what is refused."""

from __future__ import annotations

import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import VisionTransformer, _api, get_model

from fourds_dist.method import BackboneConfig, build_backbone
from fourds_dist.models.weights.loading import encode_weights, load_weights
from fourds_dist.models.weights.metadata import NetworkMetadata
from fourds_dist.models.weights.networks import StudentConfig, _fold_input_transform, build, build_initialised

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
    assert "initialised randomly: fc.weight, fc.bias" in caplog.text


def test_who_knows_the_classes(
    weights: tuple[Path, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, other = str(weights[0]), BackboneConfig(arch="resnet10", stem="small")
    assert build_initialised(SMALL, 5).is_untrained
    assert not build_initialised(SMALL, 9, start=file).is_untrained
    assert build_initialised(SMALL, 5, start=file).is_untrained
    assert not build_initialised(
        other, 9, start=file
    ).is_untrained  # of another shape is only the first convolution
    monkeypatch.setattr(_api, "load_state_dict_from_url", lambda *_, **__: get_model("resnet18").state_dict())
    assert build_initialised(BackboneConfig(arch="resnet18"), 1000, start="torchvision").is_untrained


def test_files_that_do_not_fit_are_refused(weights: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    path, state = weights
    with pytest.raises(ValueError, match=r"student\.start=.* does not fit .* \d+ tensors are missing"):
        build(BackboneConfig(arch="resnet18"), 9, start=str(path), key="student.start")
    with pytest.raises(ValueError, match=r"student\.start: .*absent.safetensors does not exist"):
        build(SMALL, 9, start=str(tmp_path / "absent.safetensors"), key="student.start")
    narrow = {k: v[:, :1].clone() if k == "layer1.0.conv1.weight" else v for k, v in state.items()}
    save_file(narrow, tmp_path / "narrow.safetensors")
    with pytest.raises(
        ValueError, match=r"layer1.0.conv1.weight has shape \(64, 1, 3, 3\), expected \(64, 64, 3, 3\)"
    ):
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
    with pytest.raises(ValueError, match=r"teacher\.start=torchvision://V9: .* known: IMAGENET1K_V1"):
        build(arch, 5, start="torchvision://V9", key="teacher.start")
    with pytest.raises(
        ValueError, match=r"teacher\.start=torchvision: torchvision has no such weights for 'resnet10'"
    ):
        build(SMALL, 5, start="torchvision", key="teacher.start")

    def offline(url: str, *args: Any, **options: Any) -> dict[str, Tensor]:
        raise OSError("no route to host")

    monkeypatch.setattr(_api, "load_state_dict_from_url", offline)
    with pytest.raises(ValueError, match=r"cannot be downloaded \(no route to host\); use a path"):
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


def test_classes_of_a_file_count_by_their_names(tmp_path: Path) -> None:
    """First weights of other classes leave the last layer random, also where there are as many; others reorder it."""
    torch.manual_seed(1)
    state = build_backbone(SMALL, 3).state_dict()
    run = NetworkMetadata("resnet10", "imagenet", ("ant", "bee", "cat"), {"mean": (0.5,) * 3, "crop_px": 32})
    told: list[str] = []

    def built(tell_of: dict[str, str], **changes: Any) -> tuple[dict[str, Tensor], bool]:
        (tmp_path / "w.safetensors").write_bytes(encode_weights(state, tell_of))
        told.clear()
        start = {"start": str(tmp_path / "w.safetensors"), "key": "student.start", "image_size": 32}
        config = StudentConfig(arch="resnet10", **changes)
        found = build_initialised(config, 3, run=run, notify=told.append, **start)
        return found.network.state_dict(), found.is_untrained

    found, is_untrained = built({"classes": "cat\nbee\nant"})
    assert torch.equal(found["fc.weight"], state["fc.weight"].flip(0))
    assert not is_untrained
    assert "by class name" in told[0]
    found, is_untrained = built({"classes": "cat\nbee\nelk"})
    assert not torch.equal(found["fc.weight"], state["fc.weight"])
    assert torch.equal(found["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])
    assert is_untrained
    assert "the file lacks 'ant'; the data lack 'elk'" in told[0]
    assert "last layer for other classes, initialised randomly: fc.weight, fc.bias" in told[1]
    found, is_untrained = built({"classes": "cat\nbee\nelk"}, metadata="ignore")
    assert torch.equal(found["fc.weight"], state["fc.weight"])
    ours = {"format": "fourds_dist", "arch": "resnet10", "stem": "imagenet"}
    built({**ours, "preprocessing": '{"mean": [0.5, 0.5, 0.5], "crop_px": 64}'})
    assert "data.crop_px is 64 in the file and 32 in the run" in told[0]
    with pytest.raises(ValueError, match=r"student\.start: .*student\.mean is .*student\.metadata=ignore"):
        built({**ours, "preprocessing": '{"mean": [0.1, 0.5, 0.5]}'})


def test_a_last_layer_may_be_missing_in_first_weights(tmp_path: Path) -> None:
    state = {k: v for k, v in build_backbone(SMALL, 3).state_dict().items() if not k.startswith("fc.")}
    save_file({f"backbone.{k}": v for k, v in state.items()}, tmp_path / "w.safetensors")
    told: list[str] = []
    start = {"start": str(tmp_path / "w.safetensors"), "key": "teacher.start"}
    found = build_initialised(SMALL, 3, notify=told.append, **start)
    assert found.is_untrained
    assert torch.equal(found.network.state_dict()["conv1.weight"], state["conv1.weight"])
    assert "not in the file, initialised randomly: fc.weight, fc.bias" in told[0]
    with pytest.raises(ValueError, match="2 missing"):
        load_weights(start["start"], build_backbone(SMALL, 3), what="teacher.checkpoint")


def test_inception_s_weights_take_images_as_all_others_do() -> None:
    """torchvision's own file expects another normalisation, which torchvision's network applies to its input."""
    torch.manual_seed(0)
    theirs, ours = (_first_layers() for _ in range(2))
    ours.load_state_dict(theirs.state_dict())
    _fold_input_transform(ours, "conv", "bn")
    images = torch.randn(2, 3, 8, 8)
    scale, shift = (
        torch.tensor([0.229, 0.224, 0.225]) / 0.5,
        (torch.tensor([0.485, 0.456, 0.406]) - 0.5) / 0.5,
    )
    wanted = theirs.eval()(images * scale[:, None, None] + shift[:, None, None])
    torch.testing.assert_close(ours.eval()(images), wanted, rtol=1e-4, atol=1e-5)


def _first_layers() -> nn.Sequential:
    layers = OrderedDict(conv=nn.Conv2d(3, 4, 3, bias=False), bn=nn.BatchNorm2d(4))
    return nn.Sequential(layers)
