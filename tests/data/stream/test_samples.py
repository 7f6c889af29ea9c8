"""Samples by position: few ranged reads, and checked bytes."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fourds_dist.data import DataError, StreamConfig, open_split
from fourds_dist.data.decode.grey import GreyRange
from fourds_dist.data.format.index import ShardIndex
from fourds_dist.data.io.range_reader import RangeFetcher
from fourds_dist.data.stream import samples
from fourds_dist.data.stream.samples import EncodedSample, IndexRows, InMemoryShards, SampleReader
from fourds_dist.data.stream.split import Split
from tests.data.shards import image_of, write_dataset


class Recording:
    """Reads files, and lists the ranges that were read."""

    def __init__(self) -> None:
        self.fetcher = RangeFetcher(0)
        self.ranges: list[tuple[str, int, int]] = []

    def range(self, url: str, start: int, stop: int, object_bytes: int) -> bytes | memoryview:
        self.ranges.append((Path(url).name, start, stop))
        return self.fetcher.range(url, start, stop, object_bytes)


def split_of(folder: Path, sizes: list[int], **more) -> Split:
    return open_split(StreamConfig(url=write_dataset(folder, sizes, splits=("train",), **more)), "train")


def index_of(split: Split, shard: int) -> ShardIndex:
    path = Path(split.index_url(shard))
    return ShardIndex.from_bytes(path.read_bytes(), str(path))


def test_samples_come_in_the_order_of_the_positions(tmp_path: Path) -> None:
    split = split_of(tmp_path / "set", [3, 2])
    reader = SampleReader(split, RangeFetcher(0), RangeFetcher(0))
    found = reader.read(np.array([4, 0, 2, 4]))
    assert [s.key for s in found if isinstance(s, EncodedSample)] == [
        "train-00001.tar/00004", "train-00000.tar/00000", "train-00000.tar/00002", "train-00001.tar/00004",
    ]  # fmt: skip
    assert [(bytes(s.data), s.label) for s in found if isinstance(s, EncodedSample)] == [
        (image_of(n), n % 3) for n in (4, 0, 2, 4)
    ]
    assert reader.read(np.array([], int)) == []


def test_neighbours_share_a_read_unless_the_gap_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = split_of(tmp_path / "set", [9, 1])
    index, recorded = index_of(split, 0), Recording()
    begins, ends = index.offsets.tolist(), (index.offsets + index.sizes).tolist()
    gap = begins[3] - ends[1]  # over one sample
    for most, ranges in (
        (gap, [(begins[1], ends[3]), (begins[8], ends[8])]),
        (gap - 1, [(begins[1], ends[1]), (begins[3], ends[3]), (begins[8], ends[8])]),
    ):
        monkeypatch.setattr(samples, "LARGEST_GAP_BYTES", most)
        recorded.ranges.clear()
        found = SampleReader(split, recorded, recorded.fetcher).read(np.array([8, 3, 9, 1]))
        assert recorded.ranges[:-1] == [("train-00000.tar", *span) for span in ranges]
        assert recorded.ranges[-1][0] == "train-00001.tar"
        assert [s.data for s in found if isinstance(s, EncodedSample)] == [image_of(n) for n in (8, 3, 9, 1)]


def test_unused_labels_are_hidden_and_the_grey_range_goes_along(tmp_path: Path) -> None:
    grey: GreyRange = (0, 4095)
    split = split_of(tmp_path / "set", [4])
    split = replace(split, label_mask=np.array([True, False, True, True]), grey_range=grey)
    found = SampleReader(split, RangeFetcher(0), RangeFetcher(0)).read(np.arange(4))
    assert [s.label for s in found if isinstance(s, EncodedSample)] == [0, -1, 2, 0]
    assert {s.grey_range for s in found if isinstance(s, EncodedSample)} == {grey}


def test_a_sample_with_other_bytes_is_broken(tmp_path: Path) -> None:
    split = split_of(tmp_path / "set", [3])
    index, path = index_of(split, 0), Path(split.shard_url(0))
    data = bytearray(path.read_bytes())
    data[index.offsets[1] + 5] ^= 1
    path.write_bytes(data)
    begin, end = index.offsets[1], index.offsets[1] + index.sizes[1]
    why = f"checksum {zlib.crc32(data[begin:end]):08x}, expected {index.checksums[1]:08x}"
    found = SampleReader(split, RangeFetcher(0), RangeFetcher(0)).read(np.array([0, 1]))
    assert isinstance(found[0], EncodedSample)
    assert found[1] == ("train-00000.tar/00001", why)


def test_bytes_that_came_wrong_are_read_again(tmp_path: Path) -> None:
    class Flipping(Recording):
        def range(self, url: str, start: int, stop: int, object_bytes: int) -> bytes:
            data = bytearray(super().range(url, start, stop, object_bytes))
            data[3] ^= 1
            return bytes(data)

    flipping = Flipping()
    split = split_of(tmp_path / "set", [3])
    (found,) = SampleReader(split, flipping, flipping.fetcher).read(np.array([1]))
    assert isinstance(found, EncodedSample)
    assert bytes(found.data) == image_of(1)
    assert flipping.fetcher.counts["corrupt"] == 1


def test_indices_that_do_not_fit_end_the_run(tmp_path: Path) -> None:
    split = split_of(tmp_path / "set", [3])
    path, index = Path(split.index_url(0)), index_of(split, 0)

    def read(position: int = 0) -> None:
        SampleReader(split, RangeFetcher(0), RangeFetcher(0)).read(np.array([position]))

    path.write_bytes(replace(index, labels=np.array([0, 3, -1], np.int32)).to_bytes())
    with pytest.raises(
        DataError, match=r"tar\.index: the sample '00001' has label 3, but .* has 3 classes; index the"
    ):
        read()
    path.write_bytes(replace(index, labels=np.array([0, 1, -2], np.int32)).to_bytes())
    with pytest.raises(DataError, match="'00002' has label -2"):
        read()
    path.write_bytes(b"torn")
    with pytest.raises(DataError, match=r"train-00000\.tar\.index is truncated or not an index"):
        read()


def test_an_index_that_came_wrong_several_times_is_read_again(tmp_path: Path) -> None:
    class Flipping(RangeFetcher):
        num_reads = 0

        def object(self, url: str) -> bytes:
            self.num_reads += 1
            data = bytearray(super().object(url))
            if self.num_reads < 6:
                data[100 + self.num_reads] ^= 1
            return bytes(data)

    fetcher = Flipping(0)
    (found,) = SampleReader(split_of(tmp_path / "set", [3]), fetcher, fetcher).read(np.array([1]))
    assert isinstance(found, EncodedSample)
    assert fetcher.num_reads == 6
    assert fetcher.counts["corrupt"] == 1


def test_an_index_that_is_broken_in_the_store_is_read_twice(tmp_path: Path) -> None:
    class Counting(RangeFetcher):
        num_reads = 0

        def object(self, url: str) -> bytes:
            self.num_reads += 1
            return super().object(url)

    fetcher, split = Counting(0), split_of(tmp_path / "set", [3])
    Path(split.index_url(0)).write_bytes(b"torn")
    with pytest.raises(DataError, match="is truncated or not an index"):
        SampleReader(split, fetcher, fetcher).read(np.array([1]))
    assert fetcher.num_reads == 2


def test_indices_least_recently_used_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MOST_INDEXED_SAMPLES", 4)
    split = split_of(tmp_path / "set", [2, 2, 2])
    fetcher = RangeFetcher(0)
    reader = SampleReader(split, fetcher, fetcher)
    num_read = []
    for position in (0, 2, 0, 4, 0, 2):  # the third index takes the place of the second
        before = fetcher.counts["bytes"]
        reader.read(np.array([position]))
        num_read.append(fetcher.counts["bytes"] - before > len(image_of(position)))
    assert num_read == [True, True, False, True, False, True]


def test_objects_in_memory_are_read_once_and_again_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    fetcher = RangeFetcher(0)
    held = InMemoryShards(fetcher)
    with pytest.raises(DataError, match=r"a\.tar"):
        held.range(str(path), 0, 1, 9)
    path.write_bytes(b"012345678")
    assert held.range(str(path), 2, 5, 9) == b"234"
    path.unlink()
    assert held.range(str(path), 8, 9, 9) == b"8"
    assert fetcher.counts["bytes"] == 9


def test_keys_of_rows_are_utf_8() -> None:
    none = np.zeros(0, np.int64)
    index = ShardIndex(np.array(["köter", "a"]), np.array(["jpg"] * 2), none, none, none, none)
    assert IndexRows.of(index).keys.tolist() == ["köter".encode(), b"a"]
    assert len(IndexRows.of(ShardIndex(np.zeros(0, np.str_), none, none, none, none, none)).keys) == 0
