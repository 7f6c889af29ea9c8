"""The images of a shard are read in the order of its index."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.data.pack.shard_images import shard_images
from tests.data.pack.tars import index_of, samples, tar_bytes


def test_every_image_with_its_row(tmp_path: Path) -> None:
    members = samples(5)
    data = tar_bytes(members)
    (tmp_path / "a.tar").write_bytes(data)
    images = [content for name, content in members if name.endswith("jpg")]
    assert list(shard_images(f"{tmp_path}/a.tar", index_of(data))) == list(enumerate(images))
    (tmp_path / "empty.tar").write_bytes(tar_bytes([]))
    assert list(shard_images(f"file://{tmp_path}/empty.tar", index_of(tar_bytes([])))) == []


def test_a_missing_tar_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.tar"):
        list(shard_images(f"{tmp_path}/gone.tar", index_of(tar_bytes(samples(1)))))
