"""One split of one domain: its shards by position, its classes, and which of its labels are told.

A split's samples are numbered through all shards in the manifest's order; everything that orders, reads or evaluates
samples speaks of these positions. Few labels, dropped images and class balance are choices of positions made here.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from fourds_dist.config import Section
from fourds_dist.data.fetch import read_object
from fourds_dist.data.grey import GreyRange
from fourds_dist.data.index import UNLABELLED, ShardIndex
from fourds_dist.data.listing import sizes
from fourds_dist.data.manifest import Manifest, Shard, index_url, read_manifest, shard_url
from fourds_dist.data.order import generator
from fourds_dist.data.url import matching, split_pattern
from fourds_dist.effects import IMAGES, WEIGHTS
from fourds_dist.storage import is_local, locate, may_read

SplitName = Literal["train", "val", "test"]


class StreamConfig(Section):
    """One domain's images."""

    url: Annotated[str | None, IMAGES] = None
    """Dataset folder, a path or URL (s3://bucket/photos), as written by `python -m fourds_dist.pack`; or some of its
    shards: s3://bucket/photos/train-{00000..00099}.tar. Foreign tars need `pack index URL` once."""

    labels_per_class: Annotated[int | None, WEIGHTS] = Field(default=None, ge=0)
    """Training labels to use in each class, drawn by run.seed; the other images count as unlabelled. null: all."""

    unlabelled: Annotated[Literal["keep", "drop"], WEIGHTS] = "keep"
    """`drop` leaves unlabelled training images out of the stream, and with labels_per_class those whose label is not
    used."""

    balance: Annotated[float, WEIGHTS] = Field(default=0.0, ge=0, le=1)
    """Sampling weights against class imbalance: a class of n training images is shown n^-balance times as often in each
    epoch, on average over images as often as without; 0 leaves the data as they are, 1 shows all classes equally
    often."""

    labelled_fraction: Annotated[float, WEIGHTS] = Field(default=0.0, ge=0, lt=1)
    """Share of labelled images that every batch holds of this domain's at least, for targets with few labels: labelled
    and unlabelled images then come from orders of their own, the labelled ones more often. An epoch stays as long as
    without. 0: as they come."""

    @model_validator(mode="after")
    def _check(self) -> StreamConfig:
        if self.labels_per_class == 0 and self.unlabelled == "drop":
            raise ValueError("labels_per_class=0 with unlabelled=drop leaves no training images")
        if self.labels_per_class == 0 and self.labelled_fraction > 0:
            raise ValueError(
                f"labels_per_class=0 leaves no labelled images for labelled_fraction={self.labelled_fraction:g}"
            )
        return self


