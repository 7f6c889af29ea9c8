"""Encoded samples by position: indices, ranged reads, checksums, and the handling of broken samples."""

from __future__ import annotations

import logging
import math
import shlex
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from fourds_dist.data.decode.decoded_disk_cache import Slot
from fourds_dist.data.decode.grey import GreyRange
from fourds_dist.data.format.index import UNLABELLED, ShardIndex, packed_from
from fourds_dist.data.io.range_reader import DataError, RangeFetcher
from fourds_dist.data.stream.split import Split, load_index

if TYPE_CHECKING:
    from fourds_dist.data.decode.decoded_cache import DecodedCache
    from fourds_dist.data.decode.decoded_disk_cache import DecodedDiskCache

log = logging.getLogger(__name__)

LARGEST_GAP_BYTES = 64 << 10
"""Requested samples with at most this gap are read in one range; the bytes between them are discarded."""

MOST_INDEXED_SAMPLES = 1 << 21
"""Most index rows that a reader holds in memory, about 50 bytes each; indices least recently used are dropped. A chunk
of a shard whose index is not in memory costs one more small read."""

INDEX_TRIES = 3
SAMPLE_TRIES = 4
"""Reads of an index or a sample that does not match its checksum. Two equal reads end the attempts: the stored bytes
are broken then."""


@dataclass(frozen=True, slots=True)
class EncodedSample:
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


class Quarantine:
    """Broken samples that were left out, with the cause of each, up to a budget.

    Args:
        split_url, split_name: the split, for messages.
        budget: number of distinct samples that may be left out.
        packed_from: sample key -> text that names the file that the image was packed from.
    """

    def __init__(
        self, split_url: str, split_name: str, budget: int, packed_from: Callable[[str], str] = lambda key: ""
    ) -> None:
        self._url, self._where = split_url, f"{split_url} ({split_name})"
        self._packed_from = packed_from
        self._budget = budget
        self._lock = threading.Lock()
        self.causes: dict[str, str] = {}

    @classmethod
    def of(cls, split: Split, max_bad_fraction: float, world_size: int = 1) -> Quarantine:
        """Return the quarantine of a split, with a budget of max_bad_fraction of its samples, rounded up.

        Args:
            world_size: number of ranks that share the budget, in evaluation, where each rank reads its own samples. In
                training every rank reads all samples in the course of the epochs, and the budget is not shared.
        """
        budget = math.ceil(max_bad_fraction * split.num_positions / world_size)
        return cls(split.url, split.name, budget, partial(packed_from_of, split))

    def __len__(self) -> int:
        return len(self.causes)

    def __contains__(self, key: str) -> bool:
        return key in self.causes

    def add(self, key: str, cause: str) -> None:
        """Add a broken sample.

        Raises:
            DataError: the budget is exceeded.
        """
        with self._lock:
            if key in self.causes:
                return
            self.causes[key] = cause
            log.warning("left out %s: %s", key, cause)
            if len(self.causes) <= self._budget:
                return
        raise self.error()

    def error(self, what: str = "") -> DataError:
        """Return the error that ends the run; its message lists the samples left out so far.

        Args:
            what: why the run ends, if the budget is not the reason.
        """
        with self._lock:
            first, num_broken = list(self.causes.items())[:10], len(self.causes)
        listed = "\n".join(f"  {k}{self._packed_from(k)}: {c}" for k, c in first)
        return DataError(
            f"{self._where}: {what and what + '; '}this worker read {num_broken} broken samples; its budget is "
            f"{self._budget} (data.max_bad_fraction):\n{listed}\n"
            f"list all with `python -m fourds_dist.pack verify {shlex.quote(self._url)} --decode`; repair them, or "
            "leave them out by packing again with --decode --skip-bad (`pack index` takes both options, too), or raise "
            "the budget"
        )


def packed_from_of(split: Split, key: str) -> str:
    """Name the file that a sample's image was packed from, for messages; read the name from the index of the shard."""
    for number, shard in enumerate(split.shards):
        if not key.startswith(f"{shard.name}/"):
            continue
        with suppress(ValueError, OSError, DataError):
            index = load_index(split, number)
            rows = np.flatnonzero(index.keys == key[len(shard.name) + 1 :])
            return packed_from(index, int(rows[0])) if len(rows) else ""
    return ""


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
        for shard in np.unique(shards):
            of_shard = np.flatnonzero(shards == shard)
            index = self._index(int(shard))
            shard_name = self._split.shards[shard].name
            for at in of_shard[cached[of_shard]].tolist():
                row = int(rows[at])
                slot = self._slot(int(positions[at]), index, row)
                assert slot is not None
                key = f"{shard_name}/{index.keys[row].decode()}"
                found[at] = CachedSample(key, self._label(int(positions[at]), index, row), slot, self)
            of_shard = of_shard[~cached[of_shard]]
            for number, data in self._read_rows(int(shard), index, rows[of_shard]):
                at, row = int(of_shard[number]), int(rows[of_shard[number]])
                key = f"{shard_name}/{index.keys[row].decode()}"
                checked = self._checked(int(shard), index, row, data)
                if isinstance(checked, str):
                    found[at] = BrokenSample(key, checked)
                    continue
                label, slot = (
                    self._label(int(positions[at]), index, row),
                    self._slot(int(positions[at]), index, row),
                )
                found[at] = EncodedSample(
                    key, checked, label, self._decoded_cache, self._split.grey_range, slot
                )
        return found  # pyright: ignore[reportReturnType]

    def _slot(self, position: int, index: IndexRows, row: int) -> Slot | None:
        return self._disk_cache and Slot(self._disk_cache, position, int(index.checksums[row]))

    def _label(self, position: int, index: IndexRows, row: int) -> int:
        mask = self._split.label_mask
        return int(index.labels[row]) if mask is None or mask[position] else UNLABELLED

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
        for attempt in range(INDEX_TRIES):
            try:
                rows = IndexRows.of(load_index(self._split, shard, self._fetcher.object))
            except ValueError as error:  # the transfer may have corrupted the bytes
                if attempt == INDEX_TRIES - 1:
                    raise DataError(str(error)) from None
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
        starts, stops = index.offsets[rows], index.offsets[rows] + index.sizes[rows]
        ascending = np.argsort(starts, kind="stable")
        url, object_bytes = self._split.shard_url(shard), self._split.shards[shard].num_bytes
        begin = 0
        for end in range(1, len(ascending) + 1):
            last = ascending[end - 1]
            if end < len(ascending) and starts[ascending[end]] - stops[last] <= LARGEST_GAP_BYTES:
                continue
            low, high = int(starts[ascending[begin]]), int(stops[ascending[begin:end]].max())
            if high > object_bytes:
                raise DataError(
                    f"{url} has {object_bytes} bytes, but its index names byte {high}; index the shard again"
                )
            data = memoryview(self._ranges.range(url, low, high, object_bytes) if high > low else b"")
            for number in ascending[begin:end]:
                yield int(number), data[starts[number] - low : stops[number] - low]
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
