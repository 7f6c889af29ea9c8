"""Encoded samples by position: indices, ranged reads and checksums."""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from fourds_dist.data.decode.decoded_disk_cache import DecodedDiskCache, Slot
from fourds_dist.data.decode.grey import GreyRange
from fourds_dist.data.format.index import UNLABELLED, ShardIndex
from fourds_dist.data.io.range_reader import DataError, RangeFetcher
from fourds_dist.data.stream.split import Split, load_index

if TYPE_CHECKING:
    from fourds_dist.data.decode.decoded_cache import DecodedCache

LARGEST_GAP_BYTES = 64 << 10
"""Requested samples with at most this gap are read in one range; the bytes between them are discarded."""

MOST_INDEXED_SAMPLES = 1 << 21
"""Most index rows that a reader holds in memory, about 50 bytes each; indices least recently used are dropped. A chunk
of a shard whose index is not in memory costs one more small read."""

INDEX_TRIES = 10
SAMPLE_TRIES = 4
"""Reads of an index or a sample that does not match its checksum. Two equal reads end the attempts: the stored bytes
are broken then. A broken sample is replaced, but a broken index ends the run: indices are read more often."""


class EncodedSample(NamedTuple):
    """One encoded image with its label and its decoding context."""

    key: str
    """`shard/key`."""
    data: memoryview
    label: int
    decoded_cache: DecodedCache | None = None
    """Cache for the decoded image in memory."""
    grey_range: GreyRange | None = None
    """Grey range of the data set (`grey`)."""
    slot: Slot | None = None
    """Slot for the decoded image in the disk cache."""


class CachedSample(NamedTuple):
    """A sample whose decoded image is in the disk cache; its encoded bytes are not read."""

    key: str
    label: int
    slot: Slot
    reader: SampleReader

    def encoded(self) -> EncodedSample | BrokenSample:
        """Read the encoded image, because the cached one is damaged."""
        (sample,) = self.reader.read(np.array([self.slot.position]), from_cache=False)
        assert not isinstance(sample, CachedSample)
        return sample


class BrokenSample(NamedTuple):
    """A sample that cannot be read, and why."""

    key: str
    cause: str


Sample = EncodedSample | CachedSample | BrokenSample

Block = list[Sample]
"""Samples that are read together, in shuffled order."""


class RangeReader(Protocol):
    """Interface of `RangeFetcher` and `InMemoryShards`."""

    def range(self, url: str, start: int, stop: int, object_bytes: int) -> bytes | memoryview: ...


class InMemoryShards:
    """Reads every object whole at its first use and holds it: for data that fit into memory."""

    def __init__(self, fetcher: RangeFetcher) -> None:
        self._fetcher = fetcher
        self._lock = threading.Lock()
        self._held: dict[str, Future[memoryview]] = {}

    def range(self, url: str, start: int, stop: int, object_bytes: int) -> memoryview:
        """Return bytes start..stop without a copy; raise like `RangeFetcher.range`, in every thread that waits for the
        object."""
        with self._lock:
            held = self._held.get(url)
            is_first = held is None
            if held is None:
                held = self._held[url] = Future()
        if is_first:
            try:
                held.set_result(memoryview(self._fetcher.range(url, 0, object_bytes, object_bytes)))
            except BaseException as error:
                with self._lock:
                    del self._held[url]  # another stream over the same reader may try again
                held.set_exception(error)
        return held.result()[start:stop]


@dataclass(frozen=True, slots=True)
class IndexRows:
    """Columns of a `ShardIndex` that reading needs; `ShardIndex` describes them."""

    keys: np.ndarray
    """(n,) bytes, UTF-8: a quarter of the size of NumPy's text."""
    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    checksums: np.ndarray

    @classmethod
    def of(cls, index: ShardIndex) -> IndexRows:
        """Return the columns of an index."""
        keys = np.char.encode(index.keys, "utf-8") if len(index) else np.zeros(0, np.bytes_)
        return cls(keys, index.offsets, index.sizes, index.labels, index.checksums)


