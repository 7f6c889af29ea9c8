"""Metadata in files of other trainers: class names and normalisation, under any key, in any nesting."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fourds_dist.models.weights.files import read_file
from fourds_dist.models.weights.metadata import NetworkMetadata

CLASSES = ("ant", "bee", "cat", "dog")
OTHER = ["dog", "cat", "bee", "ant"]
RUN = NetworkMetadata("x", "imagenet", CLASSES)


@pytest.mark.parametrize(
    "about",
    [
        {"names": OTHER}, {"names": dict(enumerate(OTHER))}, {"meta": {"categories": OTHER}}, {"labels": OTHER},
        {"idx2label": dict(enumerate(OTHER))}, {"label_map": {n: i for i, n in enumerate(OTHER)}},
        {"id2label": {i + 1: n for i, n in enumerate(OTHER)}}, {"label2id": {n: str(i) for i, n in enumerate(OTHER)}},
        {"datamodule_hyper_parameters": {"class_to_idx": {n: i for i, n in enumerate(OTHER)}}},
        {"hyper_parameters": {"data": {"dataset": {"classes": OTHER}}}}, {"opt": argparse.Namespace(classes=OTHER)},
        {"extra": {"vocab": OTHER}}, {"class_names": "dog, cat, bee, ant"}, {"class-names": "dog\ncat\nbee\nant\n"},
        {"config": json.dumps({"labels": OTHER})}, {"Class_Names": tuple(OTHER)},
        {"categories": [{"id": 7 - 7 + i, "name": n} for i, n in enumerate(OTHER)]},
        {"id2label": {str(i): f"LABEL_{i}" for i in range(4)}, "label_names": OTHER},
    ],
)  # fmt: skip
def test_class_names_are_found_under_any_key(about: dict[str, Any]) -> None:
    assert NetworkMetadata.of_file(about, run=RUN).classes == tuple(OTHER)


@pytest.mark.parametrize(
    "about",
    [
        {"names": ["loss", "accuracy", "f1", "auc"]},
        {"labels": [3, 1, 0, 2]},
        {"id2label": {i: f"LABEL_{i}" for i in range(4)}},
        {"optimizer": {"state": {i: {"step": torch.tensor(i)} for i in range(9)}}, "epoch": 3},
        {"classes": 4},
        {"num_classes": 4, "model": {"w": torch.ones(9)}},
    ],
)
def test_what_speaks_of_no_classes_is_not_taken_for_them(about: dict[str, Any]) -> None:
    assert NetworkMetadata.of_file(about, run=RUN).classes is None


def test_numbers_are_class_names_where_the_data_have_such() -> None:
    about = NetworkMetadata.of_file(
        {"labels": [3, 1, 0, 2]}, run=NetworkMetadata(classes=("0", "1", "2", "3"))
    )
    assert about.classes == ("3", "1", "0", "2")


@pytest.mark.parametrize(
    ("about", "mean", "std"),
    [
        ({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}, 0.5, 0.25),
        ({"hyper_parameters": {"normalize_mean": [0.5] * 3, "normalize_std": [0.25] * 3}}, 0.5, 0.25),
        ({"hyper_parameters": {"data": {"mean": [0.5] * 3, "std": [0.25] * 3}}}, 0.5, 0.25),
        ({"meta": {"cfg": {"img_norm_cfg": {"mean": [127.5] * 3, "std": [1.0] * 3}}}}, 0.5, 1 / 255),
        ({"mean": [0.5], "std": 0.25}, 0.5, 0.25),
        ({"preprocessor_config.json": {"do_normalize": False, "image_mean": [0.5] * 3}}, 0, 1),
    ],
)
def test_normalisation_is_found_under_any_key(about: dict[str, Any], mean: float, std: float) -> None:
    found = NetworkMetadata.of_file(about).preprocessing
    assert found["mean"] == pytest.approx((mean,) * 3)
    assert found["std"] == pytest.approx((std,) * 3)


MMENGINE = """
_base_ = ['../resnet.py']
data_preprocessor = dict(
    mean=[102.0, 127.5, 153.0],
    num_classes=len(_base_),
    std=[51.0, 51.0, 51.0],
    to_rgb={})
