"""Metadata of a file and of a run: reading, and every difference in words."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fourds_dist.data import DataConfig
from fourds_dist.data.stream.preprocessing import Preprocessing
from fourds_dist.models.backbones import BackboneConfig
from fourds_dist.models.weights.metadata import (
    NetworkMetadata,
    class_order,
    other_architecture,
    other_classes,
    other_grey_range,
    other_preprocessing,
)


def of_classes(*names: str) -> NetworkMetadata:
    return NetworkMetadata(classes=names)


def test_the_metadata_of_a_run_come_from_its_sections() -> None:
    data = DataConfig(resize_px=40, crop_px=32)
    run = NetworkMetadata.of_run(
        data, BackboneConfig(arch="resnet34"), ["a", "b"], has_source=True, grey_ranges=[(0, 9)]
    )
    assert (run.arch, run.stem, run.classes) == ("resnet34", "imagenet", ("a", "b"))
    crop = {"resize_px": 40, "crop_px": 32, "resize_mode": "squeeze"}
    assert run.preprocessing == crop | {"image_px": 32, "mean": data.mean, "std": data.std}
    assert (run.grey_ranges, run.has_source) == (((0, 9),), True)
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.5, 1.0)
    own = BackboneConfig(arch="resnet34", image_px=48, mean=mean, std=std)
    run = NetworkMetadata.of_run(data, own, ["a"], has_source=False)
    assert run.preprocessing == crop | {"image_px": 48, "mean": mean, "std": std}


def test_a_run_s_file_holds_its_metadata_as_text() -> None:
    prepared = json.loads(Preprocessing.of(DataConfig(), (0, 4095)).to_json())
    del prepared["max_megapixels"]
    values = {"format": "fourds_dist", "arch": "resnet18", "stem": "small", "classes": "a b\nc"}
    found = NetworkMetadata.of_file(values | {"preprocessing": json.dumps(prepared)})
    assert (found.arch, found.stem, found.classes) == ("resnet18", "small", ("a b", "c"))
    assert found.grey_ranges == ((0, 4095),)
    assert found.preprocessing["crop_px"] == found.preprocessing["image_px"] == DataConfig().crop_px
    assert "grey_range" not in found.preprocessing
    other = NetworkMetadata.of_file({**values, "format": "pt"})  # the key arch of another trainer is not ours
    assert (other.arch, other.stem) == (None, None)
    assert found.preprocessing["resize_mode"] == "squeeze"
    earlier = {key: value for key, value in prepared.items() if key != "resize_mode"}
    assert NetworkMetadata.of_file(values | {"preprocessing": json.dumps(earlier)}).preprocessing == (
        found.preprocessing
    )
    own = json.dumps(prepared | {"image_px": 160})
    assert NetworkMetadata.of_file(values | {"preprocessing": own}).preprocessing["image_px"] == 160
    for broken in ("no JSON", "[1]", 3):
        assert NetworkMetadata.of_file(values | {"preprocessing": broken}).preprocessing == {}


@pytest.mark.parametrize(
    ("file", "run", "order"),
    [
        (("c", "a", "b"), ("a", "b", "c"), [1, 2, 0]),
        (("a", "b"), ("a", "b"), [0, 1]),
        (
            ("ko\u0308ter", " b "),
            ("b", "k\u00f6ter"),
            [1, 0],
        ),  # in another normal form of Unicode, with spaces
        (("a", "b"), ("a", "c"), None),
        (("a", "b"), ("a",), None),
        (("a", "a"), ("a", "a"), None),
        (("a", "b"), ("a", "b", "b"), None),
    ],
)
def test_the_order_of_classes_is_found_by_name(
    file: tuple[str, ...], run: tuple[str, ...], order: list[int] | None
) -> None:
    assert class_order(of_classes(*file), of_classes(*run)) == order
    assert (other_classes(of_classes(*file), of_classes(*run)) is None) == (order is not None)
    assert class_order(of_classes(*file), NetworkMetadata()) is None
    assert other_classes(NetworkMetadata(), of_classes(*run)) is None


def test_other_classes_are_named() -> None:
    many = of_classes(*"abcdefg")
    assert other_classes(of_classes("a", "z"), many) == (
        "the file has 2 classes, the data have 7; the file lacks 'b', 'c', 'd' and 3 more; the data lack 'z'"
    )
    assert other_classes(of_classes("a", "a"), of_classes("a", "a")) == "its class names are not distinct"


@pytest.mark.parametrize(
    ("key", "file", "run", "difference"),
    [
        ("crop_px", 28, 32, "data.crop_px is 28 in the file and 32 in the run"),
        ("mean", [0.4851, 0.5, 0.5], (0.485, 0.5, 0.5), None),  # authors round
        (
            "mean",
            [0.487, 0.5, 0.5],
            (0.485, 0.5, 0.5),
            "teacher.mean is [0.487, 0.5, 0.5] in the file and [0.485",
        ),
        ("std", [1, 1, 1], (1.0, 1.0, 1.0), None),
        ("std", [1, 1], (1.0, 1.0, 1.0), "teacher.std is [1, 1] in the file and [1, 1, 1] in the run"),
        ("resize_px", None, 36, None),
        (
            "resize_mode",
            "squeeze",
            "shortest_side",
            "data.resize_mode is squeeze in the file and shortest_side in the run",
        ),
        ("resize_px", "36", 36, "data.resize_px is 36 in the file"),
    ],
)
def test_other_preprocessing_is_named_by_key(
    key: str, file: object, run: object, difference: str | None
) -> None:
    pair = NetworkMetadata(preprocessing={key: file}), NetworkMetadata(preprocessing={key: run})
    found = other_preprocessing(*pair, role="teacher")
    assert [text.startswith(difference or "-") for text in found] == [True] * (difference is not None)
    assert other_preprocessing(*pair, keys=(), role="teacher") == []


@pytest.mark.parametrize(
    ("end", "is_far"), [(4095.0, None), (4097.0, None), (4000.0, False), (3700.0, True), (255.0, True)]
)
def test_grey_ranges_far_from_all_of_the_run_s_are_far(end: float, is_far: bool | None) -> None:
    run = NetworkMetadata(grey_ranges=((0.0, 4095.0), (-1000.0, 65535.0)), has_source=True)
    found = other_grey_range(NetworkMetadata(grey_ranges=((0.0, end),)), run)
    assert (found and found[1]) == is_far
    if found:
        assert found[0] == (
            f"data.grey_range is [0, {end:g}] in the file and [0, 4095] and [-1000, 65535] in the run"
        )
        without_source = replace(run, has_source=False)
        assert other_grey_range(NetworkMetadata(grey_ranges=((0.0, end),)), without_source) == (
            found[0],
            False,
        )
    assert other_grey_range(NetworkMetadata(), run) is None


def test_another_architecture_is_named_by_its_keys() -> None:
    run = NetworkMetadata("resnet18", "imagenet")
    assert other_architecture(NetworkMetadata("resnet10", "small"), run) == "arch=resnet10, stem=small"
    assert other_architecture(NetworkMetadata("resnet18", "small"), run) == "stem=small"
    assert other_architecture(NetworkMetadata("resnet18"), run) is None
    assert other_architecture(run, NetworkMetadata()) is None
