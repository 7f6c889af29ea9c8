"""Encoded samples by position: indices, ranged reads, checksums, and what is done with samples that are broken."""

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
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fourds_dist.data.fetch import DataError, Fetcher
from fourds_dist.data.grey import GreyRange
from fourds_dist.data.index import UNLABELLED, ShardIndex, packed_from
from fourds_dist.data.split import Split, load_index

if TYPE_CHECKING:
    from fourds_dist.data.kept import KeptImages

log = logging.getLogger(__name__)

LARGEST_GAP_BYTES = 64 << 10
"""Wanted samples that lie closer together are read in one range, what is between them thrown away."""

MOST_INDEXED_SAMPLES = 1 << 21
"""Rows of indices that a reader keeps in memory, those used last: about 50 bytes each. A chunk of a shard whose index
is not there costs one small read more."""

INDEX_TRIES = 3
SAMPLE_TRIES = 4
"""How often what does not match its checksum is read. Two reads that agree end it sooner: then it lies there so."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One encoded image and what is known of it."""

    key: str
    """`shard/key`."""
    data: memoryview
    label: int
    kept: KeptImages | None = None
    """Where the decoded image may be kept."""
    grey_range: GreyRange | None = None
    """Of its data set (`grey`)."""


class RangeReader(Protocol):
    """What `Fetcher` and `Resident` have in common."""

    def range(self, url: str, start: int, stop: int, object_bytes: int) -> bytes | memoryview: ...


class Resident:
    """Holds every object whole, from when it is first asked for: for data that fit into memory."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._lock = threading.Lock()
        self._held: dict[str, Future[memoryview]] = {}

    def range(self, url: str, start: int, stop: int, object_bytes: int) -> memoryview:
        """Bytes start..stop, without a copy; raises like `Fetcher.range`, in every thread that waits for the object."""
        with self._lock:
            held = self._held.get(url)
            is_mine = held is None
            if held is None:
                held = self._held[url] = Future()
        if is_mine:
            try:
                held.set_result(memoryview(self._fetcher.range(url, 0, object_bytes, object_bytes)))
            except BaseException as error:
                with self._lock:
                    del self._held[url]  # another stream over the same reader may try again
                held.set_exception(error)
        return held.result()[start:stop]


@dataclass(frozen=True, slots=True)
class Rows:
    """What reading needs of a `ShardIndex`, without the rest; its columns are described there."""

    keys: np.ndarray
    """(n,) bytes, UTF-8: a quarter of NumPy's text."""
    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    checksums: np.ndarray

    @classmethod
    def of(cls, index: ShardIndex) -> Rows:
        """The columns of an index."""
        keys = np.char.encode(index.keys, "utf-8") if len(index) else np.zeros(0, np.bytes_)
        return cls(keys, index.offsets, index.sizes, index.labels, index.checksums)


class Quarantine:
    """Samples that were left out, with the cause of each, up to a budget.

    Args:
        split_url, split_name: for the report.
        budget: how many distinct samples may be left out.
        packed_from: a sample's key -> words on the file that its image was packed from.
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
        """The split's budget, rounded up.

        Args:
            world_size: of the ranks that share it, where each sample stays with one of them (evaluation). In training
                every rank meets all samples, epoch by epoch.
        """
        budget = math.ceil(max_bad_fraction * split.num_positions / world_size)
        return cls(split.url, split.name, budget, partial(packed_from_of, split))

    def __len__(self) -> int:
        return len(self.causes)

    def __contains__(self, key: str) -> bool:
        return key in self.causes

    def add(self, key: str, cause: str) -> None:
        """Leave a sample out.

        Raises:
            DataError: the budget is spent.
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
        """What was left out so far, for the end of a run.

        Args:
            what: why the run ends, where that is not the budget.
        """
        with self._lock:
            first, num_broken = list(self.causes.items())[:10], len(self.causes)
        listed = "\n".join(f"  {k}{self._packed_from(k)}: {c}" for k, c in first)
        return DataError(
            f"{self._where}: {what and what + '; '}{num_broken} broken samples were met by this worker alone, its "
            f"budget is {self._budget} (data.max_bad_fraction):\n{listed}\n"
            f"`python -m fourds_dist.pack verify {shlex.quote(self._url)} --decode` lists all; mend them, or leave "
            "them out by packing again with --decode --skip-bad (`pack index` takes both, too), or raise the budget"
        )


