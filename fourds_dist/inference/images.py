"""Inputs of evaluation and prediction: a dataset folder, a folder of images or files, read as batches of pixels.

s3://bucket/photos             dataset folder, as `fourds pack` writes it; the test split by default
s3://bucket/photos/test-*.tar  some shards of a dataset folder
photos/                        folder with a sub-folder per class, or with a sub-folder per split that holds these
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
from fourds_dist.data.decode.threads import num_cores
from fourds_dist.data.files.frames import file_has_more_frames, frames_remark
from fourds_dist.data.files.image_files import ImageFiles, find_images, images_in, reason_of
from fourds_dist.data.files.split_names import splits_of
from fourds_dist.data.format.class_list import ClassList
from fourds_dist.data.format.index import UNLABELLED
from fourds_dist.data.format.manifest import MANIFEST
from fourds_dist.data.stream.preprocessing import Preprocessing
from fourds_dist.data.stream.split import SplitName
from fourds_dist.io.names import composed, shown
from fourds_dist.io.storage import is_url, plain
from fourds_dist.io.terminal import in_line
from fourds_dist.io.url import split_pattern

BATCH_SIZE = 128

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageBatch:
    """A batch of decoded images."""

    pixels: UInt8[Tensor, "B 3 H W"]
    labels: Int[Tensor, " B"]
    """Class indices; -1 for an image without a label."""
    names: list[str]
    """Path of each file, or shard/key."""


@runtime_checkable
class ImageSource(Protocol):
    """A finite set of images."""

    @property
    def where(self) -> str:
        """Where the images come from, for messages."""
        ...

    @property
    def num_images(self) -> int:
        """Number of images, readable or not."""
        ...

    def batches(self, preprocessing: Preprocessing, batch_size: int = BATCH_SIZE) -> Iterator[ImageBatch]:
        """Yield all readable images in order."""
        ...


@dataclass(frozen=True)
class ShardImages:
    """A split of a dataset folder."""

    split: Split

    @property
    def where(self) -> str:
        """Where the images come from, for messages."""
        return f"{self.split.url} ({self.split.name})"

    @property
    def num_images(self) -> int:
        """Number of images of the split."""
        return self.split.num_samples

    @property
    def not_read(self) -> tuple[str, ...]:
        """Empty: the stream of batches logs samples that cannot be read."""
        return ()

    @property
    def left_out(self) -> tuple[str, ...]:
        """Empty: `fourds pack` reported the images that it left out."""
        return ()

    def batches(self, preprocessing: Preprocessing, batch_size: int = BATCH_SIZE) -> Iterator[ImageBatch]:
        """Yield all readable images in order.

        Raises:
            DataError: the share of broken samples exceeds data.max_bad_fraction.
        """
        ranges = preprocessing.grey_range, self.split.grey_range
        if None not in ranges and ranges[0] != ranges[1]:
            _log.warning(
                "%s was packed with grey range %g to %g; its images are read with the student's range, %g to %g. "
                "Give another range with `evaluate --grey-range`",
                self.where,
                *(ranges[1] or ()),
                *(ranges[0] or ()),
            )
        batches = evaluation_batches(
            self.split, preprocessing.loader(), batch_size_per_rank=batch_size, rank=0, world_size=1
        )
        for batch in batches:
            yield ImageBatch(batch.images, batch.labels, batch.keys)

    def thinned(self, most: int) -> ShardImages:
        """Return at most `most` images, evenly spaced over the split."""
        if self.num_images <= most:
            return self
        return self._at(_spread(self.num_images, most))

    def in_rounds(self, most: int, size: int) -> ShardImages:
        """Return at most `most` images, ordered in rounds of about `size`; each round is evenly spaced over the split.

        After any round the images read so far cover the split evenly.
        """
        indices = _spread(self.num_images, min(most, self.num_images))
        num_rounds = -(-len(indices) // size)
        return self._at(np.concatenate([indices[begin::num_rounds] for begin in range(num_rounds)]))

    def _at(self, indices: np.ndarray) -> ShardImages:
        return ShardImages(replace(self.split, chosen=self.split.positions(indices)))


@dataclass(frozen=True)
class FileImages:
    """Image files."""

    where: str
    paths: Sequence[Path]
    labels: Sequence[int]
    unreadable: dict[Path, str] = field(default_factory=dict)
    """Files that `batches` could not read, with the reason."""
    not_looked_at: tuple[str, ...] = ()
    """Sentences about files and folders that were left out when the folder was opened."""
    several: list[Path] = field(default_factory=list)
    """Files with several frames among those that `batches` has read."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Sentences about images that were left out; complete after `batches` has ended."""
        return (
            *self.not_looked_at,
            *frames_remark(len(self.several), shown(self.several[0]) if self.several else ""),
        )

    @property
    def not_read(self) -> tuple[str, ...]:
        """A line for each file that could not be read; complete after `batches` has ended."""
        return tuple(f"{in_line(str(path))}: not read: {why}" for path, why in self.unreadable.items())

    @property
    def num_images(self) -> int:
        """Number of files, readable or not."""
        return len(self.paths)

    def batches(self, preprocessing: Preprocessing, batch_size: int = BATCH_SIZE) -> Iterator[ImageBatch]:
        """Yield all readable images in order; unreadable files are added to `unreadable`."""

        def read(path: Path) -> Tensor | None:
            try:
                data = path.read_bytes()
                pixels = preprocessing.pixels(data)
            except (ValueError, OSError) as error:
                self.unreadable[path] = reason_of(path) or str(error)
                return None
            if file_has_more_frames(data):
                self.several.append(path)
            return pixels

        with ThreadPoolExecutor(max(1, int(num_cores()))) as pool:
            for begin in range(0, len(self.paths), batch_size):
                rows = range(begin, min(begin + batch_size, len(self.paths)))
                pixels = dict(zip(rows, pool.map(read, [self.paths[i] for i in rows]), strict=True))
                readable = {i: image for i, image in pixels.items() if image is not None}
                if readable:
                    labels = torch.tensor([self.labels[i] for i in readable])
                    names = [str(self.paths[i]) for i in readable]
                    yield ImageBatch(torch.stack(list(readable.values())), labels, names)


