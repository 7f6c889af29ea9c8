"""Preprocessing beside exported weights: written, read again, and applied as in evaluation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.example import Example
from fourds_dist.data.decode.crop_box import ResizeMode
from fourds_dist.data.pack.writer import pack_domain
from fourds_dist.data.stream.batch import normalise
from fourds_dist.data.stream.config import DataConfig
from fourds_dist.data.stream.network_input import InputConversion, NetworkInput
from fourds_dist.data.stream.preprocessing import Preprocessing
from fourds_dist.inference.images import open_files, open_labelled
from tests.data.deep_images import encoded, png16

PLAIN = Preprocessing(8, 4, (0.5, 0.25, 0.0), (0.5, 0.25, 1.0), (0, 4095), 2.5)


def test_json_comes_back() -> None:
    assert Preprocessing.from_json(PLAIN.to_json(), "here") == PLAIN
    assert "\n" not in PLAIN.to_json()
    old = json.loads(PLAIN.to_json())
    del old["grey_range"], old["max_megapixels"], old["resize_mode"]  # as earlier versions wrote
    read = Preprocessing.from_json(json.dumps(old), "here")
    assert (read.grey_range, read.max_megapixels) == (None, DataConfig().max_megapixels)
    assert read.resize_mode == "squeeze"
    whole = replace(PLAIN, resize_mode="shortest_side")
    assert Preprocessing.from_json(whole.to_json(), "here") == whole == Preprocessing.of(whole.loader())


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{}", '{"resize_px": 8, "crop_px": 4, "mean": [0, 0, 0]}',
     json.dumps(json.loads(PLAIN.to_json()) | {"crop_px": 9}),
     json.dumps(json.loads(PLAIN.to_json()) | {"std": [1, 1, 0]}),
     json.dumps(json.loads(PLAIN.to_json()) | {"resize_mode": "squash"}),
     *(json.dumps(json.loads(PLAIN.to_json()) | {"image_px": size}) for size in (0, -1, 8193, 2.5, "4", True))],
)  # fmt: skip
def test_what_is_no_preprocessing_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"^w\.onnx: the preprocessing cannot be read \(.+\); export the student again$"
    ):
        Preprocessing.from_json(text, "w.onnx")


def test_from_and_to_a_configuration() -> None:
    config = PLAIN.loader()
    assert Preprocessing.of(config, (1, 2)) == PLAIN  # the section's range comes first
    assert Preprocessing.of(DataConfig(), (1, 2)).grey_range == (1, 2)
    assert Preprocessing.of(DataConfig()).grey_range is None


def test_the_central_crop_is_normalised_by_channel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    found = PLAIN.pixels(encoded(Image.fromarray(pixels), "PNG"))
    crop = torch.from_numpy(pixels[2:6, 2:6]).permute(2, 0, 1)
    assert torch.equal(found, crop)
    expected = (crop / 255 - torch.tensor(PLAIN.mean)[:, None, None]) / torch.tensor(PLAIN.std)[:, None, None]
    torch.testing.assert_close(PLAIN.normalised(found[None])[0], expected)


def test_a_network_s_own_size_and_normalisation_come_back() -> None:
    own = NetworkInput(6, (0.1, 0.2, 0.3), (1.0, 0.5, 0.25))
    preprocessing = Preprocessing.of(PLAIN.loader(), network=own)
    assert (preprocessing.crop_px, preprocessing.network_px) == (4, 6)
    assert (preprocessing.mean, preprocessing.std) == (own.mean, own.std)
    assert Preprocessing.from_json(preprocessing.to_json(), "here") == preprocessing
    of_data = Preprocessing.of(PLAIN.loader(), network=NetworkInput.of_data(PLAIN.loader()))
    assert of_data == PLAIN
    assert (of_data.image_px, of_data.network_px) == (None, 4)
    assert "image_px" not in json.loads(of_data.to_json())  # a file that earlier versions read


def test_a_network_s_own_input_is_that_of_training() -> None:
    """Training converts normalised crops; prediction resizes and normalises crops by the network's values."""
    data = PLAIN.loader()
    own = NetworkInput(6, (0.1, 0.2, 0.3), (1.0, 0.5, 0.25))
    crops = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = normalise(crops, torch.zeros(2, dtype=torch.bool), mean=data.mean, std=data.std)
    expected = InputConversion(NetworkInput.of_data(data), own)(batch)
    torch.testing.assert_close(Preprocessing.of(data, network=own).normalised(crops), expected)


def test_one_resize_of_the_file_differs_from_the_resize_of_its_crop() -> None:
    """The reason for which prediction resizes the crop of training: at 160 px of a crop of 224 px of a photograph, a
    crop of 160 px from the file resized to 256 * 160 / 224 px is sharper, by one to three of 255 levels on average."""
    file = encoded(Image.fromarray(load_sample_image("china.jpg")), "PNG")
    mean, std = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)  # in levels
    twice = Preprocessing(256, 224, mean, std, image_px=160)
    once = Preprocessing(round(256 * 160 / 224), 160, mean, std)
    images = [each.normalised(each.pixels(file)[None]) for each in (twice, once)]
    assert images[0].shape == images[1].shape == (1, 3, 160, 160)
    difference = (images[0] - images[1]).abs().mean().item()
    assert 1 < difference < 3


def test_the_grey_range_and_the_largest_size_apply() -> None:
    grey = png16(np.full((8, 8, 1), 819, np.uint16))  # a fifth of 4095
    assert PLAIN.pixels(grey).unique().tolist() == [51]
    small = Preprocessing(8, 4, (0, 0, 0), (1, 1, 1), max_megapixels=63e-6)
    with pytest.raises(ValueError, match="pixels"):
        small.pixels(encoded(Image.new("RGB", (8, 8)), "PNG"))


@pytest.mark.parametrize("size", [(24, 8), (8, 24), (8, 8)])
@pytest.mark.parametrize("resize_mode", ["squeeze", "shortest_side"])
def test_evaluation_and_prediction_prepare_images_equally(
    size: tuple[int, int], resize_mode: ResizeMode, tmp_path: Path
) -> None:
    """A dataset folder is read as shards, files one by one."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = tmp_path / "a.png"
    file.write_bytes(encoded(Image.fromarray(pixels), "PNG"))
    examples = [
        Example("a", file.read_bytes(), "png", "ant", split=name) for name in ("train", "val", "test")
    ]
    pack_domain(Domain("set", ("ant",), lambda: iter(examples)), str(tmp_path / "set"))
    preprocessing = replace(PLAIN, resize_mode=resize_mode, grey_range=None)
    (shards,) = open_labelled(str(tmp_path / "set"), ("ant",)).batches(preprocessing)
    (files,) = open_files([file]).batches(preprocessing)
    assert torch.equal(shards.pixels, files.pixels)
    if resize_mode == "shortest_side":  # pixels of the central square, as they are
        row, column = (size[1] - 4) // 2, (size[0] - 4) // 2
        crop = pixels[row : row + 4, column : column + 4]
        assert torch.equal(files.pixels[0], torch.from_numpy(crop).permute(2, 0, 1))
