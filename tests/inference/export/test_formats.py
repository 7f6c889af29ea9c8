"""Writers of the export formats: the network with its normalisation, metadata, packages and calibration."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from fourds_dist.data.stream.preprocessing import Preprocessing
from fourds_dist.inference.export import formats
from fourds_dist.inference.loading import load_student
from fourds_dist.inference.student import ABOUT, Student, description
from fourds_dist.io.extras import fix
from fourds_dist.models.backbones import BackboneConfig, build_backbone
from tests.method import networks

NORMALISED = Preprocessing(16, 16, (0.1, 0.2, 0.3), (0.5, 0.25, 2.0))


@pytest.mark.parametrize("format_", ["safetensors", "torch-export"])
def test_tied_weights_are_exported(format_: str, tmp_path: Path) -> None:
    """safetensors itself refuses tensors that share memory."""
    network = networks.tied(2).eval()
    preprocessing = Preprocessing(16, 16, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    student = Student("", ("a", "b"), preprocessing, lambda pixels: pixels, network, {})
    path = formats.Writer(student, {"arch": "tied"}, lambda: torch.zeros(1)).write(format_, tmp_path)
    images = torch.rand(3, 3, 16, 16)
    if format_ == "safetensors":
        again = networks.tied(2).eval()
        again.load_state_dict(load_file(path))
    else:
        again = torch.export.load(path).module()
    torch.testing.assert_close(again(images), network(images))


def test_the_deployable_network_normalises_its_images() -> None:
    network = formats.DeployableNetwork(torch.nn.Flatten(), NORMALISED)
    images = torch.full((1, 3, 1, 1), 0.6)
    torch.testing.assert_close(network(images), torch.tensor([[1.0, 1.6, 0.15]]))
    assert network.state_dict() == {}  # mean and std are constants of the program


@pytest.mark.parametrize("format_", ["safetensors", "torch-export"])
def test_every_file_has_the_metadata_and_the_student_stays(format_: str, tmp_path: Path) -> None:
    network = networks.convolutions(2).train()
    student = Student("here", ("a", "b"), NORMALISED, lambda pixels: pixels, network, {})
    about = {"arch": "own", "classes": "ä\nb"}
    path = formats.Writer(student, about, lambda: torch.zeros(0)).write(format_, tmp_path)
    assert path == tmp_path / formats.FILES[format_]
    assert network.training
    if format_ == "safetensors":
        with safe_open(path, "pt") as file:
            assert about.items() <= file.metadata().items()
    else:
        extra = {ABOUT: ""}
        program = torch.export.load(path, extra_files=extra)
        assert json.loads(extra[ABOUT]) == about
        images = torch.rand(3, 3, 16, 16)
        mean, std = (torch.tensor(x)[:, None, None] for x in (NORMALISED.mean, NORMALISED.std))
        expected = network.eval()((images - mean) / std)
        torch.testing.assert_close(program.module()(images), expected)


@pytest.mark.parametrize(
    "format_", ["safetensors", "torch-export", pytest.param("onnx", marks=pytest.mark.slow)]
)
def test_every_file_prepares_images_as_the_student_does(format_: str, tmp_path: Path) -> None:
    if format_ == "onnx":
        pytest.importorskip("onnxruntime")
    preprocessing = replace(NORMALISED, resize_px=24, resize_mode="shortest_side", max_megapixels=2.0)
    config = BackboneConfig(arch="tests.method.networks:convolutions", stages=("0",))
    about = description(config, ("a", "b"), preprocessing, {"domain": "shards/set"})
    student = Student("here", ("a", "b"), preprocessing, lambda x: x, networks.convolutions(2), about)
    path = formats.Writer(student, about, lambda: torch.zeros(0)).write(format_, tmp_path)
    assert load_student(path).preprocessing == preprocessing


def test_an_exported_program_cannot_be_exported_again() -> None:
    student = Student("a.onnx", ("a", "b"), NORMALISED, lambda pixels: pixels, None, {})
    with pytest.raises(
        ValueError, match=r"a\.onnx is an exported program; give the run or the \.safetensors"
    ):
        formats.Writer(student, {}, lambda: torch.zeros(0))


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else object())
    formats.check_packages(["safetensors", "torch-export"])
    with pytest.raises(ValueError, match=f"^int8 needs onnxscript: {re.escape(fix('export'))}$"):
        formats.check_packages(["safetensors", "int8"])


def test_calibration_gives_each_image_once_as_a_batch_of_one() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8)[:, None, None, None].expand(3, 3, 2, 2)
    calibration = formats._Calibration(pixels)
    inputs = [calibration.get_next() for _ in range(4)]
    assert inputs[3] is None
    assert [given["images"].shape for given in inputs[:3] if given] == [(1, 3, 2, 2)] * 3
    assert [float(given["images"].max()) for given in inputs[:3] if given] == pytest.approx([0, 0.2, 1])


def test_exporters_are_quiet_and_errors_pass(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("torch.onnx")
    logger.setLevel(logging.WARNING)  # as PyTorch sets the level

    def talk() -> None:
        with formats._quiet():
            print("much output")
            warnings.warn("a remark", stacklevel=1)
            logger.warning("a warning")
            logger.error("an error")
            raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        talk()
    logger.warning("later")
    assert capsys.readouterr().out == ""
    assert caplog.messages == ["an error", "later"]


@pytest.mark.parametrize("image_px", [12, 24])
def test_programs_resize_and_normalise_as_the_student_does(image_px: int, tmp_path: Path) -> None:
    """The student's own size and normalisation: all programs map crops of 16 px to the same logits."""
    preprocessing = Preprocessing(18, 16, (0.1, 0.2, 0.3), (0.5, 0.25, 1.0), image_px=image_px)
    config = BackboneConfig(arch="tests.small_network:small")
    torch.manual_seed(0)
    network = build_backbone(config, 3, image_px).eval()
    about = description(config, ("a", "b", "c"), preprocessing, {})
    crops = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    seen: list[Tensor] = []
    network.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))

    def run(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            return network(preprocessing.normalised(pixels))

    student = Student("here", ("a", "b", "c"), preprocessing, run, network, about)
    expected = student.run(crops)
    assert seen[0].shape == (5, 3, image_px, image_px)
    seen.clear()
    network._forward_pre_hooks.clear()
    writer = formats.Writer(student, about, lambda: crops)
    for format_ in ("safetensors", "torch-export", "onnx", "int8"):
        again = load_student(writer.write(format_, tmp_path))
        assert again.preprocessing == preprocessing
        tolerance = 0.3 if format_ == "int8" else 1e-4
        torch.testing.assert_close(again.run(crops), expected, rtol=tolerance, atol=tolerance)
