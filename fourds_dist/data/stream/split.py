"""One split of one domain: its shards by position, its classes, and which of its labels are used.

Positions number the samples of a split through all shards in the manifest's order; ordering, reading and evaluation use
these positions. This module chooses positions for train_images and the like, labels_per_class, unlabelled and
class_balance.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from fourds_dist.config.effects import IMAGES, PLACE, WEIGHTS
from fourds_dist.config.section import ConfigSection
from fourds_dist.data.decode.grey import GreyRange
from fourds_dist.data.format.index import UNLABELLED, ShardIndex
from fourds_dist.data.format.manifest import Manifest, Shard, index_url, read_manifest, shard_url
from fourds_dist.data.io.range_reader import read_object
from fourds_dist.data.seeds import generator
from fourds_dist.io.listing import sizes
from fourds_dist.io.storage import is_local, locate, may_read
from fourds_dist.io.url import matching, split_pattern

SplitName = Literal["train", "val", "test"]


class StreamConfig(ConfigSection):
    """One domain's images."""

    url: Annotated[str | None, IMAGES] = None
    """Dataset folder, a path or URL (s3://bucket/photos), as written by `python -m fourds_dist.pack`; or some of its
    shards: s3://bucket/photos/train-{00000..00099}.tar. Existing tars need `pack index URL` once. Or images on this
    machine, which are packed once, beside the folder of the run: a folder with a sub-folder per class, a list (CSV,
    Parquet, ...) of paths and labels, or a folder with metadata.csv or metadata.jsonl."""

    packed_from: Annotated[str | None, PLACE] = None
    """The folder or list of images that is packed into `url` if `url` holds no data set yet. `train` sets this key when
    `url` names images."""

    train_images: Annotated[int | None, WEIGHTS] = Field(default=None, ge=1)
    """Number of training images to use, drawn by run.seed, the same share of every class; a smaller number uses some of
    the images of a larger one. labels_per_class chooses among these images. null: all."""

    val_images: Annotated[int | None, WEIGHTS] = Field(default=None, ge=1)
    """Largest number of images of the validation split that are used, drawn as train_images. null: all."""

    test_images: Annotated[int | None, WEIGHTS] = Field(default=None, ge=1)
    """The same of the test split."""

    labels_per_class: Annotated[int | None, WEIGHTS] = Field(default=None, ge=0)
    """Number of training labels to use per class, drawn by run.seed; other images count as unlabelled. null: all."""

    validation_labels: Annotated[Literal["use", "ignore"], WEIGHTS.of("adapt", "distill")] = "use"
    """`ignore`: the labels of the validation split select no epoch and do not enter training, as if the target had no
    labels; the log shows accuracies with these labels."""

    unlabelled: Annotated[Literal["keep", "drop"], WEIGHTS] = "keep"
    """`drop` leaves unlabelled training images out of the stream; with labels_per_class also images whose label is not
    used."""

    class_balance: Annotated[float, WEIGHTS] = Field(default=0.0, ge=0, le=1)
    """Sampling weights against class imbalance: an image of a class of n training images gets the weight
    n^-class_balance. The length of an epoch stays the same. 0: no weights; 1: all classes are shown equally often."""

    class_weights: Annotated[Literal["none", "balanced"], WEIGHTS] = "none"
    """Weights of the classes in the cross-entropies of the stages on this domain. `balanced`: in inverse proportion to
    the number of labelled training images of a class, as in scikit-learn, so that all classes count equally; an
    alternative to class_balance, which shows images of small classes more often."""

    labelled_fraction: Annotated[float, WEIGHTS] = Field(default=0.0, ge=0, lt=1)
    """Minimum share of labelled images among this domain's images in every batch, for targets with few labels. Labelled
    and unlabelled images have separate orders then, and labelled images are shown more often. The length of an epoch
    stays the same. 0: no minimum."""

    @model_validator(mode="after")
    def _check(self) -> StreamConfig:
        if self.class_weights == "balanced" and self.class_balance > 0:
            raise ValueError(
                f"class_weights=balanced and class_balance={self.class_balance:g} both correct the imbalance of "
                "classes; set one of them"
            )
        if self.packed_from is not None and self.url is None:
            raise ValueError("packed_from without url; give the images as url, and remove packed_from")
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
        classes: class names in label order.
        shards: shards in the manifest's order.
        fingerprint: identifies the data and the choice of samples; a run's checkpoint holds it.
        chosen: positions that the stream shows, in rounds of ascending positions; later rounds repeat some positions.
            None: all positions once.
        label_mask: (num_positions,) whether a position's label may be used; None: all.
        labelled: (num_samples,) whether each sample of a pass shows a label; None: batches have no minimum share.
        labelled_fraction: minimum share of labelled samples in every batch, if `labelled` is given.
        grey_range: grey range of the data set's images of more than 8 bits (`grey`); None: the manifest has none.
        max_side: longest side in pixels to which images were scaled when they were packed; None: they were not scaled.
    """

    url: str
    name: SplitName
    classes: tuple[str, ...]
    shards: tuple[Shard, ...]
    fingerprint: str
    chosen: np.ndarray | None = None
    label_mask: np.ndarray | None = None
    labelled: np.ndarray | None = None
    labelled_fraction: float = 0.0
    grey_range: GreyRange | None = None
    max_side: int | None = None

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
        """Number of samples in the shards, shown or not."""
        return int(self.sizes.sum())

    @property
    def num_samples(self) -> int:
        """Number of samples in one pass over the split."""
        return self.num_positions if self.chosen is None else len(self.chosen)

    @property
    def num_bytes(self) -> int:
        """Size of all shards in bytes."""
        return sum(shard.num_bytes for shard in self.shards)

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        """Return the positions of the samples that a pass shows under these numbers."""
        return numbers if self.chosen is None else self.chosen[numbers]

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (shard numbers, rows in these shards) of positions."""
        shard = np.searchsorted(self.begins, positions, side="right") - 1
        return shard, positions - self.begins[shard]

    def run_lengths(self) -> np.ndarray:
        """Return the lengths of the runs of a pass that stay in one shard, in order."""
        if self.chosen is None:
            return self.sizes[self.sizes > 0]
        shard, _ = self.locate(self.chosen)
        # A new round begins where positions decrease, even within one shard.
        new = (np.diff(shard) != 0) | (np.diff(self.chosen) <= 0)
        edges = np.concatenate([[0], np.flatnonzero(new) + 1, [len(shard)]])
        return np.diff(edges)

    def shard_url(self, shard: int) -> str:
        """Return the URL of a shard."""
        return shard_url(self.url, self.shards[shard].name)

    def index_url(self, shard: int) -> str:
        """Return the URL of a shard's index."""
        return index_url(self.url, self.shards[shard].name)

    def check_shards(self) -> None:
        """Refuse data with a shard that is missing, has another size, or may not be read by this user.

        Only folders are listed; no file is read.

        Raises:
            ValueError: naming the first such shard.
        """
        expected = [
            file
            for number, shard in enumerate(self.shards)
            for file in ((self.shard_url(number), shard.num_bytes), (self.index_url(number), None))
        ]
        names: dict[str, list[str]] = {}
        for url, _ in expected:
            folder, _, name = url.rpartition("/")
            names.setdefault(folder, []).append(name)
        listed = {folder: sizes(folder, in_folder) for folder, in_folder in names.items()}
        for url, num_bytes in expected:
            folder, _, name = url.rpartition("/")
            if name not in listed[folder]:
                raise ValueError(
                    f"{url} is missing, though the manifest of {self.url} names it; restore it, or pack again"
                )
            found = listed[folder][name]
            if num_bytes is not None and found is not None and found != num_bytes:
                raise ValueError(
                    f"{url} has {found} bytes, but the manifest lists {num_bytes}: the file was truncated or replaced; "
                    "restore it, or pack again"
                )
            fs, path = locate(url)
            if is_local(fs) and not may_read(path):
                raise ValueError(f"{url}: access denied; give this user the right to read it")


