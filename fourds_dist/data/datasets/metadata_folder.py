"""A folder of images with a table of their labels, as Hugging Face's image folders have.

    photos/metadata.csv                  file_name,label; also metadata.jsonl and metadata.parquet
    photos/1.jpg
    photos/train/metadata.csv            a table in the folder of each split
    photos/train/1.jpg

Paths are relative to the table. The split is that of a column, or of the folder in the path. Without a column of
labels, the folder that holds an image is its class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.folder import ImageFile, files_domain, with_splits
from fourds_dist.data.datasets.list_file import deduced_classes, listed_files
from fourds_dist.data.datasets.rows import ListEntry, read_rows
from fourds_dist.data.files.image_files import find_images, images_in
from fourds_dist.data.files.progress import OnProgress
from fourds_dist.data.files.split_names import split_named, splits_of
from fourds_dist.data.format.class_list import ClassList
from fourds_dist.io.names import composed, shown

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Names of the tables."""


@dataclass(frozen=True)
class MetadataTable:
    """The rows of one table, with the labels and splits that follow from folders."""

    file: Path
    rows: tuple[ListEntry, ...]
    unread: tuple[str, ...]
    """Names of columns that are ignored."""


def metadata_files(root: Path) -> list[Path]:
    """Return the tables in a folder, or, if it has none, those in its sub-folders and in the sub-folders of `data`."""

    def tables(folder: Path) -> list[Path]:
        return [folder / name for name in NAMES if (folder / name).is_file()]

    if own := tables(root):
        return own
    folders = images_in(root)[1]
    if [composed(folder.name) for folder in folders] == ["data"]:
        return metadata_files(folders[0])
    return [file for folder in folders for file in tables(folder)]


def read_tables(root: Path) -> list[MetadataTable]:
    """Return the tables of a folder.

    Raises:
        ValueError: a table cannot be parsed, two tables are in one folder, or images are neither labelled by a column
            nor by a folder.
    """
    files = metadata_files(root)
    for one, other in pairwise(files):
        if one.parent == other.parent:
            raise ValueError(f"{one.parent} has {one.name} and {other.name}; remove one of the two tables")
    read = {file: read_rows(file, needs_labels=False) for file in files}
    folders = {
        (file, row.line): _folders(root, file, row.path)
        for file, entries in read.items()
        for row in entries.rows
    }
    tops = {parts[0] for parts in folders.values() if parts}
    splits = splits_of(tuple(tops)) if tops and all(map(split_named, tops)) and all(folders.values()) else {}
    tables = []
    for file, entries in read.items():
        rows = []
        for row in entries.rows:
            parts = folders[file, row.line]
            split = row.split or (splits[parts[0]] if splits else None)
            label = row.label
            if not entries.has_labels:
                inner = parts[1:] if splits else parts
                if not inner:
                    raise ValueError(
                        f"{file} has no column label, and {row.path} is in no class folder; add a column label to the "
                        "table, or move the images into a folder for each class"
                    )
                label = inner[-1]
            rows.append(replace(row, label=label, split=split))
        tables.append(MetadataTable(file, tuple(rows), entries.unread))
    return tables


def classes_of_tables(root: Path, tables: Sequence[MetadataTable]) -> ClassList:
    """Return the class list that follows from the labels of all tables."""
    where = tables[0].file if len(tables) == 1 else root
    return deduced_classes([row for table in tables for row in table.rows], where)


def metadata_folder(
    folder: str | Path,
    *,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    leave_out: str | Path | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 42,
    skip_bad: bool = False,
    decode: bool = False,
    num_threads: int = 2,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Domain:
    """Return a folder of images with tables as a domain; see `folder.image_folder` for the arguments.

    Images that no table lists are left out and counted in the remarks.

    Raises:
        ValueError: a table cannot be parsed or names images that do not exist, or images cannot be read.
    """
    root = Path(folder)
    tables = read_tables(root)
    known = (
        ClassList(tuple(map(composed, classes))) if classes is not None else classes_of_tables(root, tables)
    )
    files: list[ImageFile] = []
    for table in tables:
        listed, _ = listed_files(table.file, table.rows, table.file.parent, known, skip_bad=skip_bad)
        prefix = table.file.parent.relative_to(root)
        files += [replace(image, key=(prefix / image.key).as_posix()) for image in listed]
    if {image.part for image in files} - {None}:
        files = with_splits(files, val_fraction, test_fraction, seed)
    num_missing = sum(len(table.rows) for table in tables) - len(files)
    found = find_images(root, leave_out=None if leave_out is None else Path(leave_out))
    found.check_open(skip_bad=skip_bad)
    remarks = [*found.left_out(), *_remarks(found.paths, files, tables)]
    return files_domain(
        name or root.resolve().name,
        known.names,
        files,
        {"origin": f"image folder {root.resolve().name}", "missing": num_missing, "remarks": remarks},
        skip_bad=skip_bad,
        decode=decode,
        num_threads=num_threads,
        on_progress=on_progress,
    )


def _remarks(
    found: Sequence[Path], files: Sequence[ImageFile], tables: Sequence[MetadataTable]
) -> Iterator[str]:
    listed = {image.path for image in files}
    if others := [path for path in found if path not in listed]:
        yield f"left out: {len(others)} images that no table lists (first: {shown(others[0])})"
    if unread := dict.fromkeys(name for table in tables for name in table.unread):
        yield f"columns that were not read: {', '.join(unread)}"


def _folders(root: Path, file: Path, path: str) -> list[str]:
    """Return the names of the folders from the root to an image of a table, without `data` around all of them."""
    parts = [*file.parent.relative_to(root).parts, *Path(path.replace("\\", "/")).parts[:-1]]
    names = [composed(part) for part in parts if part != "."]
    return names[1:] if names[:1] == ["data"] else names
