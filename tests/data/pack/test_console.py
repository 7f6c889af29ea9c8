"""Output of `pack` about a data set."""

from __future__ import annotations

import pytest

from fourds_dist.data.format.manifest import Manifest, Shard
from fourds_dist.data.pack.console import show


def shown(counts: list[int], capsys: pytest.CaptureFixture[str]) -> str:
    classes = tuple(f"person {n}" for n in range(len(counts)))
    shards = {"train": (Shard("train-0.tar", sum(counts), 1000),)}
    show("x", Manifest("x", classes, shards, {"train": tuple(counts)}))
    return capsys.readouterr().out


def test_about_as_many_classes_as_images_are_remarked_on(capsys: pytest.CaptureFixture[str]) -> None:
    asked = "60 classes for 90 labelled images: are these classes, or ids of images?"
    assert asked in shown([1, 2] * 30 + [0] * 5, capsys)
    assert "ids of images" not in shown([2, 3] * 30, capsys)
    assert "ids of images" not in shown([1] * 3, capsys)