def open_labelled(
    where: str, classes: tuple[str, ...], split: SplitName = "test", *, key: str = "DATA"
) -> ShardImages | FileImages:
    """Open images whose labels are indices into `classes`.

    Args:
        where: a dataset folder, some of its shards, or a folder with a sub-folder per class.
        split: split of a dataset folder, or of a folder with a sub-folder per split.
        key: name of `where` in error messages.

    Raises:
        ValueError: no images at `where`, or classes that are not in `classes`.
    """
    where = plain(where)
    folder, pattern = split_pattern(where)
    if is_url(where) or (pattern and where.endswith(".tar")) or Path(folder, MANIFEST).exists():
        opened = open_split(StreamConfig(url=where), split)
        if [*map(composed, opened.classes)] != [*map(composed, classes)]:
            raise ValueError(
                f"{key} {where} has the classes {_some(opened.classes)}, the student {_some(classes)}; pack the images "
                "again with the classes of the data set that the student was trained on (`pack ... --classes DATASET`)"
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
    num_outside = len(found.paths)
    left_out = (
        [f"left out: {num_outside} images outside class folders (first: {found.paths[0]})"]
        if num_outside
        else []
    )
    if any(name not in numbers for name in names.values()):
        first, name = next((folder, name) for folder, name in names.items() if name not in numbers)
        class_name = classes[known.position(name) or 0]
        left_out.append(
            "class folders with numeric names are read as indices of the student's classes, from 0: "
            f"{first.name} is {class_name}, ..."
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
    """Open image files and all images below folders, without labels.

    Raises:
        ValueError: a path that does not exist, or a folder without images.
    """
    paths: list[Path] = []
    all_found = ImageFiles()
    for given in map(plain, map(str, places)):
        if is_url(given):
            raise ValueError(
                f"{given}: images are read from this machine's disks; copy the file to a local disk first (`fourds "
                "evaluate` reads data sets at URLs)"
            )
        path = Path(given)
        if path.is_dir():
            found = find_images(path)
            found.check_open(remedy="")
            if not found.paths:
                raise ValueError(f"{path}: no images below it: {found.instead()}")
            paths += found.paths
            all_found.add(found)
        elif path.exists():
            paths.append(path)
        else:
            raise ValueError(f"{path}: no such file or folder")
    return FileImages(
        ", ".join(map(str, places)),
        paths,
        [UNLABELLED] * len(paths),
        not_looked_at=tuple(all_found.left_out()),
    )


def _spread(num: int, most: int) -> np.ndarray:
    return np.linspace(0, num - 1, most).round().astype(np.int64)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f", ... ({len(names)})" if len(names) > 8 else "")
