"""Output of `pack` about a data set."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from fourds_dist.data.decode.grey import Grey
from fourds_dist.data.format.manifest import Manifest, Shard
from fourds_dist.data.pack.console import PackProgress, show


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


@pytest.mark.parametrize(("num_deep", "num_plain"), [(24, 0), (20, 4)])
def test_images_of_8_bits_beside_deeper_ones_are_remarked_on(
    num_deep: int, num_plain: int, capsys: pytest.CaptureFixture[str]
) -> None:
    grey = asdict(Grey("16-bit", num_deep, 0, 4080, 0, 4080, False))
    shards = {"train": (Shard("train-0.tar", 20, 1000),), "val": (Shard("val-0.tar", 4, 100),)}
    manifest = Manifest(
        "x", ("a",), shards, {"train": (20,), "val": (4,)}, grey_range=(0.0, 4080.0), notes={"grey": grey}
    )
    show("x", manifest)
    out = " ".join(capsys.readouterr().out.split())
    assert f"the 16-bit images ({num_deep}) use values up to 4080 of 65535" in out
    assert ("the 4 images of 8 bits keep their values" in out) == bool(num_plain)


def test_lines_with_rate_and_time_left_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 10.0, 31.0, 40.0, 70.0])
    with PackProgress("photos", clock=lambda: next(times)) as progress:
        for done in (0, 100, 310, 400):
            progress("checking", done, 1000)
        progress("reading", 5, None)
    assert capsys.readouterr().err.splitlines() == ["photos: checking 310 of 1000 images, 10/s, 69 s left"]