@dataclass(frozen=True)
class Split:
    """The samples of a split, by position.

    Args:
        url: folder of the shards.
        name: train, val or test.
        classes: in label order.
        shards: in the manifest's order.
        fingerprint: names the data and the choice of samples; a run's checkpoint holds it.
        chosen: positions that the stream shows, ascending, some of them repeatedly in later rounds; None: all.
        told: (num_positions,) whether a position's label may be used; None: all.
        labelled: (num_samples,) whether each sample of a pass shows a label; None: a batch takes them as they come.
        labelled_fraction: share of labelled samples that every batch holds at least, with `labelled`.
        grey_range: of the data set's images of more than 8 bits (`grey`); None: the manifest says none.
    """

    url: str
    name: SplitName
    classes: tuple[str, ...]
    shards: tuple[Shard, ...]
    fingerprint: str
    chosen: np.ndarray | None = None
    told: np.ndarray | None = None
    labelled: np.ndarray | None = None
    labelled_fraction: float = 0.0
    grey_range: GreyRange | None = None

    @cached_property
    def sizes(self) -> np.ndarray:
        """(num_shards,) samples of each shard."""
        return np.array([shard.num_samples for shard in self.shards], dtype=np.int64)

    @cached_property
    def begins(self) -> np.ndarray:
        """(num_shards,) position of each shard's first sample."""
        return np.cumsum(self.sizes) - self.sizes

    @property
    def num_positions(self) -> int:
        """Samples in the shards, shown or not."""
        return int(self.sizes.sum())

    @property
    def num_samples(self) -> int:
        """Samples of one pass over the split."""
        return self.num_positions if self.chosen is None else len(self.chosen)

    @property
    def num_bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.num_bytes for shard in self.shards)

    def positions(self, places: np.ndarray) -> np.ndarray:
        """The positions shown at some places of a pass."""
        return places if self.chosen is None else self.chosen[places]

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(shard number, row in the shard) of positions."""
        shard = np.searchsorted(self.begins, positions, side="right") - 1
        return shard, positions - self.begins[shard]

    def run_lengths(self) -> np.ndarray:
        """Lengths of the stretches of a pass that lie in one shard, in order."""
        if self.chosen is None:
            return self.sizes[self.sizes > 0]
        shard, _ = self.locate(self.chosen)
        # A new round begins where positions fall back, even within one shard.
        new = (np.diff(shard) != 0) | (np.diff(self.chosen) <= 0)
        edges = np.concatenate([[0], np.flatnonzero(new) + 1, [len(shard)]])
        return np.diff(edges)

    def shard_url(self, shard: int) -> str:
        """Where a shard lies."""
        return shard_url(self.url, self.shards[shard].name)

    def index_url(self, shard: int) -> str:
        """Where its index lies."""
        return index_url(self.url, self.shards[shard].name)

    def check_shards(self) -> None:
        """Refuse data that lack a shard, or hold one of another size or one that this user may not read.

        Folders are listed, and nothing is read.

        Raises:
            ValueError: naming the first such shard.
        """
        wanted = [
            place
            for number, shard in enumerate(self.shards)
            for place in ((self.shard_url(number), shard.num_bytes), (self.index_url(number), None))
        ]
        names: dict[str, list[str]] = {}
        for url, _ in wanted:
            folder, _, name = url.rpartition("/")
            names.setdefault(folder, []).append(name)
        listed = {folder: sizes(folder, there) for folder, there in names.items()}
        for url, num_bytes in wanted:
            folder, _, name = url.rpartition("/")
            if name not in listed[folder]:
                raise ValueError(
                    f"{url} is missing, though the manifest of {self.url} names it; restore it, or pack again"
                )
            found = listed[folder][name]
            if num_bytes is not None and found is not None and found != num_bytes:
                raise ValueError(
                    f"{url} has {found} bytes where the manifest says {num_bytes}: it was cut or replaced; "
                    "restore it, or pack again"
                )
            fs, path = locate(url)
            if is_local(fs) and not may_read(path):
                raise ValueError(f"{url}: access denied; give this user the right to read it")


def open_split(config: StreamConfig, name: SplitName, *, seed: int = 0) -> Split:
    """A split of a domain; reads its manifest, and its shards' indices where labels are to be chosen by class.

    Args:
        seed: decides which labels are told (labels_per_class) and which images are shown once more (balance).

    Raises:
        ValueError: no such folder, manifest or split, no shards that match, or a class without labels to choose from.
    """
    assert config.url is not None
    folder, pattern = split_pattern(config.url)
    manifest = read_manifest(folder)
    shards = _matching(manifest, name, pattern, config.url)
    split = Split(
        folder,
        name,
        manifest.classes,
        shards,
        f"{manifest.fingerprint}/{name}{pattern or ''}",
        grey_range=manifest.grey_range,
    )
    needs_labels = (
        config.labels_per_class is not None
        or config.unlabelled == "drop"
        or config.balance > 0
        or config.labelled_fraction > 0
    )
    return _chosen(split, config, seed) if name == "train" and needs_labels else split


def check_same_classes(split: Split, other: Split) -> None:
    """Refuse two domains whose class lists differ.

    Raises:
        ValueError: naming the first difference.
    """
    if split.classes == other.classes:
        return
    mine, theirs = set(split.classes), set(other.classes)
    if mine == theirs:
        first = next(i for i, (a, b) in enumerate(zip(split.classes, other.classes, strict=True)) if a != b)
        what = f"in another order, first at {first}: {split.classes[first]!r} and {other.classes[first]!r}"
    else:
        only = [
            f"only {one.url} has {', '.join(map(repr, sorted(names)[:5]))}"
            for one, names in ((split, mine - theirs), (other, theirs - mine))
            if names
        ]
        what = "; ".join(only)
    raise ValueError(
        f"class lists differ between {split.url} ({len(mine)}) and {other.url} ({len(theirs)}): {what}; "
        f"pack or index one of them again with the other's classes, e.g. `pack ... --classes {split.url}`"
    )


def _matching(manifest: Manifest, name: SplitName, pattern: str | None, url: str) -> tuple[Shard, ...]:
    shards = tuple(manifest.splits.get(name, ()))
    if not shards:
        present = ", ".join(n for n, s in manifest.splits.items() if s) or "none"
        raise ValueError(
            f"{url} has no {name!r} split (it has: {present}); {_how_to_pack(manifest, name)}, or add shards by "
            f"`pack index ... --split {name}`"
        )
    if pattern is None:
        return shards
    chosen = matching((shard.name for shard in shards), pattern)
    if chosen:
        return tuple(shard for shard in shards if shard.name in chosen)
    everywhere = [shard.name for others in manifest.splits.values() for shard in others]
    if matching(everywhere, pattern):
        return shards  # the pattern speaks of another split's shards
    raise ValueError(f"no shards match {url}; the folder's first is {everywhere[0]}")


def _how_to_pack(manifest: Manifest, name: SplitName) -> str:
    if name == "train":
        return "pack it with training images"
    if any(manifest.class_counts.get("train", ())):
        return f"pack it with one (`pack folder --{name}-fraction 0.1`)"
    return (
        "it is drawn from labelled images alone, and no training image has a label: pack some with theirs, the "
        "others without (`pack list`)"
    )


def _chosen(split: Split, config: StreamConfig, seed: int) -> Split:
    labels = _labels(split)
    told = np.ones(len(labels), dtype=bool)
    if config.labels_per_class is not None:
        told = _few(labels, config.labels_per_class, seed)
    shown = np.arange(len(labels))
    if config.unlabelled == "drop":
        shown = np.flatnonzero(told & (labels != UNLABELLED))
    if config.balance:
        shown = _balanced(shown, labels, config.balance, seed)
    if not len(shown):
        raise ValueError(f"{split.url}: no training images are left; every one is unlabelled")
    choice = (
        f"{split.fingerprint}?labels={config.labels_per_class},{config.unlabelled},{config.balance},{seed}"
    )
    if config.labelled_fraction:
        choice += f",labelled={config.labelled_fraction}"
    everything = len(shown) == len(labels) and not config.balance
    return Split(
        split.url,
        split.name,
        split.classes,
        split.shards,
        choice,
        chosen=None if everything else shown,
        told=None if told.all() else told,
        labelled=(told & (labels != UNLABELLED))[shown] if config.labelled_fraction else None,
        labelled_fraction=config.labelled_fraction,
        grey_range=split.grey_range,
    )


def _labels(split: Split) -> np.ndarray:
    """(num_positions,) labels of the whole split, from the shards' indices, a few at a time."""
    with ThreadPoolExecutor(16) as pool:
        indices = pool.map(lambda shard: load_index(split, shard), range(len(split.shards)))
        return np.concatenate([index.labels for index in indices])