def open_split(config: StreamConfig, name: SplitName, *, seed: int = 0) -> Split:
    """Return a split of a domain; read its manifest, and its shards' indices if samples are chosen by label.

    Args:
        seed: decides which images are used (train_images, val_images, test_images), which labels (labels_per_class),
            and which images are shown repeatedly (class_balance).

    Raises:
        ValueError: no such folder, manifest or split, no shards that match, or no training images left.
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
        max_side=manifest.max_side,
    )
    if name != "train":
        most = config.val_images if name == "val" else config.test_images
        return _drawn(split, most, seed)
    needs_labels = (
        config.labels_per_class is not None
        or config.train_images is not None
        or config.unlabelled == "drop"
        or config.class_balance > 0
        or config.labelled_fraction > 0
    )
    return _chosen(split, config, seed) if needs_labels else split


def check_same_classes(split: Split, other: Split) -> None:
    """Refuse two domains whose class lists differ.

    Raises:
        ValueError: naming the first difference.
    """
    if split.classes == other.classes:
        return
    classes, other_classes = set(split.classes), set(other.classes)
    if classes == other_classes:
        first = next(i for i, (a, b) in enumerate(zip(split.classes, other.classes, strict=True)) if a != b)
        what = f"in another order, first at {first}: {split.classes[first]!r} and {other.classes[first]!r}"
    else:
        only = [
            f"only {owner.url} has {', '.join(map(repr, sorted(names)[:5]))}"
            for owner, names in ((split, classes - other_classes), (other, other_classes - classes))
            if names
        ]
        what = "; ".join(only)
    raise ValueError(
        f"class lists differ between {split.url} ({len(classes)}) and {other.url} ({len(other_classes)}): {what}; "
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
        return shards  # the pattern names another split's shards
    raise ValueError(f"no shards match {url}; the folder's first is {everywhere[0]}")


def _how_to_pack(manifest: Manifest, name: SplitName) -> str:
    if name == "train":
        return "pack the data with training images"
    if any(manifest.class_counts.get("train", ())):
        return f"pack the data with this split (`pack folder --{name}-fraction 0.1`)"
    return (
        "packing draws this split from labelled images only, and no training image has a label: pack the data again "
        "with labels for some images (`pack list`)"
    )


def _chosen(split: Split, config: StreamConfig, seed: int) -> Split:
    labels = labels_of(split)
    shown = np.arange(len(labels))
    if config.train_images is not None:
        shown = _image_subset(labels, config.train_images, seed)
    label_mask = np.ones(len(labels), dtype=bool)
    if config.labels_per_class is not None:
        label_mask[:] = False
        label_mask[shown] = _label_subset(labels[shown], config.labels_per_class, seed)
    if config.unlabelled == "drop":
        shown = shown[(label_mask & (labels != UNLABELLED))[shown]]
    if config.class_balance:
        shown = _balanced(shown, labels, config.class_balance, seed)
    if not len(shown):
        raise ValueError(
            f"{split.url}: no training images are left, since all are unlabelled; set unlabelled=keep, or give labels"
        )
    choice = f"{split.fingerprint}?labels={config.labels_per_class},{config.unlabelled},{config.class_balance},{seed}"
    if config.train_images is not None:
        choice += f",images={config.train_images}"
    if config.labelled_fraction:
        choice += f",labelled={config.labelled_fraction}"
    shows_all = len(shown) == len(labels) and not config.class_balance
    return Split(
        split.url,
        split.name,
        split.classes,
        split.shards,
        choice,
        chosen=None if shows_all else shown,
        label_mask=None if label_mask.all() else label_mask,
        labelled=(label_mask & (labels != UNLABELLED))[shown] if config.labelled_fraction else None,
        labelled_fraction=config.labelled_fraction,
        grey_range=split.grey_range,
        max_side=split.max_side,
    )


def labels_of(split: Split) -> np.ndarray:
    """Read the labels of the whole split, (num_positions,), from the shards' indices."""
    with ThreadPoolExecutor(16) as pool:
        indices = pool.map(lambda shard: load_index(split, shard), range(len(split.shards)))
        return np.concatenate([index.labels for index in indices])


