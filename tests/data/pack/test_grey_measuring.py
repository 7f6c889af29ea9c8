"""The grey range of a plan is measured over all images of more than 8 bits, wherever they lie."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fourds_dist.data.pack.entry import Entry, Spool
from fourds_dist.data.pack.grey_measuring import common_root, grey_of, sources_of
from fourds_dist.data.pack.plan import PackPlan, PlannedShard
from tests.data.deep_images import encoded, png16, tiff


def plan(*entries: Entry) -> PackPlan:
    shards = [PlannedShard(f"train-{n:05}.tar", "train", (entry,)) for n, entry in enumerate(entries)]
    return PackPlan("p", ("a",), tuple(shards), 0)


def deep(highest: int) -> bytes:
    return png16(np.array([[[7], [highest]]], np.uint16))


def test_deep_images_of_files_and_of_the_spool_are_measured_together(tmp_path: Path) -> None:
    plain = encoded(Image.new("L", (2, 2), 255), "PNG")
    (tmp_path / "x.png").write_bytes(deep(900))
    (tmp_path / "y.png").write_bytes(plain)
    done: list[tuple[str, int, int | None]] = []
    with Spool() as spool:
        entries = [
            Entry("x", "png", 0, "train", tmp_path / "x.png", len(deep(900))),
            Entry("y", "png", 0, "train", tmp_path / "y.png", len(plain)),
            Entry("z", "png", 0, "test", spool.add(deep(4000)), len(deep(4000))),
            Entry("j", "jpg", 0, "train", tmp_path / "not-read.jpg", 9),
        ]
        grey = grey_of(plan(*entries), spool, 2, lambda *word: done.append(word))
        assert grey is not None
        assert (grey.num_images, grey.lowest, grey.highest, grey.kind) == (2, 7, 4000, "16-bit")
        assert done == [("measuring", n, 3) for n in (1, 2, 3)]
        assert grey_of(plan(entries[1], entries[3]), spool, 1, lambda *_: None) is None


def test_an_image_that_cannot_be_measured_is_named(tmp_path: Path) -> None:
    not_finite = tiff(np.array([[[1.0], [np.nan]]], np.float32))
    (tmp_path / "x.tif").write_bytes(not_finite)
    with Spool() as spool:
        of_file = Entry("k", "tif", 0, "train", tmp_path / "x.tif", len(not_finite))
        in_spool = Entry("k7", "tif", 0, "train", spool.add(not_finite), len(not_finite))
        with pytest.raises(ValueError, match=r"/x\.tif: .*finite.*; repair the image or, if .*--skip-bad"):
            grey_of(plan(of_file), spool, 1, lambda *_: None)
        with pytest.raises(ValueError, match=r"^k7: .*finite"):
            grey_of(plan(in_spool), spool, 1, lambda *_: None)


def test_sources_are_relative_to_the_deepest_common_folder() -> None:
    files = [Path("/set/a/1.png"), Path("/set/b/deep/2.png"), Path(os.fsdecode(b"/set/b/\xf6.png"))]
    entries = [Entry(str(n), "png", 0, "train", file, 1) for n, file in enumerate(files)]
    entries += [Entry("s", "png", 0, "train", 0, 1), Entry("m", "png", 0, "train", 0, 1, None, files[0])]
    assert common_root(plan(*entries)) == "/set"
    assert sources_of(entries, "/set") == ["a/1.png", "b/deep/2.png", "b/\\xf6.png", "", "a/1.png"]
    assert common_root(plan(entries[3])) == ""
