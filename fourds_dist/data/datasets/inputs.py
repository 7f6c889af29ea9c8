"""Images that a run takes as they are: a folder, a list, or a folder with a table, found at the path of a data set.

    photos/                            a folder of images (`folder`), or with metadata.csv or .jsonl (`metadata_folder`)
    photos.csv, photos.parquet, ...    a list (`list_file`)

Everything else (dataset folders, tars, URLs of stores) is read as shards.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.folder import image_folder, split_folders
from fourds_dist.data.datasets.folder_layout import arrange
from fourds_dist.data.datasets.list_file import deduced_classes, find_file, image_list
from fourds_dist.data.datasets.metadata_folder import (
    classes_of_tables,
    metadata_files,
    metadata_folder,
    read_tables,
)
from fourds_dist.data.datasets.parquet_rows import ENDINGS
from fourds_dist.data.datasets.rows import ListEntry, read_rows
from fourds_dist.data.files.image_files import find_images, images_in
from fourds_dist.data.files.progress import OnProgress
from fourds_dist.data.files.split_names import split_named
from fourds_dist.data.format.class_list import ClassList, in_order, refuse_doubtful
from fourds_dist.data.format.manifest import MANIFEST
from fourds_dist.io.storage import is_url, plain
from fourds_dist.io.url import split_pattern

_LISTS = (".txt", ".lst", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", *ENDINGS)
"""Endings of the names of lists."""
_FORMAT = 1
"""Part of every fingerprint; another number packs all images again."""
_DRAWN_TRAIN = 0.7
"""Share of training images where packing divides the images."""


class InputKind(enum.Enum):
    """Kind of images that are no shards."""

    FOLDER = enum.auto()
    LIST = enum.auto()
    METADATA = enum.auto()


@dataclass(frozen=True)
class ImageInput:
    """Images at a local path, with what follows from names alone; no image is read.

    Args:
        files: image files, without those that a list names and that do not exist.
        labels: labels of the images, in no order.
        empty: further class folders, which hold no image.
        classes: the class list that these labels give.
        num_train: number of training images, estimated where packing divides the images.
        is_unlabelled: no image has a label, and the class list is that of another domain.
    """

    kind: InputKind
    path: Path
    files: tuple[Path, ...]
    labels: frozenset[str | int]
    empty: frozenset[str]
    classes: tuple[str, ...]
    num_train: int
    is_unlabelled: bool = False

    def fingerprint(self, classes: Sequence[str]) -> str:
        """Return 12 hex digits of a hash of the path, the class list, and the name, size and time of every file."""
        tables = [self.path] if self.kind is InputKind.LIST else metadata_files(self.path)
        digest = hashlib.sha256(json.dumps([_FORMAT, str(self.path), list(classes)]).encode())
        for file in sorted({*self.files, *(tables if self.kind is not InputKind.FOLDER else ())}):
            try:
                status = file.stat()
                line = f"\n{file}\t{status.st_size}\t{status.st_mtime_ns}"
            except OSError:  # packing refuses the file, or leaves it out
                line = f"\n{file}"
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:12]

    def sides(self, most: int) -> list[int]:
        """Return the shorter sides, in pixels, of at most `most` images that can be read, evenly spaced."""
        sides = []
        for number in range(min(most, len(self.files))):
            try:
                with Image.open(self.files[number * len(self.files) // min(most, len(self.files))]) as image:
                    sides.append(min(image.size))
            except Exception:
                continue
        return sides

    def domain(
        self,
        name: str,
        classes: Sequence[str],
        *,
        leave_out: Path | None,
        num_threads: int,
        on_progress: OnProgress,
    ) -> Domain:
        """Return the domain to pack, after a check of every image's header.

        Raises:
            ValueError: images are missing or cannot be read; see `image_folder`, `image_list`, `metadata_folder`.
        """
        # A class list that equals the deduced one is not given, so that all checks of names apply.
        given = None if tuple(classes) == self.classes and not self.is_unlabelled else tuple(classes)
        options = {"name": name, "classes": given, "num_threads": num_threads, "on_progress": on_progress}
        match self.kind:
            case InputKind.FOLDER:
                return image_folder(self.path, leave_out=leave_out, unlabelled=self.is_unlabelled, **options)
            case InputKind.METADATA:
                return metadata_folder(self.path, leave_out=leave_out, **options)
            case InputKind.LIST:
                return image_list(self.path, **options)


def kind_of_input(url: str) -> InputKind | None:
    """Return the kind of images at a path; None: shards, a store, or nothing.

    Raises:
        ValueError: a file that is neither a list nor a shard.
    """
    folder, pattern = split_pattern(plain(url))
    path = Path(plain(url))
    if is_url(plain(url)) or (pattern and not path.exists()) or (Path(folder) / MANIFEST).exists():
        return None
    if path.is_file():
        if path.suffix.lower() in _LISTS:
            return None if path.name == MANIFEST else InputKind.LIST
        if path.suffix.lower() == ".tar":
            return None
        raise ValueError(
            f"{url} is a file of another kind; give a folder with a sub-folder of images per class, a list "
            f"({', '.join(_LISTS)}), or a dataset folder"
        )
    if not path.is_dir() or any(path.glob("*.tar")) or (path / "packing.json").exists():
        return None
    return InputKind.METADATA if metadata_files(path) else InputKind.FOLDER


def lacks_labels(url: str, *, leave_out: Path | None = None) -> bool:
    """Return whether images at a path have no labels at all, so that their class list is that of another domain.

    This is a folder with images and no class folders (images in the folder itself, or in folders of splits), or a list
    whose labels are all empty.

    Args:
        leave_out: a folder to ignore.
    """
    kind, path = kind_of_input(url), Path(plain(url))
    if kind is InputKind.LIST:
        return not any(_is_label(row.label) for row in read_rows(path).rows)
    if kind is not InputKind.FOLDER:
        return False
    found, folders = images_in(path, leave_out=leave_out)
    if found.paths:
        return not any(find_images(folder, leave_out=leave_out).paths for folder in folders)
    inside = [images_in(folder, leave_out=leave_out) for folder in folders]
    return (
        bool(folders)
        and all(split_named(folder.name) for folder in folders)
        and all(images.paths for images, _ in inside)
        and not any(find_images(below, leave_out=leave_out).paths for _, each in inside for below in each)
    )


def open_input(
    url: str, *, classes: Sequence[str] | None = None, leave_out: Path | None = None
) -> ImageInput | None:
    """Return the images at a path by their names; None: the path holds shards, or nothing.

    Args:
        classes: class list of the other domain, if that consists of shards, or if these images lack labels; names of
            splits among them are classes.
        leave_out: a folder to ignore.

    Raises:
        ValueError: no images, labels that cannot be read, or an ambiguous folder.
    """
    kind = kind_of_input(url)
    if kind is None:
        return None
    path = Path(plain(url))
    if classes is not None and lacks_labels(url, leave_out=leave_out):
        return _without_labels(kind, path, tuple(classes), leave_out)
    match kind:
        case InputKind.FOLDER:
            return _of_folder(path, classes, leave_out)
        case InputKind.METADATA:
            tables = read_tables(path)
            rows = [(table.file.parent, row) for table in tables for row in table.rows]
            return _of_rows(kind, path, rows, classes_of_tables(path, tables).names)
        case InputKind.LIST:
            entries = read_rows(path).rows
            return _of_rows(
                kind, path, [(path.parent, row) for row in entries], deduced_classes(entries, path).names
            )


def class_difference(one: str, classes: ClassList, found: ImageInput) -> str | None:
    """Return how the classes of `found` differ from those of the domain at `one`, and the remedy; None: equal."""
    positions = {label: classes.position(label) for label in {*found.labels, *found.empty}}
    unknown = in_order(str(label) for label, position in positions.items() if position is None)
    missing = [name for number, name in enumerate(classes.names) if number not in positions.values()]
    if not unknown and (not missing or found.classes == classes.names):  # numbers may leave gaps in both
        return None
    differing = [f"only {found.path} has {_some(unknown)}"] if unknown else []
    differing += [f"only {one} has {_some(missing)}"] if missing else []
    remedies = ["rename the classes that mean the same, or remove those of one domain"]
    if missing and found.kind is InputKind.FOLDER:
        remedies.append(
            f"an empty folder for a class in {found.path} accepts that the class has no images there"
        )
    return (
        f"both domains need the same classes, but {' and '.join(differing)} ({one} has {len(classes)} classes, "
        f"{found.path} has {len(positions)}); {'; '.join(remedies)}"
    )


def _of_folder(path: Path, classes: Sequence[str] | None, leave_out: Path | None) -> ImageInput:
    arranged = arrange(path, classes=classes, layout=None, leave_out=leave_out)
    files: list[Path] = []
    labels: set[str | int] = set()
    num_train, has_splits = 0, any(folder.split for folder in arranged.folders)
    for folder in arranged.folders:
        found = find_images(folder.path, leave_out=leave_out)
        files += found.paths
        labels |= {folder.label} if found.paths else set()
        num_train += len(found.paths) if folder.split == "train" else 0
        arranged.beside.add(found)
    if not files:
        arranged.beside.check_open()
        raise ValueError(
            f"{path} has no class folders with images; expected {path}/CLASS/IMAGE.jpg: {arranged.beside.instead()}"
        )
    names = {str(label) for label in labels}
    if classes is None:
        refuse_doubtful(names, str(path), "the class folders ")
    empty = frozenset(folder.label for folder in arranged.folders) - names
    return ImageInput(
        InputKind.FOLDER,
        path,
        tuple(files),
        frozenset(labels),
        empty,
        in_order(names),
        num_train if has_splits else round(_DRAWN_TRAIN * len(files)),
    )


def _without_labels(
    kind: InputKind, path: Path, classes: tuple[str, ...], leave_out: Path | None
) -> ImageInput:
    if kind is InputKind.LIST:
        rows = [(path.parent, row) for row in read_rows(path).rows]
        return replace(_of_rows(kind, path, rows, classes), is_unlabelled=True)
    found = find_images(path, leave_out=leave_out)
    num_train, parts = round(_DRAWN_TRAIN * len(found.paths)), split_folders(found.paths, path)
    if parts:
        num_train = sum(parts[file.relative_to(path).parts[0]] == "train" for file in found.paths)
    none = frozenset[str]()
    return ImageInput(kind, path, tuple(found.paths), none, none, classes, num_train, is_unlabelled=True)


def _of_rows(
    kind: InputKind, path: Path, rows: Iterable[tuple[Path, ListEntry]], classes: tuple[str, ...]
) -> ImageInput:
    rows = list(rows)
    files = [found for folder, row in rows if (found := find_file(folder, row.path)) is not None]
    labels = frozenset(row.label for _, row in rows if _is_label(row.label))
    num_train = sum(row.split == "train" for _, row in rows)
    has_splits = any(row.split for _, row in rows)
    return ImageInput(
        kind,
        path,
        tuple(files),
        frozenset(label for label in labels if label is not None),
        frozenset(),
        classes,
        num_train if has_splits else round(_DRAWN_TRAIN * len(rows)),
    )


def _is_label(label: str | int | None) -> bool:
    return label not in (None, -1, "-1")


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
