"""A list of images and labels, one per line: plain lines, CSV, JSON lines or Parquet. Paths may contain spaces.

    photos/my dog.jpg<TAB>dog            the first tab or, without tabs, the last space is before the label
    photos/my dog.jpg<TAB>dog<TAB>test   a second tab is before a split, a third before a group
    photos/x.jpg<TAB>                    an empty label, nan or -1: unlabelled

    path,label,split                     CSV with commas, semicolons or tabs; cells that contain them are quoted. A
    "photos/a, b.jpg",dog,test           header names the columns path (or file, file_name, image), label (or class),
                                         split and group in any order; without a header the columns are in this order.
    {"file_name": "a.jpg", "label": 0}   JSON lines with the same names; also Parquet files with these columns

Paths are relative to the list, or to --root.

python -m fourds_dist.pack list photos.txt DEST
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.folder import ImageFile, files_domain, grouped, with_splits
from fourds_dist.data.datasets.rows import ListEntry, decoded, read_rows, read_text
from fourds_dist.data.decode.file_kinds import is_image
from fourds_dist.data.files.progress import OnProgress
from fourds_dist.data.format.class_list import ClassList, Label, deduced, number_of
from fourds_dist.data.format.manifest import MANIFEST, first_repeated, read_manifest
from fourds_dist.io.names import composed
from fourds_dist.io.storage import locate, translate_storage_errors

_ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp", ".tif", ".tiff", ".bmp")


def image_list(
    file: str | Path,
    *,
    root: str | Path | None = None,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    group: str | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 42,
    skip_bad: bool = False,
    decode: bool = False,
    num_threads: int = 2,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Domain:
    """Return a list file as a domain.

    Args:
        root: folder to which the paths are relative; None: the list's folder.
        name: name of the domain; None: the file's name without extension.
        classes: in label order. None: if all labels are numbers from 0, these are the classes; names are sorted.
        group: regular expression that finds the group of an image in its path; None: the list's group column, if any.
        val_fraction, test_fraction, seed: for splits that are missing in a list with other splits.
        skip_bad: leave out images that are missing or cannot be read, and count them in the notes.
        decode: check every image by decoding it whole, not only its header.

    Raises:
        ValueError: a line cannot be parsed (the message names file and line), labels look like ids or codes, or images
            are missing or cannot be read.
    """
    file = Path(file)
    if not file.is_file():
        raise ValueError(
            f"{file}: {'a folder' if file.is_dir() else 'no such file'}; give a file of lines 'path label'"
        )
    folder = file.parent if root is None else Path(root)
    if not folder.is_dir():
        raise ValueError(f"--root {folder}: {'a file' if folder.exists() else 'no such folder'}")
    read = read_rows(file)
    known = ClassList(classes) if classes is not None else deduced_classes(read.rows, file)
    files, paths = listed_files(file, read.rows, folder, known, skip_bad=skip_bad)
    num_missing = len(read.rows) - len(files)
    if group is not None:
        files = grouped(files, paths, group)
    splits = {image.part for image in files}
    if None not in splits and "train" in splits and len(splits) > 1:
        files = with_splits(files, val_fraction, test_fraction, seed)
    remarks = [f"columns that were not read: {', '.join(read.unread)}"] if read.unread else []
    return files_domain(
        name or file.stem,
        known.names,
        files,
        {"origin": f"list {file.name}", "missing": num_missing, "remarks": remarks},
        skip_bad=skip_bad,
        decode=decode,
        num_threads=num_threads,
        on_progress=on_progress,
    )


def read_classes(place: str | Path) -> tuple[str, ...]:
    """Read a class list: a text file with one name per line in label order, or the classes of a dataset folder.

    Empty lines are ignored.

    Args:
        place: path or URL of the text file, the dataset folder or its manifest.

    Raises:
        ValueError: the file does not exist, is not text, is empty, or has a name twice.
    """
    where = str(place)
    if "://" in where or Path(where).is_dir() or Path(where).name == MANIFEST:
        fs, path = locate(where)
        with translate_storage_errors(where):
            if fs.isdir(path) or where.endswith(f"/{MANIFEST}") or where == MANIFEST:
                return read_manifest(where.removesuffix(MANIFEST) or ".").classes
            try:
                text = decoded(fs.cat_file(path), where)  # pyright: ignore[reportArgumentType]
            except FileNotFoundError:
                raise ValueError(f"{where}: no such file") from None
    else:
        text = read_text(Path(where))
    names = [composed(line.strip()) for line in text.split("\n") if line.strip()]
    if not names:
        raise ValueError(f"{place} holds no classes; write one class name per line, in label order")
    if names[0].startswith(("{", "[")) and names[-1].endswith(("}", "]")) and len(names[0]) < 3:
        raise ValueError(f"{place} is JSON; write one class name per line, in label order")
    if repeated := first_repeated(names):
        raise ValueError(f"{place} names the class {repeated!r} twice; remove one")
    return tuple(names)


def listed_files(
    file: Path, rows: Sequence[ListEntry], folder: Path, known: ClassList, *, skip_bad: bool
) -> tuple[list[ImageFile], list[str]]:
    """Return (images, their paths as in the list) of the rows whose images exist.

    Args:
        file: the list, for messages.
        folder: folder to which the paths are relative.
        skip_bad: leave out images that do not exist, unless no image exists.

    Raises:
        ValueError: images do not exist, or labels are not in the class list.
    """
    labels = _named(rows, known, file)
    files: list[ImageFile] = []
    paths: list[str] = []
    missing: list[str] = []
    for row in rows:
        path = find_file(folder, row.path)
        if path is None:
            missing.append(f"line {row.line}: {row.path}")
            continue
        key = Path(row.path.replace("\\", "/")).with_suffix("").as_posix()
        files.append(ImageFile(path, key, labels[row.line], row.split, row.group))
        paths.append(row.path)
    if missing and (not skip_bad or not files):
        hint = _path_hint(file, folder, missing[0].partition(": ")[2])
        base = "the list" if folder == file.parent else folder
        raise ValueError(
            f"{file}: {len(missing)} of {len(rows)} images do not exist (paths are relative to {base}; first: "
            f"{missing[0]}); {hint}correct the list, or leave them out by --skip-bad"
        )
    return files, paths


def deduced_classes(rows: Sequence[ListEntry], file: Path) -> ClassList:
    """Deduce the class list from the labels of the list: numbers if all labels are numbers, else names."""
    given = [row.label for row in rows if row.label not in (None, "-1", -1)]
    if not given:
        raise ValueError(f"{file} has no labels; give the class list of the model by --classes FILE")
    numbers = [number_of(label) for label in given if label is not None]
    are_numbers = None not in numbers
    counts: Counter[Label] = Counter(
        number if are_numbers and number is not None else str(label)
        for label, number in zip(given, numbers, strict=True)
    )

    def example(label: Label) -> str:
        row = next(
            row for row in rows if row.label is not None and label in (number_of(row.label), row.label)
        )
        return f"line {row.line} ({row.path})"

    return ClassList(
        deduced(
            counts,
            num_unlabelled=len(rows) - len(given),
            where=str(file),
            remedy="give the column of the classes",
            example=example,
        )
    )


def _named(rows: Sequence[ListEntry], known: ClassList, file: Path) -> dict[int, str | None]:
    """Return line -> class name, or None for unlabelled images."""
    named: dict[int, str | None] = {}
    unknown: dict[str, None] = {}
    for row in rows:
        named[row.line] = None
        if row.label is None:
            continue
        position = known.position(row.label)
        if position is not None:
            named[row.line] = known.names[position]
        elif row.label not in (-1, "-1"):
            unknown[str(row.label)] = None
    if unknown:
        raise ValueError(
            f"{file} has labels that the class list lacks: {', '.join(sorted(unknown)[:8])}; the list begins with "
            f"{', '.join(known.names[:8])}"
        )
    return named


def find_file(folder: Path, path: str) -> Path | None:
    """Find the file of a row: also in the other Unicode form, with backslashes, or without its image extension."""
    endings = ("",) if is_image(path) else ("", *_ENDINGS)
    for spelled in dict.fromkeys((path, path.replace("\\", "/"))):
        for form in dict.fromkeys((spelled, *(unicodedata.normalize(f, spelled) for f in ("NFC", "NFD")))):
            for ending in endings:
                if (folder / f"{form}{ending}").is_file():
                    return folder / f"{form}{ending}"
    return None


def _path_hint(file: Path, folder: Path, path: str) -> str:
    """Remedy for missing images: the folder to which the first missing path is relative, or why it does not exist."""
    if re.match(r"[a-z][a-z0-9+.-]+://", path, re.IGNORECASE):
        return "they are URLs, but a list takes local files: download the images and list the files; else "
    for above in list(file.resolve().parents)[:4]:
        if above != folder.resolve() and find_file(above, path) is not None:
            return f"they are relative to {above}: give --root {above}; else "
    parts = path.replace("\\", "/").split("/")
    is_absolute = path.startswith("/") or re.match(r"[A-Za-z]:", path) is not None
    for depth in range(1, len(parts)):
        if is_absolute and find_file(folder, "/".join(parts[depth:])) is not None:
            begin = path[: len(path) - len("/".join(parts[depth:]))]
            return f"they begin with {begin!r}, a folder of another machine: remove it from each path; else "
    return ""
