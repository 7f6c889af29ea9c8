"""Pictures to look at: a dataset folder of shards, a folder of images, or files; batches of decoded pixels out.

s3://bucket/photos             a dataset folder as `fourds pack` writes it; its test split, or another
s3://bucket/photos/test-*.tar  some of its shards
photos/                        a folder of images, one sub-folder per class, or such folders below one per split
a.jpg b.png                    files, without labels
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from fourds_dist.data import Split, StreamConfig, evaluation_batches, open_split
from fourds_dist.data.class_list import ClassList
from fourds_dist.data.frames import file_has_more_frames, frames_remark
from fourds_dist.data.image_files import ImageFiles, find_images, images_in
from fourds_dist.data.index import UNLABELLED
from fourds_dist.data.manifest import MANIFEST
from fourds_dist.data.split import SplitName
from fourds_dist.data.split_names import splits_of
from fourds_dist.data.text import composed, shown
from fourds_dist.data.threads import num_cores
from fourds_dist.data.url import split_pattern
from fourds_dist.results.preprocessing import Preprocessing
from fourds_dist.storage import is_url, plain

BATCH_SIZE = 128

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pictures:
    """A batch."""

    pixels: UInt8[Tensor, "B 3 H W"]
    labels: Int[Tensor, " B"]
    """-1 where an image has none."""
    names: list[str]
    """A path, or shard/key."""


@runtime_checkable
class Images(Protocol):
    """A finite set of images."""

    @property
    def where(self) -> str:
        """For people."""
        ...

    @property
    def num_images(self) -> int:
        """How many there are."""
        ...

    def batches(self, preprocessing: Preprocessing, batch_size: int = BATCH_SIZE) -> Iterator[Pictures]:
        """All of them, in order; what cannot be read is left out and counted by the owner."""
        ...


@dataclass(frozen=True)
class ShardImages:
    """A split of a dataset folder."""

    split: Split

    @property
    def where(self) -> str:
        """For people."""
        return f"{self.split.url} ({self.split.name})"

    @property
    def num_images(self) -> int:
        """Images of the split."""
        return self.split.num_samples

    @property
    def left_out(self) -> tuple[str, ...]:
        """As of `FileImages`; nothing, as packing told."""
        return ()

    def batches(self, preprocessing: Preprocessing, batch_size: int = BATCH_SIZE) -> Iterator[Pictures]:
        """As `Images.batches`.

        Raises:
            DataError: broken samples beyond data.max_bad_fraction.
        """
        ranges = preprocessing.grey_range, self.split.grey_range
        if None not in ranges and ranges[0] != ranges[1]:
            _log.warning(
                "%s holds values from %g to %g, and the student reads %g to %g, by which its images are read here; "
                "`evaluate --grey-range` gives another range",
                self.where,
                *(ranges[1] or ()),
                *(ranges[0] or ()),
            )
        batches = evaluation_batches(
            self.split, preprocessing.loader(), batch_size_per_rank=batch_size, rank=0, world_size=1
        )
        for batch in batches:
            yield Pictures(batch.images, batch.labels, batch.keys)

    def thinned(self, most: int) -> ShardImages:
        """At most `most` of them, evenly spread over the split."""
        if self.num_images <= most:
            return self
        return self._at(_spread(self.num_images, most))

    def in_rounds(self, most: int, size: int) -> ShardImages:
        """At most `most` of them, in rounds of about `size` that are evenly spread each: stop after any."""
        places = _spread(self.num_images, min(most, self.num_images))
        num_rounds = -(-len(places) // size)
        return self._at(np.concatenate([places[begin::num_rounds] for begin in range(num_rounds)]))

    def _at(self, places: np.ndarray) -> ShardImages:
        return ShardImages(replace(self.split, chosen=self.split.positions(places)))


@dataclass(frozen=True)
class FileImages:
    """Image files."""

    where: str
    paths: Sequence[Path]
    labels: Sequence[int]
    unreadable: dict[Path, str] = field(default_factory=dict)
    """Files that `batches` could not read, with the reason."""
    not_looked_at: tuple[str, ...] = ()
    """A sentence each."""
    several: list[Path] = field(default_factory=list)
    """Files of several frames that `batches` met."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """What was not looked at, a sentence each; whole once `batches` has ended."""
        return (
            *self.not_looked_at,
            *frames_remark(len(self.several), shown(self.several[0]) if self.several else ""),
        )

    @property
    def num_images(self) -> int:
        """Files, readable or not."""
        return len(self.paths)

    def batches(self, preprocessing: Preprocessing, batch_size: int = BATCH_SIZE) -> Iterator[Pictures]:
        """As `Images.batches`."""

        def read(path: Path) -> Tensor | None:
            try:
                data = path.read_bytes()
                pixels = preprocessing.pixels(data)
            except (ValueError, OSError) as error:
                self.unreadable[path] = str(error)
                return None
            if file_has_more_frames(data):
                self.several.append(path)
            return pixels

        with ThreadPoolExecutor(max(1, int(num_cores()))) as pool:
            for begin in range(0, len(self.paths), batch_size):
                rows = range(begin, min(begin + batch_size, len(self.paths)))
                pixels = dict(zip(rows, pool.map(read, [self.paths[i] for i in rows]), strict=True))
                good = {i: image for i, image in pixels.items() if image is not None}
                if good:
                    labels = torch.tensor([self.labels[i] for i in good])
                    yield Pictures(
                        torch.stack(list(good.values())), labels, [str(self.paths[i]) for i in good]
                    )


def open_labelled(
    where: str, classes: tuple[str, ...], split: SplitName = "test", *, key: str = "DATA"
) -> ShardImages | FileImages:
    """Images with labels in the order of `classes`.

    Args:
        where: a dataset folder, some of its shards, or a folder with a sub-folder per class.
        split: of a dataset folder.
        key: what the user calls `where`, for messages.

    Raises:
        ValueError: nothing there, or classes that the student does not know.
    """
    where = plain(where)
    folder, pattern = split_pattern(where)
    if is_url(where) or (pattern and where.endswith(".tar")) or Path(folder, MANIFEST).exists():
        opened = open_split(StreamConfig(url=where), split)
        if [*map(composed, opened.classes)] != [*map(composed, classes)]:
            raise ValueError(
                f"{key} {where} has the classes {_some(opened.classes)}, the student {_some(classes)}; "
                "pack it again with the classes of the data set that the student was trained on (`pack ... --classes "
                "DATASET`)"
            )
        return ShardImages(opened)
    root = Path(where)
    if not root.is_dir():
        raise ValueError(
            f"{key} {where}: {'a file' if root.exists() else 'nothing there'}; give a dataset folder or a folder "
            "with a sub-folder of images per class"
        )
    numbers = {composed(name): number for number, name in enumerate(classes)}
    found, folders = images_in(root)
    names = {folder: composed(folder.name) for folder in folders}
    splits = splits_of(list(names.values()))
    if folders and not numbers.keys() & splits.keys() and None not in splits.values():
        inside = [images_in(folder) for folder in folders if splits[names[folder]] == split]
        if not inside:
            there = ", ".join(sorted(set(filter(None, splits.values()))))
            raise ValueError(f"{key} {where} has the splits {there}, not {split}; give --split")
        for files, _ in inside:
            found.add(files)
        names = {folder: composed(folder.name) for _, below in inside for folder in below}
    known = ClassList(tuple(numbers))
    unknown = [name for name in names.values() if known.position(name) is None]
    if not names or unknown:
        what = f"the student has no class {unknown[0]!r}" if unknown else "it has no sub-folders"
        found.check_open(remedy="")
        raise ValueError(
            f"{key} {where}: {what}; give a dataset folder, or a folder with sub-folders named as the student's "
            f"classes: {_some(classes)}"
        )
    beside = len(found.paths)
    left_out = (
        [f"left out: {beside} images outside class folders (first: {found.paths[0]})"] if beside else []
    )
    if any(name not in numbers for name in names.values()):
        first, name = next((folder, name) for folder, name in names.items() if name not in numbers)
        meant = classes[known.position(name) or 0]
        left_out.append(
            "class folders named by numbers are read as places among the student's classes, from 0: "
            f"{first.name} is {meant}, ..."
        )
    paths: list[tuple[Path, int]] = []
    for folder, name in names.items():
        inside_class = find_images(folder)
        number = known.position(name)
        assert number is not None
        paths += [(path, number) for path in inside_class.paths]
        found.add(inside_class)
    found.check_open(remedy="")
    if not paths:
        raise ValueError(f"{key} {where}: no images in its class folders: {found.instead()}")
    return FileImages(
        where,
        [path for path, _ in paths],
        [label for _, label in paths],
        not_looked_at=(*left_out, *found.left_out()),
    )


def open_files(places: Sequence[str | Path]) -> FileImages:
    """Files and all images below folders, without labels.

    Raises:
        ValueError: a place where nothing is, or a folder without images.
    """
    paths: list[Path] = []
    every = ImageFiles()
    for given in map(plain, map(str, places)):
        if is_url(given):
            raise ValueError(
                f"{given}: images are read from this machine's disks; copy it here first (`fourds evaluate` reads data "
                "sets at URLs)"
            )
        place = Path(given)
        if place.is_dir():
            found = find_images(place)
            found.check_open(remedy="")
            if not found.paths:
                raise ValueError(f"{place}: no images below it: {found.instead()}")
            paths += found.paths
            every.add(found)
        elif place.exists():
            paths.append(place)
        else:
            raise ValueError(f"{place}: no such file or folder")
    return FileImages(
        ", ".join(map(str, places)), paths, [UNLABELLED] * len(paths), not_looked_at=tuple(every.left_out())
    )


def _spread(num: int, most: int) -> np.ndarray:
    return np.linspace(0, num - 1, most).round().astype(np.int64)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f", ... ({len(names)})" if len(names) > 8 else "")