def load_index(split: Split, shard: int, read: Callable[[str], bytes] = read_object) -> ShardIndex:
    """The index of a shard.

    Args:
        read: URL to the object's bytes.

    Raises:
        ValueError: the index does not fit the manifest.
    """
    url, expected = split.index_url(shard), split.shards[shard]
    index = ShardIndex.from_bytes(read(url), url)
    if (len(index), index.num_bytes) != (expected.num_samples, expected.num_bytes):
        raise ValueError(
            f"{url} speaks of {len(index)} samples in {index.num_bytes} bytes, the manifest of "
            f"{expected.num_samples} in {expected.num_bytes}; index or pack the shards again"
        )
    return index


def _few(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """True for `per_class` positions of every class, or all of a smaller one."""
    order = generator(seed, per_class).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    sorted_labels = labels[by_class]
    begins = np.searchsorted(sorted_labels, sorted_labels, side="left")
    told = np.zeros(len(labels), dtype=bool)
    told[by_class[np.arange(len(labels)) - begins < per_class]] = True
    return told


def _balanced(shown: np.ndarray, labels: np.ndarray, balance: float, seed: int) -> np.ndarray:
    """Positions by rounds: whole repeats first, then a drawn share of images that are shown once more."""
    _, inverse, counts = np.unique(labels[shown], return_inverse=True, return_counts=True)
    weight = counts[inverse].astype(float) ** -balance
    wanted = weight * len(shown) / weight.sum()
    # Systematic sampling, class after class: every class is shown as often as wanted, to within one image.
    order = generator(seed, len(shown)).permutation(len(shown))
    order = order[np.argsort(inverse[order], kind="stable")]
    times = np.zeros(len(shown), dtype=np.int64)
    times[order] = np.diff(np.floor(np.cumsum(wanted[order]) + 0.5), prepend=0).astype(np.int64)
    rows = np.repeat(np.arange(len(shown)), times)
    round_ = np.arange(len(rows)) - np.repeat(np.cumsum(times) - times, times)
    return shown[rows[np.argsort(round_, kind="stable")]]
