"""What will lie in which shard, decided before anything is written.

A domain is iterated over once. Its images go to a temporary file on the local disk (or stay where they lie, if they are
files already), and about 300 bytes of each are kept in memory. Then the whole is known: splits are drawn class by
class, each split's samples are put in one seeded permutation, and that is cut into shards of nearly equal bytes. So a
shard read from end to end is a random sample of its split, and equal input and seed give equal shards.
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np

from fourds_dist.data.grouping import IMAGES
from fourds_dist.data.index import UNLABELLED
from fourds_dist.data.manifest import SPLITS
from fourds_dist.data.pack.doubles import equal_images, joined, read_part
from fourds_dist.data.pack.example import Example
from fourds_dist.data.pack.leaks import leaks
from fourds_dist.data.sources.domain import Domain
from fourds_dist.data.sources.splits import check_fractions, stratified
from fourds_dist.data.text import composed, shown

OnProgress = Callable[[str, int, int | None], None]
"""(what is being done, how many are done, of how many if that is known)"""

MOST_SHARDS = 1 << 20
"""Of a split."""

_LONGEST_KEY = 120


class Spool:
    """Images on their way: bytes go to a temporary file that is gone with the process, whatever ends it."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed by __exit__)
        self._end = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, data: bytes) -> int:
        """Where the data begins."""
        begin = self._end
        while data:
            written = os.pwrite(self._file.fileno(), data, self._end)
            self._end += written
            data = data[written:]
        return begin

    def read(self, begin: int, num_bytes: int) -> bytes:
        """Any thread may."""
        return os.pread(self._file.fileno(), num_bytes, begin)


@dataclass(frozen=True, slots=True)
class Entry:
    """One sample to be written."""

    key: str
    extension: str
    label: int
    split: str | None
    place: Path | int
    """A file, or where the image begins in the spool."""
    size: int
    group: str | None = None

    @property
    def title(self) -> str:
        """For messages: the file, or the key."""
        return self.key if isinstance(self.place, int) else shown(self.place)

    def read_part(self, spool: Spool, begin: int, num_bytes: int) -> bytes:
        """Some bytes of the image.

        Raises:
            ValueError: the file is gone.
        """
        if isinstance(self.place, int):
            return spool.read(self.place + begin, num_bytes)
        return read_part(self.place, begin, num_bytes)

    def read(self, spool: Spool) -> bytes:
        """The image.

        Raises:
            ValueError: the file has changed since it was listed, or is gone.
        """
        if isinstance(self.place, int):
            return spool.read(self.place, self.size)
        try:
            data = self.place.read_bytes()
        except FileNotFoundError:
            raise ValueError(f"{self.place} went away while it was packed") from None
        if len(data) != self.size:
            raise ValueError(
                f"{self.place} changed while it was packed, from {self.size} to {len(data)} bytes"
            )
        return data

    @property
    def tar_bytes(self) -> int:
        """What the sample takes in the tar: two headers, the label and the image, each in blocks of 512."""
        return 3 * 512 + self.size + -self.size % 512


@dataclass(frozen=True)
class PlannedShard:
    name: str
    split: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Plan:
    """The shards to be, in order."""

    name: str
    classes: tuple[str, ...]
    shards: tuple[PlannedShard, ...]
    num_drawn: int
    """Samples whose split the writer drew."""
    remarks: tuple[str, ...] = ()
    """On equal images and groups, a sentence each."""

    @property
    def class_counts(self) -> dict[str, tuple[int, ...]]:
        counts = {shard.split: np.zeros(len(self.classes) + 1, np.int64) for shard in self.shards}
        for shard in self.shards:
            np.add.at(counts[shard.split], [entry.label for entry in shard.entries], 1)  # -1 is the last
        return {split: tuple(map(int, count[:-1])) for split, count in counts.items()}


def check_numbers(shard_bytes: int, val_fraction: float, test_fraction: float) -> None:
    """Refuse numbers by which nothing can be packed.

    Raises:
        ValueError: naming them.
    """
    check_fractions(val_fraction, test_fraction)
    if not shard_bytes >= 1:
        raise ValueError(f"shards of {shard_bytes} bytes cannot hold anything")


