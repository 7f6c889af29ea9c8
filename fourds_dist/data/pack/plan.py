"""Plan the shards of a dataset before any shard is written.

The domain is iterated over once. Images that are not files go to a temporary file on the local disk; about 300 bytes
per image stay in memory. Then splits are drawn class by class, the samples of each split are shuffled by one seeded
permutation, and the permutation is cut into shards of nearly equal size in bytes. So each shard is a random sample of
its split, and equal input and seed give equal shards.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.example import Example
from fourds_dist.data.datasets.splits import check_fractions, stratified
from fourds_dist.data.files.duplicates import equal_images, joined
from fourds_dist.data.files.progress import OnProgress
from fourds_dist.data.format.index import UNLABELLED
from fourds_dist.data.format.manifest import SPLITS
from fourds_dist.data.pack.entry import Entry, Spool
from fourds_dist.data.pack.leaks import leaks
from fourds_dist.data.pack.webdataset_samples import IMAGES
from fourds_dist.io.names import composed

MOST_SHARDS = 1 << 20
"""Largest number of shards of a split."""


_LONGEST_KEY = 120


@dataclass(frozen=True)
class PlannedShard:
    name: str
    split: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class PackPlan:
    """The planned shards, in order."""

    name: str
    classes: tuple[str, ...]
    shards: tuple[PlannedShard, ...]
    num_drawn: int
    """Number of samples whose split was drawn."""
    remarks: tuple[str, ...] = ()
    """Remarks on equal images and groups."""

    @property
    def class_counts(self) -> dict[str, tuple[int, ...]]:
        counts = {shard.split: np.zeros(len(self.classes) + 1, np.int64) for shard in self.shards}
        for shard in self.shards:
            np.add.at(
                counts[shard.split], [entry.label for entry in shard.entries], 1
            )  # UNLABELLED, -1, counts in the last column
        return {split: tuple(map(int, count[:-1])) for split, count in counts.items()}


def check_numbers(shard_bytes: int, val_fraction: float, test_fraction: float) -> None:
    """Refuse an invalid shard size or invalid fractions.

    Raises:
        ValueError: a number is out of range; the message names the number.
    """
    check_fractions(val_fraction, test_fraction)
    if not shard_bytes >= 1:
        raise ValueError(
            f"shards of {shard_bytes} bytes cannot hold anything; give a shard size of at least 1 byte"
        )


def make_plan(
    domain: Domain,
    spool: Spool,
    *,
    shard_bytes: int,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    on_progress: OnProgress,
) -> PackPlan:
    """Read the domain once and plan its shards.

    Raises:
        ValueError: there are no images, a label or split is unknown, or the fractions leave no training split.
    """
    check_numbers(shard_bytes, val_fraction, test_fraction)
    entries = _gather(domain, spool, on_progress)
    equal = equal_images(
        [entry.size for entry in entries], lambda n, *span: entries[n].read_part(spool, *span)
    )
    groups = joined([entry.group for entry in entries], equal)
    # Splits are drawn from labelled images. Only a domain without any label has unlabelled validation and test splits.
    draws_all = all(entry.label == UNLABELLED for entry in entries)
    without_split = [
        n
        for n, entry in enumerate(entries)
        if entry.split is None and (draws_all or entry.label != UNLABELLED)
    ]
    drawn = stratified(
        [entries[n].label for n in without_split],
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        groups=None if groups is None else [groups[n] for n in without_split],
    )
    for position, split in zip(without_split, drawn, strict=True):
        entries[position] = replace(entries[position], split=split)
    if groups is not None:  # an unlabelled image goes to the split of its group's labelled images
        split_of = {groups[n]: entries[n].split for n in without_split}
        for position, entry in enumerate(entries):
            if entry.split is None and (split := split_of.get(groups[position])) is not None:
                entries[position] = replace(entry, split=split)
    shards = []
    for number, split in enumerate(SPLITS):
        # Other unlabelled images go to training unless the domain gives another split.
        members = [entry for entry in entries if (entry.split or "train") == split]
        order = np.random.default_rng((seed, number)).permutation(len(members))
        shards += _cut([members[n] for n in order], split, shard_bytes)
    return PackPlan(
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
                f"{domain.name}, {example.key!r}: unknown split {example.split!r}; use one of {', '.join(SPLITS)}"
            )
        if example.label is not None and example.label not in numbers:
            near = difflib.get_close_matches(example.label, numbers, n=1)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise ValueError(
                f"{domain.name}, {example.key!r}: the class {example.label!r} is not in the list{hint}"
            )
        if example.extension.lower() not in IMAGES:
            raise ValueError(
                f"{domain.name}, {example.key!r}: {example.extension!r} is no image format; use one of "
                f"{', '.join(IMAGES)}"
            )
        if isinstance(example.image, bytes):
            location, size = spool.add(example.image), len(example.image)
        else:
            location, size = example.image, example.image.stat().st_size
        if size == 0:
            raise ValueError(f"{domain.name}, {example.key!r}: the image is empty")
        label = UNLABELLED if example.label is None else numbers[example.label]
        extension, split, group = example.extension.lower(), example.split, example.group
        key = keys.new(example)
        entries.append(Entry(key, extension, label, split, location, size, group, example.file))
        on_progress("reading", len(entries), domain.num_images)
    if not entries:
        raise ValueError(f"{domain.name}: there are no images")
    return entries


class _Keys:
    """Makes the names of samples in the tar: word characters and dashes, unique even when case is ignored."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}
        """Case-folded base name -> the number to try next."""

    def new(self, example: Example) -> str:
        plain = re.sub(r"[^\w-]+", "-", composed(example.key)).strip("-_")
        key = base = plain[:_LONGEST_KEY] or "image"  # to WebDataset, names like __this__ are metadata
        number = self._next.get(base.casefold(), 2)
        while key.casefold() in self._taken:
            key = f"{base}-{number}"
            number += 1
        self._next[base.casefold()] = number
        self._taken.add(key.casefold())
        return key


def _cut(entries: Sequence[Entry], split: str, shard_bytes: int) -> Iterable[PlannedShard]:
    """Cut the entries into shards of nearly equal size in bytes."""
    if not entries:
        return []
    sizes = np.array([entry.tar_bytes for entry in entries], dtype=np.int64)
    ends = np.cumsum(sizes)
    num_shards = min(MOST_SHARDS, max(1, round(int(ends[-1]) / shard_bytes)))
    middle = ends - sizes // 2
    shard_numbers = np.minimum(middle * num_shards // ends[-1], num_shards - 1)
    begins = [0, *(np.flatnonzero(np.diff(shard_numbers)) + 1).tolist(), len(entries)]
    return [
        PlannedShard(f"{split}-{n:05}.tar", split, tuple(entries[begin:end]))
        for n, (begin, end) in enumerate(itertools.pairwise(begins))
    ]