class SampleReader:
    """Reads samples of a split by position; safe to use from many threads.

    Args:
        ranges: reads ranges of the shards.
        fetcher: reads the indices, and the samples that have to be read again.
        decoded_cache: cache for decoded images in memory; None: no cache.
        disk_cache: cache for decoded images on the node's disk; None: no cache.
    """

    def __init__(
        self,
        split: Split,
        ranges: RangeReader,
        fetcher: RangeFetcher,
        decoded_cache: DecodedCache | None = None,
        disk_cache: DecodedDiskCache | None = None,
    ) -> None:
        self._split = split
        self._ranges = ranges
        self._fetcher = fetcher
        self._decoded_cache = decoded_cache
        self._disk_cache = disk_cache
        self._rows: OrderedDict[int, IndexRows] = OrderedDict()
        self._num_rows = 0
        self._lock = threading.Lock()

    def read(self, positions: np.ndarray, *, from_cache: bool = True) -> Block:
        """Return the samples at `positions`, in that order; broken ones do not match their checksums.

        Args:
            from_cache: whether the encoded bytes of images in the disk cache are left unread.

        Raises:
            DataError: a shard or its index cannot be read.
        """
        found: list[Sample | None] = [None] * len(positions)
        shards, rows = self._split.locate(positions)
        cached = np.zeros(len(positions), dtype=bool)
        if self._disk_cache and from_cache:
            cached = self._disk_cache.holds(positions)
        for shard in np.unique(shards).tolist():
            index, of_shard = self._index(shard), np.flatnonzero(shards == shard)
            keys, labels, slots = self._columns(shard, index, positions[of_shard], rows[of_shard])
            for number in np.flatnonzero(cached[of_shard]).tolist():
                slot = slots[number]
                assert slot is not None
                found[of_shard[number]] = CachedSample(keys[number], labels[number], slot, self)
            missing = np.flatnonzero(~cached[of_shard]).tolist()
            places, rows_of_shard = of_shard.tolist(), rows[of_shard].tolist()
            for nth, data in self._read_rows(shard, index, rows[of_shard[missing]]):
                number = missing[nth]
                checked = self._checked(shard, index, rows_of_shard[number], data)
                found[places[number]] = (
                    BrokenSample(keys[number], checked)
                    if isinstance(checked, str)
                    else EncodedSample(
                        keys[number],
                        checked,
                        labels[number],
                        self._decoded_cache,
                        self._split.grey_range,
                        slots[number],
                    )
                )
        return found  # pyright: ignore[reportReturnType]

    def _columns(
        self, shard: int, index: IndexRows, positions: np.ndarray, rows: np.ndarray
    ) -> tuple[list[str], list[int], list[Slot | None]]:
        """Return the keys, labels and slots of some rows of a shard."""
        shard_name, mask = self._split.shards[shard].name, self._split.label_mask
        keys = [f"{shard_name}/{key.decode()}" for key in index.keys[rows].tolist()]
        labels = (
            index.labels[rows] if mask is None else np.where(mask[positions], index.labels[rows], UNLABELLED)
        )
        if (cache := self._disk_cache) is None:
            return keys, labels.tolist(), [None] * len(keys)
        checksums = index.checksums[rows].tolist()
        slots = [Slot(cache, *at) for at in zip(positions.tolist(), checksums, strict=True)]
        return keys, labels.tolist(), list(slots)

    def _index(self, shard: int) -> IndexRows:
        with self._lock:
            if shard in self._rows:
                self._rows.move_to_end(shard)
                return self._rows[shard]
        rows = self._load(shard)
        with self._lock:
            if shard not in self._rows:
                self._rows[shard] = rows
                self._num_rows += len(rows.keys)
            while self._num_rows > MOST_INDEXED_SAMPLES and len(self._rows) > 1:
                _, dropped = self._rows.popitem(last=False)
                self._num_rows -= len(dropped.keys)
        return rows

    def _load(self, shard: int) -> IndexRows:
        url, before = self._split.index_url(shard), b""
        for attempt in range(INDEX_TRIES):
            data = self._fetcher.object(url)
            try:
                rows = IndexRows.of(load_index(self._split, shard, lambda _, data=data: data))
            except ValueError as error:  # the transfer may have corrupted the bytes
                if data == before or attempt == INDEX_TRIES - 1:
                    raise DataError(str(error)) from None
                before = data
            else:
                if attempt:
                    self._fetcher.count("corrupt")
                self._check_labels(shard, rows)
                return rows
        raise AssertionError

    def _check_labels(self, shard: int, rows: IndexRows) -> None:
        """Refuse labels without a class: on a GPU such a label ends the run with an error that names no sample.

        Raises:
            DataError: naming the first such sample.
        """
        num_classes = len(self._split.classes)
        wrong = np.flatnonzero((rows.labels < UNLABELLED) | (rows.labels >= num_classes))
        if len(wrong):
            row = int(wrong[0])
            raise DataError(
                f"{self._split.index_url(shard)}: the sample {rows.keys[row].decode()!r} has label {rows.labels[row]}, "
                f"but {self._split.url} has {num_classes} classes; index the shards again with their list of classes"
            )

    def _read_rows(self, shard: int, index: IndexRows, rows: np.ndarray) -> Iterator[tuple[int, memoryview]]:
        """Yield (number in `rows`, bytes) of rows of one shard; neighbouring rows share a ranged read."""
        starts = index.offsets[rows].tolist()
        stops = (index.offsets[rows] + index.sizes[rows]).tolist()
        ascending = sorted(range(len(starts)), key=starts.__getitem__)
        url, object_bytes = self._split.shard_url(shard), self._split.shards[shard].num_bytes
        begin = 0
        for end in range(1, len(ascending) + 1):
            if (
                end < len(ascending)
                and starts[ascending[end]] - stops[ascending[end - 1]] <= LARGEST_GAP_BYTES
            ):
                continue
            together = ascending[begin:end]
            low, high = starts[together[0]], max(stops[number] for number in together)
            if high > object_bytes:
                raise DataError(
                    f"{url} has {object_bytes} bytes, but its index names byte {high}; index the shard again"
                )
            data = memoryview(self._ranges.range(url, low, high, object_bytes) if high > low else b"")
            for number in together:
                yield number, data[starts[number] - low : stops[number] - low]
            begin = end

    def _checked(self, shard: int, index: IndexRows, row: int, data: memoryview) -> memoryview | str:
        """Return a sample's bytes, read again while they do not match their checksum; an error message if they never
        match."""
        expected, found = int(index.checksums[row]), zlib.crc32(data)
        if found == expected:
            return data
        url, object_bytes = self._split.shard_url(shard), self._split.shards[shard].num_bytes
        start, stop = int(index.offsets[row]), int(index.offsets[row] + index.sizes[row])
        for _ in range(SAMPLE_TRIES - 1 if stop > start else 0):
            before, again = found, self._fetcher.range(url, start, stop, object_bytes, fresh=True)
            found = zlib.crc32(again)
            if found == expected:
                self._fetcher.count("corrupt")
                return memoryview(again)
            if found == before:
                break
        return f"checksum {found:08x}, expected {expected:08x}"