def make_plan(
    domain: Domain,
    spool: Spool,
    *,
    shard_bytes: int,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    on_progress: OnProgress,
) -> Plan:
    """Read the domain once and decide.

    Raises:
        ValueError: no images, a label or split that there is not, or no training split left.
    """
    check_numbers(shard_bytes, val_fraction, test_fraction)
    entries = _gather(domain, spool, on_progress)
    equal = equal_images(
        [entry.size for entry in entries], lambda n, *span: entries[n].read_part(spool, *span)
    )
    groups = joined([entry.group for entry in entries], equal)
    open_places = [n for n, entry in enumerate(entries) if entry.split is None and entry.label != UNLABELLED]
    drawn = stratified(
        [entries[n].label for n in open_places],
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        groups=None if groups is None else [groups[n] for n in open_places],
    )
    for place, split in zip(open_places, drawn, strict=True):
        entries[place] = replace(entries[place], split=split)
    if groups is not None:  # an unlabelled image goes where the labelled ones of its group went
        split_of = {groups[n]: entries[n].split for n in open_places}
        for place, entry in enumerate(entries):
            if entry.split is None and (split := split_of.get(groups[place])) is not None:
                entries[place] = replace(entry, split=split)
    shards = []
    for number, split in enumerate(SPLITS):
        # What has no label cannot be tested: it goes to training, unless the source says otherwise.
        members = [entry for entry in entries if (entry.split or "train") == split]
        order = np.random.default_rng((seed, number)).permutation(len(members))
        shards += _cut([members[n] for n in order], split, shard_bytes)
    return Plan(
        domain.name,
        domain.classes,
        tuple(shards),
        len(drawn),
        tuple(leaks(entries, equal, domain.classes)),
    )


def _gather(domain: Domain, spool: Spool, on_progress: OnProgress) -> list[Entry]:
    numbers = {name: number for number, name in enumerate(domain.classes)}
    if len(numbers) != len(domain.classes):
        raise ValueError(f"{domain.name}: the class list names a class twice")
    entries: list[Entry] = []
    keys = _Keys()
    for example in domain:
        if example.split not in (None, *SPLITS):
            raise ValueError(
                f"{domain.name}, {example.key!r}: unknown split {example.split!r}; {', '.join(SPLITS)}"
            )
        if example.label is not None and example.label not in numbers:
            near = difflib.get_close_matches(example.label, numbers, n=1)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise ValueError(
                f"{domain.name}, {example.key!r}: the class {example.label!r} is not in the list{hint}"
            )
        if example.extension.lower() not in IMAGES:
            raise ValueError(
                f"{domain.name}, {example.key!r}: {example.extension!r} is no image; {', '.join(IMAGES)} are"
            )
        if isinstance(example.image, bytes):
            place, size = spool.add(example.image), len(example.image)
        else:
            place, size = example.image, example.image.stat().st_size
        if size == 0:
            raise ValueError(f"{domain.name}, {example.key!r}: the image is empty")
        label = UNLABELLED if example.label is None else numbers[example.label]
        extension, split, group = example.extension.lower(), example.split, example.group
        entries.append(Entry(keys.new(example), extension, label, split, place, size, group))
        on_progress("reading", len(entries), None)
    if not entries:
        raise ValueError(f"{domain.name}: there are no images")
    return entries


class _Keys:
    """Names in the tar: words and dashes alone, each once, also where case does not count."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}
        """Base in one case -> the number that is tried next."""

    def new(self, example: Example) -> str:
        plain = re.sub(r"[^\w-]+", "-", composed(example.key)).strip("-_")
        key = base = plain[:_LONGEST_KEY] or "image"  # names like __this__ are metadata to webdataset
        number = self._next.get(base.casefold(), 2)
        while key.casefold() in self._taken:
            key = f"{base}-{number}"
            number += 1
        self._next[base.casefold()] = number
        self._taken.add(key.casefold())
        return key


def _cut(entries: Sequence[Entry], split: str, shard_bytes: int) -> Iterable[PlannedShard]:
    """Shards of nearly equal bytes."""
    if not entries:
        return []
    sizes = np.array([entry.tar_bytes for entry in entries], dtype=np.int64)
    ends = np.cumsum(sizes)
    num_shards = min(MOST_SHARDS, max(1, round(int(ends[-1]) / shard_bytes)))
    middle = ends - sizes // 2
    place = np.minimum(middle * num_shards // ends[-1], num_shards - 1)
    begins = [0, *(np.flatnonzero(np.diff(place)) + 1).tolist(), len(entries)]
    return [
        PlannedShard(f"{split}-{n:05}.tar", split, tuple(entries[begin:end]))
        for n, (begin, end) in enumerate(itertools.pairwise(begins))
    ]
