"""A list of images and labels, one a line: plain lines, CSV or JSON lines. Paths may hold spaces.

    photos/my dog.jpg<TAB>dog            the last space, or the first tab, comes before the label
    photos/my dog.jpg<TAB>dog<TAB>test   a second tab before a split, a third before a group
    photos/x.jpg<TAB>                    nothing, nan or -1: unlabelled

    path,label,split                     CSV with commas, semicolons or tabs; quotes where a cell holds them. A header
    "photos/a, b.jpg",dog,test           names the columns path (or file, file_name, image), label (or class), split and
                                         group in any order; without one the columns are in this order.
    {"file_name": "a.jpg", "label": 0}   JSON lines with the same names

Paths are relative to the list, or to --root.

python -m fourds_dist.pack list photos.txt DEST
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fourds_dist.data.class_list import ClassList, Label, deduced, number_of
from fourds_dist.data.file_kinds import is_image
from fourds_dist.data.manifest import MANIFEST, first_repeated, read_manifest
from fourds_dist.data.pack.plan import OnProgress
from fourds_dist.data.sources.domain import Domain
from fourds_dist.data.sources.folder import ImageFile, files_domain, grouped, with_splits
from fourds_dist.data.sources.rows import Row, decoded, read_rows, read_text
from fourds_dist.data.text import composed
from fourds_dist.storage import explained, locate

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
    """A list file as a domain.

    Args:
        root: folder that the paths are relative to; None: the list's.
        name: of the domain; None: the file's, without extension.
        classes: in label order. None: labels that are all numbers from 0 stand for themselves; names are sorted.
        group: a regular expression that finds an image's group in its path; None: the list's column, if it has one.
        val_fraction, test_fraction, seed: for splits that the list lacks where it names others.
        skip_bad: leave out images that are missing or cannot be read, and count them in the notes.
        decode: decode every image to see whether it can be read, not just its header.

    Raises:
        ValueError: naming file and line of what cannot be understood, labels that look like ids or codes, and images
            that cannot be read.
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
    known = ClassList(classes) if classes is not None else _deduced(read.rows, file)
    labels = _named(read.rows, known, file)
    files: list[ImageFile] = []
    paths: list[str] = []
    missing: list[str] = []
    for row in read.rows:
        path = _there(folder, row.path)
        if path is None:
            missing.append(f"line {row.line}: {row.path}")
            continue
        key = Path(row.path.replace("\\", "/")).with_suffix("").as_posix()
        files.append(ImageFile(path, key, labels[row.line], row.split, row.group))
        paths.append(row.path)
    if missing and (not skip_bad or not files):
        elsewhere = _elsewhere(file, folder, missing[0].partition(": ")[2])
        raise ValueError(
            f"{file}: {len(missing)} of {len(read.rows)} images are not there (paths are relative to "
            f"{'the list' if root is None else folder}; first: {missing[0]}); {elsewhere}"
            "correct it, or leave them out by --skip-bad"
        )
    if group is not None:
        files = grouped(files, paths, group)
    named = {image.part for image in files}
    if None not in named and "train" in named and len(named) > 1:
        files = with_splits(files, val_fraction, test_fraction, seed)
    remarks = [f"columns that were not read: {', '.join(read.unread)}"] if read.unread else []
    return files_domain(
        name or file.stem,
        known.names,
        files,
        {"origin": f"list {file.name}", "missing": len(missing), "remarks": remarks},
        skip_bad=skip_bad,
        decode=decode,
        num_threads=num_threads,
        on_progress=on_progress,
    )


def read_classes(place: str | Path) -> tuple[str, ...]:
    """A class list: a text file with a name a line, in label order, whose empty lines do not count; or a dataset
    folder (or its manifest), whose classes are taken. A path or URL.

    Raises:
        ValueError: nothing there, not text, empty, or a name twice.
    """
    where = str(place)
    if "://" in where or Path(where).is_dir() or Path(where).name == MANIFEST:
        fs, path = locate(where)
        with explained(where):
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
        raise ValueError(f"{place} holds no classes; it takes a name a line, in label order")
    if names[0].startswith(("{", "[")) and names[-1].endswith(("}", "]")) and len(names[0]) < 3:
        raise ValueError(f"{place} is JSON; a class list takes a name a line, in label order")
    if repeated := first_repeated(names):
        raise ValueError(f"{place} names the class {repeated!r} twice")
    return tuple(names)


def _deduced(rows: Sequence[Row], file: Path) -> ClassList:
    """The class list that the labels of the list make: numbers, where all of them are."""
    told = [row.label for row in rows if row.label not in (None, "-1", -1)]
    if not told:
        raise ValueError(
            f"{file} has no labels; a class list (--classes) says what the model is trained to tell"
        )
    numbers = [number_of(label) for label in told if label is not None]
    are_numbers = None not in numbers
    counts: Counter[Label] = Counter(
        number if are_numbers and number is not None else str(label)
        for label, number in zip(told, numbers, strict=True)
    )

    def example(label: Label) -> str:
        row = next(
            row for row in rows if row.label is not None and label in (number_of(row.label), row.label)
        )
        return f"line {row.line} ({row.path})"

    return ClassList(
        deduced(
            counts,
            num_unlabelled=len(rows) - len(told),
            where=str(file),
            remedy="give the column of the classes",
            example=example,
        )
    )


def _named(rows: Sequence[Row], known: ClassList, file: Path) -> dict[int, str | None]:
    """Line -> class name, None for unlabelled images."""
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


def _there(folder: Path, path: str) -> Path | None:
    """The file of a row: as it is spelled, in the other Unicode form, with the slashes of Windows, or for a name
    without an extension with that of an image."""
    endings = ("",) if is_image(path) else ("", *_ENDINGS)
    for spelled in dict.fromkeys((path, path.replace("\\", "/"))):
        for form in dict.fromkeys((spelled, *(unicodedata.normalize(f, spelled) for f in ("NFC", "NFD")))):
            for ending in endings:
                if (folder / f"{form}{ending}").is_file():
                    return folder / f"{form}{ending}"
    return None


def _elsewhere(file: Path, folder: Path, path: str) -> str:
    """Where the images are, if a folder above the list holds the first that is missing, or why it cannot be there."""
    if re.match(r"[a-z][a-z0-9+.-]+://", path, re.IGNORECASE):
        return "they are URLs, and a list names files of this machine: download them and list these; or "
    for above in list(file.resolve().parents)[:4]:
        if above != folder.resolve() and _there(above, path) is not None:
            return f"they are relative to {above}: give --root {above}; else "
    parts = path.replace("\\", "/").split("/")
    is_absolute = path.startswith("/") or re.match(r"[A-Za-z]:", path) is not None
    for depth in range(1, len(parts)):
        if is_absolute and _there(folder, "/".join(parts[depth:])) is not None:
            begin = path[: len(path) - len("/".join(parts[depth:]))]
            return f"they begin with {begin!r}, a folder of another machine: take that away from each path; else "
    return ""