def load_index(split: Split, shard: int, read: Callable[[str], bytes] = read_object) -> ShardIndex:
    """Read the index of a shard.

    Args:
        read: maps a URL to the object's bytes.

    Raises:
        ValueError: the index does not match the manifest.
    """
    url, expected = split.index_url(shard), split.shards[shard]
    index = ShardIndex.from_bytes(read(url), url)
    if (len(index), index.num_bytes) != (expected.num_samples, expected.num_bytes):
        raise ValueError(
            f"{url} has {len(index)} samples in {index.num_bytes} bytes, but the manifest lists {expected.num_samples} "
            f"in {expected.num_bytes}; index or pack the shards again"
        )
    return index


def _drawn(split: Split, most: int | None, seed: int) -> Split:
    """Return a split with at most so many images; None: all."""
    if most is None or split.num_positions <= most:
        return split
    chosen = _image_subset(labels_of(split), most, seed)
    return replace(split, fingerprint=f"{split.fingerprint}?images={most},{seed}", chosen=chosen)


def _image_subset(labels: np.ndarray, num: int, seed: int) -> np.ndarray:
    """Return `num` positions in ascending order, or all: the same share of every class, and of unlabelled images.

    The images of each class are numbered at random, from 0. Those with the smallest (number + 0.5) / size of the class
    are used, so that the positions of a smaller `num` are among those of a larger one.
    """
    order = generator(seed, len(labels)).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    _, inverse, counts = np.unique(labels[by_class], return_inverse=True, return_counts=True)
    numbers = np.arange(len(labels)) - (np.cumsum(counts) - counts)[inverse]
    ranked = by_class[np.argsort((numbers + 0.5) / counts[inverse], kind="stable")]
    return np.sort(ranked[:num])


def _label_subset(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Return a mask of `per_class` positions of every class, or of all positions of a smaller class."""
    order = generator(seed, per_class).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    sorted_labels = labels[by_class]
    begins = np.searchsorted(sorted_labels, sorted_labels, side="left")
    label_mask = np.zeros(len(labels), dtype=bool)
    label_mask[by_class[np.arange(len(labels)) - begins < per_class]] = True
    return label_mask


def _balanced(shown: np.ndarray, labels: np.ndarray, balance: float, seed: int) -> np.ndarray:
    """Return positions in rounds; round k holds the images that are shown at least k times, in ascending order."""
    _, inverse, counts = np.unique(labels[shown], return_inverse=True, return_counts=True)
    weight = counts[inverse].astype(float) ** -balance
    target = weight * len(shown) / weight.sum()
    # Systematic sampling, class after class: the count of every class is within one image of its target.
    order = generator(seed, len(shown)).permutation(len(shown))
    order = order[np.argsort(inverse[order], kind="stable")]
    times = np.zeros(len(shown), dtype=np.int64)
    times[order] = np.diff(np.floor(np.cumsum(target[order]) + 0.5), prepend=0).astype(np.int64)
    rows = np.repeat(np.arange(len(shown)), times)
    round_ = np.arange(len(rows)) - np.repeat(np.cumsum(times) - times, times)
    return shown[rows[np.argsort(round_, kind="stable")]]
