"""Entries read their images from files or from the spool, and know their size in the tar."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from fourds_dist.data.datasets.example import Example
from fourds_dist.data.pack.entry import Entry, Spool
from tests.data.pack.tars import tar_bytes
from tests.data.pack.test_plan import plan_of


def test_a_file_that_changes_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"1234")
    with Spool() as spool:
        plan = plan_of([Example("k", tmp_path / "x.jpg", "jpg", "a", "train")], spool)
        assert plan.shards[0].entries[0].read(spool) == b"1234"
        (tmp_path / "x.jpg").write_bytes(b"12345")
        with pytest.raises(ValueError, match=r"x\.jpg changed during packing, from 4 to 5 bytes"):
            plan.shards[0].entries[0].read(spool)
        (tmp_path / "x.jpg").unlink()
        with pytest.raises(ValueError, match=r"x\.jpg was removed"):
            plan.shards[0].entries[0].read(spool)


def test_images_in_the_spool_lie_one_after_the_other() -> None:
    with Spool() as spool:
        begins = [spool.add(data) for data in (b"first", b"", b"second")]
        assert begins == [0, 5, 5]
        assert spool.read(5, 6) == b"second"
        entry = Entry("k", "png", 0, None, 5, 6)
        assert (entry.read(spool), entry.read_part(spool, 2, 3)) == (b"second", b"con")


def test_the_title_is_the_file_or_else_the_key(tmp_path: Path) -> None:
    with_file = Entry("k", "png", 0, None, tmp_path / "a.png", 3)
    assert (with_file.file, with_file.title) == (tmp_path / "a.png", f"{tmp_path}/a.png")
    made = Entry("k", "png", 0, None, 0, 3, made_from=tmp_path / "b.bmp")
    assert (made.file, made.title) == (tmp_path / "b.bmp", f"{tmp_path}/b.bmp")
    assert (Entry("k", "png", 0, None, 0, 3).file, Entry("k", "png", 0, None, 0, 3).title) == (None, "k")
    with_file.place.write_bytes(b"abc")  # pyright: ignore
    with Spool() as spool:
        assert with_file.read_part(spool, 1, 2) == b"bc"


@pytest.mark.parametrize("size", [1, 511, 512, 513])
def test_the_size_in_the_tar_is_that_of_the_written_members(size: int) -> None:
    data = tar_bytes([("k.cls", b""), ("k.png", bytes(size))])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        image = tar.getmembers()[1]
    end = image.offset_data + -(-size // 512) * 512
    assert Entry("k", "png", 0, None, 0, size).tar_bytes == end + 512  # the label's block of data
