"""Whatever changes in a dataset, reading it over tells."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fourds_dist.data.index import ShardIndex
from fourds_dist.data.manifest import MANIFEST, Manifest, read_manifest, write_manifest
from fourds_dist.data.pack.example import Example
from fourds_dist.data.pack.verify import verify
from fourds_dist.data.pack.writer import pack_domain
from fourds_dist.data.sources.domain import Domain


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    def produce():
        for n in range(12):
            yield Example(f"k{n:02}", bytes([n]) * 600, "jpg", "ab"[n % 2], "train")

    pack_domain(Domain("d", ("a", "b"), produce), str(tmp_path), shard_bytes=20_000)
    return tmp_path


def edit_index(folder: Path, **change: Callable[[ShardIndex], np.ndarray]) -> None:
    path = folder / "train-00000.tar.index"
    index = ShardIndex.from_bytes(path.read_bytes(), "i")
    path.write_bytes(
        dataclasses.replace(index, **{name: made(index) for name, made in change.items()}).to_bytes()
    )


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def edit_manifest(folder: Path, change: Callable[[Manifest], Manifest]) -> None:
    write_manifest(str(folder), change(read_manifest(str(folder))))


def first_image(folder: Path) -> int:
    return int(ShardIndex.from_bytes((folder / "train-00000.tar.index").read_bytes(), "i").offsets[0])


def test_nothing_wrong(packed: Path) -> None:
    told = []
    manifest, problems = verify(str(packed), on_progress=lambda *progress: told.append(progress))
    assert problems == []
    assert manifest == read_manifest(str(packed))
    assert told[-1] == ("verifying", len(manifest.splits["train"]), len(manifest.splits["train"]))


HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "an image": (lambda d: flip(d / "train-00000.tar", first_image(d)), "checksums differ from the tar's; first k"),
    "padding": (lambda d: flip(d / "train-00000.tar", first_image(d) + 601), "its SHA-256 is"),
    "a header": (lambda d: flip(d / "train-00000.tar", first_image(d) - 512), "the header cannot be read"),
    "a cut": (lambda d: os.truncate(d / "train-00000.tar", 4000), "ends at byte"),
    "a lost tar": (lambda d: (d / "train-00000.tar").unlink(), "train-00000.tar: missing"),
    "a lost index": (lambda d: (d / "train-00000.tar.index").unlink(), "train-00000.tar.index: missing"),
    "a harmed index": (lambda d: flip(d / "train-00000.tar.index", 700), "train-00000.tar.index"),
    "labels": (lambda d: edit_index(d, labels=lambda i: i.labels[::-1].copy() * 0), "its labels differ"),
    "offsets": (lambda d: edit_index(d, offsets=lambda i: i.offsets - 1), "its offsets differ"),
    "keys": (lambda d: edit_index(d, keys=lambda i: i.keys[::-1].copy()), "its keys differ"),
    "fields": (lambda d: edit_index(d, fields_offsets=lambda i: i.fields_offsets + 1), "its fields are not the tar's"),
    "counts": (
        lambda d: edit_manifest(d, lambda m: dataclasses.replace(m, class_counts={"train": (5, 7)})),
        "counts other images",
    ),
    "tars exchanged": (
        lambda d: (d / "train-00000.tar").write_bytes((d / "train-00001.tar").read_bytes()),
        "train-00000.tar",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HARM)
def test_harm_is_told(packed: Path, name: str) -> None:
    harm, message = HARM[name]
    harm(packed)
    _, problems = verify(str(packed))
    assert any(message in problem for problem in problems), problems
    assert all(str(packed) in problem for problem in problems)


def test_without_a_manifest(packed: Path) -> None:
    content = json.loads((packed / MANIFEST).read_text())
    (packed / MANIFEST).write_text(json.dumps(content)[:-5])
    with pytest.raises(ValueError, match="truncated"):
        verify(str(packed))