def packed_from_of(split: Split, key: str) -> str:
    """For messages: the file that the image of a sample was packed from, by the index of its shard."""
    for number, shard in enumerate(split.shards):
        if not key.startswith(f"{shard.name}/"):
            continue
        with suppress(ValueError, OSError, DataError):
            index = load_index(split, number)
            rows = np.flatnonzero(index.keys == key[len(shard.name) + 1 :])
            return packed_from(index, int(rows[0])) if len(rows) else ""
    return ""


class SampleReader:
    """Reads samples of a split by position; may be used by many threads.

    Args:
        ranges: brings the bytes of shards.
        fetcher: brings the indices, and samples that have to be read again.
        kept: where decoded images may be kept; None: nowhere.
    """

    def __init__(
        self, split: Split, ranges: RangeReader, fetcher: Fetcher, kept: KeptImages | None = None
    ) -> None:
        self._split = split
        self._ranges = ranges
        self._fetcher = fetcher
        self._kept = kept
        self._rows: OrderedDict[int, Rows] = OrderedDict()
        self._num_rows = 0
        self._lock = threading.Lock()

    def read(self, positions: np.ndarray) -> list[Sample | tuple[str, str]]:
        """The samples at `positions`, in that order; (key, cause) for one that does not match its checksum.

        Raises:
            DataError: a shard or its index cannot be read.
        """
        found: list[Sample | tuple[str, str] | None] = [None] * len(positions)
        shards, rows = self._split.locate(positions)
        for shard in np.unique(shards):
            wanted = np.flatnonzero(shards == shard)
            index = self._index(int(shard))
            for place, data in self._read_rows(int(shard), index, rows[wanted]):
                at, row = int(wanted[place]), int(rows[wanted[place]])
                key = f"{self._split.shards[shard].name}/{index.keys[row].decode()}"
                checked = self._checked(int(shard), index, row, data)
                label = self._label(positions[at], index, row)
                is_broken = isinstance(checked, str)
                sample = (checked, label, self._kept, self._split.grey_range)
                found[at] = (key, checked) if is_broken else Sample(key, *sample)  # pyright: ignore[reportArgumentType]
        return found  # pyright: ignore[reportReturnType]

    def _label(self, position: int, index: Rows, row: int) -> int:
        told = self._split.told
        return int(index.labels[row]) if told is None or told[position] else UNLABELLED

    def _index(self, shard: int) -> Rows:
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

    def _load(self, shard: int) -> Rows:
        for attempt in range(INDEX_TRIES):
            try:
                rows = Rows.of(load_index(self._split, shard, self._fetcher.object))
            except ValueError as error:  # harmed on its way, perhaps
                if attempt == INDEX_TRIES - 1:
                    raise DataError(str(error)) from None
            else:
                if attempt:
                    self._fetcher.count("corrupt")
                self._check_labels(shard, rows)
                return rows
        raise AssertionError

    def _check_labels(self, shard: int, rows: Rows) -> None:
        """A label that no class has would end a run on a GPU without a word of where it came from."""
        num_classes = len(self._split.classes)
        wrong = np.flatnonzero((rows.labels < UNLABELLED) | (rows.labels >= num_classes))
        if len(wrong):
            row = int(wrong[0])
            raise DataError(
                f"{self._split.index_url(shard)}: {rows.keys[row].decode()!r} has label {rows.labels[row]}, where "
                f"{self._split.url} has {num_classes} classes; index the shards again with their list of classes"
            )

    def _read_rows(self, shard: int, index: Rows, rows: np.ndarray) -> Iterator[tuple[int, memoryview]]:
        """(place in `rows`, bytes) of rows of one shard, by as few ranged reads as pay."""
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
                raise DataError(f"{url}: its index speaks of byte {high} of {object_bytes}; index it again")
            data = memoryview(self._ranges.range(url, low, high, object_bytes) if high > low else b"")
            for place in ascending[begin:end]:
                yield int(place), data[starts[place] - low : stops[place] - low]
            begin = end

    def _checked(self, shard: int, index: Rows, row: int, data: memoryview) -> memoryview | str:
        """A sample's bytes, read again while they do not match their checksum; what is wrong if they never do."""
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
        return f"checksum {found:08x}, not {expected:08x}"