model = dict(backbone=dict(depth=18, type='ResNet'), head={{'topk': (1, 5)}}, data_preprocessor=None)
"""


@pytest.mark.parametrize(
    ("about", "is_bgr"),
    [
        ({"meta": {"cfg": MMENGINE.format(False)}}, True),
        ({"meta": {"cfg": MMENGINE.format(True)}}, False),
        ({"meta": {"config": "img_norm_cfg = dict(mean=[102, 127.5, 153], std=[51, 51, 51.], to_rgb=False)\n"}}, True),
        ({"cfg": "INPUT:\n  FORMAT: BGR\nMODEL: {PIXEL_MEAN: [102, 127.5, 153], PIXEL_STD: [51, 51, 51]}\n"}, True),
        ({"cfg": "INPUT:\n  FORMAT: RGB\nMODEL: {PIXEL_MEAN: [102, 127.5, 153], PIXEL_STD: [51, 51, 51]}\n"}, False),
        ({"pretrained_cfg": {"input_space": "BGR", "mean": [0.4, 0.5, 0.6], "std": [0.2] * 3}}, True),
        ({"transform": {"do_flip_channel_order": True, "mean": [0.4, 0.5, 0.6], "std": [0.2] * 3}}, True),
        ({"mean": [0.4, 0.5, 0.6], "std": [0.2] * 3, "args": argparse.Namespace(color_order="bgr")}, True),
        ({"mean": [0.4, 0.5, 0.6], "std": [0.2] * 3, "backend": "cv2"}, False),
    ],
)  # fmt: skip
def test_a_channel_order_is_found_with_the_means_in_that_order(about: dict[str, Any], is_bgr: bool) -> None:
    found = NetworkMetadata.of_file(about)
    assert found.reads_bgr is is_bgr
    assert found.preprocessing["mean"] == pytest.approx((0.6, 0.5, 0.4) if is_bgr else (0.4, 0.5, 0.6))
    assert found.preprocessing["std"] == pytest.approx((0.2,) * 3)


@pytest.mark.parametrize(
    "text", ["runs/best.yaml", "", "a = (", "open('x', 'w')", "mean = open('x').read()", "x" * 2_000_000]
)
def test_other_texts_are_no_settings(text: str) -> None:
    assert NetworkMetadata.of_file({"cfg": text, "config": {"args": text}}) == NetworkMetadata()


@pytest.mark.parametrize("name", ["0.{}", "module.normalizer.new_{}", "normalize.{}", "pixel_{}"])
def test_a_normalisation_layer_defines_the_preprocessing(name: str) -> None:
    layer = {name.format(k): torch.full((1, 3, 1, 1), v) for k, v in (("mean", 127.5), ("std", 51.0))}
    tensors = {**layer, "1.bn.running_mean": torch.ones(3), "1.bn.weight": torch.ones(3)}
    found = NetworkMetadata.of_file({}, tensors=tensors).preprocessing
    assert (found["mean"][0], found["std"][0]) == pytest.approx((0.5, 0.2))
    assert NetworkMetadata.of_file({}, tensors=tensors, own=layer).preprocessing == {}


def test_settings_beside_weights_of_hugging_face_are_read(tmp_path: Path) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    save_file({"w": torch.ones(1)}, tmp_path / "model-00001-of-00001.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "model-00001-of-00001.safetensors"}}))
    (tmp_path / "config.json").write_text(json.dumps({"id2label": dict(enumerate(OTHER))}))
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    )
    for name in ("model.safetensors", index.name):
        file = read_file(str(tmp_path / name), what="teacher.checkpoint")
        about = NetworkMetadata.of_file(file.about, run=RUN)
        assert about.classes == tuple(OTHER)
        assert about.preprocessing["std"] == (0.5,) * 3
        assert file.where.endswith("(with config.json, preprocessor_config.json)")
    (tmp_path / "config.json").write_text("no JSON")
    assert "(with preprocessor" in read_file(str(tmp_path / "model.safetensors"), what="student.start").where


@pytest.mark.parametrize("value", [10**400, float("nan"), float("inf"), -1e30])
def test_means_that_no_image_has_are_left_out(value: float) -> None:
    assert NetworkMetadata.of_file({"mean": [value] * 3, "std": [1.0] * 3}).preprocessing.get("mean") is None
