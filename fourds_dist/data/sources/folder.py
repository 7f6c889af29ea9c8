"""A folder of images: one sub-folder per class, named as the class.

    photos/dog/1.jpg                         splits are drawn, class by class
    photos/train/dog/1.jpg, photos/test/...  splits that are there are kept; others are drawn from the training part
    photos/dog/train/1.jpg, photos/dog/...   likewise, with --layout CLASS/SPLIT
    photos/1.jpg                             without classes (unlabelled)

Splits may be spelled otherwise (Training, test_set, val2017). What can be read in two ways is refused; --layout says
what is meant. Equal images come to one split where splits are drawn, and so do images of one --group (a patient, a
part). Hidden files and what operating systems leave behind are no images.

python -m fourds_dist.pack folder photos/ DEST
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from fourds_dist.data.class_list import ClassList, in_order, refuse_doubtful
from fourds_dist.data.frames import frames_remark
from fourds_dist.data.image_files import DATASETS, ImageFiles, find_images
from fourds_dist.data.pack.doubles import equal_files, joined
from fourds_dist.data.pack.example import Example
from fourds_dist.data.pack.plan import OnProgress
from fourds_dist.data.sources.domain import Domain
from fourds_dist.data.sources.files import check_images
from fourds_dist.data.sources.folder_layout import ClassFolder, arrange, none_of
from fourds_dist.data.sources.splits import stratified
from fourds_dist.data.text import check_text, composed, shown


@dataclass(frozen=True)
class ImageFile:
    """One image on disk, and what is known of it."""

    path: Path
    key: str
    label: str | None
    part: str | None
    """The split that its place names."""
    group: str | None = None
    """Images of one group come to one split where splits are drawn."""


def image_folder(
    folder: str | Path,
    *,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    unlabelled: bool = False,
    layout: str | None = None,
    group: str | None = None,
    leave_out: str | Path | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 42,
    skip_bad: bool = False,
    decode: bool = False,
    num_threads: int = 2,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Domain:
    """A folder of images as a domain.

    Args:
        name: of the domain; None: the folder's.
        classes: in label order; None: the names of the class folders, sorted.
        unlabelled: take all images below the folder, wherever they lie, as without labels; needs `classes`.
        layout: one of `folder_layout.LAYOUTS`; None: by the names of all sub-folders together.
        group: a regular expression that finds an image's group in its path below the folder, as `grouped` says.
        leave_out: a folder that is not looked into, wherever it lies: where the images are going to.
        val_fraction, test_fraction, seed: for splits that the folder does not name.
        skip_bad: leave out images and folders that cannot be read, and count them in the notes.
        decode: decode every image to see whether it can be read, not just its header.

    Raises:
        ValueError: no such folder or no images, images outside class folders, sub-folders that can be read as classes
            and as splits, a class that is not in `classes`, files or folders that cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(
            f"{folder}: {'a file' if root.exists() else 'no such folder'}; give a folder of images"
        )
    for what, text in ((f"the folder {shown(root)}", root.resolve().name), ("the data set", name or "")):
        check_text(text, what)
    away = None if leave_out is None else Path(leave_out)
    if classes is not None:
        classes = tuple(map(composed, classes))
    if unlabelled:
        if classes is None:
            raise ValueError(
                "unlabelled images need a class list (--classes): it is what the model is trained to tell"
            )
        found = find_images(root, leave_out=away)
        files = [ImageFile(path, _key(path, root), None, None) for path in found.paths]
        remarks: list[str] = []
    else:
        files, found, remarks = _by_class(root, classes, layout, away)
    found.check_open(skip_bad=skip_bad)
    if not files:
        what = "images" if unlabelled else f"class folders with images; expected {root}/CLASS/IMAGE.jpg"
        raise ValueError(f"{root} has no {what}: {found.instead()}")
    if group is not None:
        files = grouped(files, [file.path.relative_to(root).as_posix() for file in files], group)
    present = {file.label for file in files if file.label is not None}
    if classes is None:
        refuse_doubtful(present, str(folder), "the class folders ")
    known = ClassList(classes if classes is not None else in_order(present))
    meant = {label: known.position(label) for label in present}
    if unknown := in_order(label for label, position in meant.items() if position is None):
        raise ValueError(
            f"{folder} has folders that the class list lacks: {', '.join(unknown[:8])}; the list begins with "
            f"{', '.join(known.names[:8])}"
        )
    named = {label: known.names[position] for label, position in meant.items() if position is not None}
    if by_place := [label for label in in_order(named) if known.named(label) is None]:
        remarks.append(
            f"class folders named by numbers are read as places in the class list, from 0: {by_place[0]} is "
            f"{named[by_place[0]]}, ..."
        )
    files = [replace(file, label=file.label and named[file.label]) for file in files]
    files = with_splits(files, val_fraction, test_fraction, seed)
    return files_domain(
        name or root.resolve().name,
        known.names,
        files,
        {
            "origin": f"image folder {root.resolve().name}",
            "other files": dict(sorted(found.others.items())),
            "remarks": [*found.left_out(), *remarks],
        },
        skip_bad=skip_bad,
        decode=decode,
        num_threads=num_threads,
        on_progress=on_progress,
    )


def group_expression(pattern: str) -> re.Pattern[str]:
    """What `grouped` looks for.

    Raises:
        ValueError: no regular expression.
    """
    try:
        return re.compile(composed(pattern))
    except re.error as error:
        raise ValueError(f"--group '{pattern}' is no regular expression: {error}") from None


def grouped(files: Sequence[ImageFile], paths: Sequence[str], pattern: str) -> list[ImageFile]:
    """The files with their groups: what a regular expression finds in each path.

    Args:
        paths: of the files, as the expression is to see them.
        pattern: its groups in parentheses together are the image's group; without any, all that it finds is.

    Raises:
        ValueError: no regular expression, or one that finds nothing in a path.
    """
    expression = group_expression(pattern)
    made, lacking = [], []
    for file, path in zip(files, paths, strict=True):
        match = expression.search(composed(path))
        found = [part or "" for part in (match.groups() or (match[0],))] if match else []
        if not any(found):
            lacking.append(path)
        made.append(replace(file, group="\x1f".join(found)))
    if lacking:
        raise ValueError(
            f"--group '{pattern}' finds no group in {len(lacking)} of {len(files)} paths (first: {shown(lacking[0])})"
        )
    return made


def files_domain(
    name: str,
    classes: tuple[str, ...],
    files: Sequence[ImageFile],
    notes: dict[str, object],
    *,
    skip_bad: bool,
    decode: bool,
    num_threads: int,
    on_progress: OnProgress,
) -> Domain:
    """A domain of files that are checked now and read when they are written; what is left out is in its notes.

    Raises:
        ValueError: files that cannot be read.
    """
    several: list[Path] = []
    extensions = check_images(
        [file.path for file in files],
        several=several,
        skip_bad=skip_bad,
        decode=decode,
        num_threads=num_threads,
        on_progress=on_progress,
    )
    good = [
        (file, extension) for file, extension in zip(files, extensions, strict=True) if extension is not None
    ]

    def produce() -> Iterator[Example]:
        for file, extension in good:
            yield Example(file.key, file.path, extension, file.label, file.part, file.group)

    notes = notes | {"unreadable": len(files) - len(good)}
    if several:
        told_frames = frames_remark(len(several), shown(several[0]))
        notes["remarks"] = [*cast("list[str]", notes.get("remarks", [])), *told_frames]
    return Domain(name, classes, produce, notes=notes)


def _by_class(
    root: Path, classes: Sequence[str] | None, layout: str | None, leave_out: Path | None
) -> tuple[list[ImageFile], ImageFiles, list[str]]:
    """(files, what lies there, remarks)."""
    arranged = arrange(root, classes=classes, layout=layout, leave_out=leave_out)
    files: list[ImageFile] = []
    every = arranged.beside
    empty: list[tuple[ClassFolder, ImageFiles]] = []
    for folder in arranged.folders:
        found = find_images(folder.path, leave_out=leave_out)
        files += [
            ImageFile(path, _key(path, folder.base), folder.label, folder.split) for path in found.paths
        ]
        every.add(found)
        if not found.paths and not found.closed and not _is_around_datasets(found):
            empty.append((folder, found))
    if classes is None:
        _refuse_other_classes(files, root)
    present = {*(file.label for file in files), *(classes or ())}
    for folder, found in empty:
        # With a class list, or in a layout of splits, a class may be without images in one place.
        if folder.label not in present or (found.unread and folder.split is None):
            raise ValueError(none_of(folder.path, found))
    if gone := sorted({folder.label for folder in arranged.folders} - present):
        arranged.remarks.append(
            f"not in the class list, as none of their images can be read: {', '.join(gone)}"
        )
    return files, every, arranged.remarks


def _refuse_other_classes(files: Sequence[ImageFile], root: Path) -> None:
    """Refuse a split none of whose class folders are in the training split: they are no classes (test/images/1.jpg)."""
    by_split: dict[str | None, dict[str | None, None]] = {}
    for file in files:
        by_split.setdefault(file.part, {})[file.label] = None
    training = by_split.get("train", {})
    for split, labels in by_split.items():
        if len(training) > 1 and not set(labels) & set(training):
            names = [", ".join(str(name) for name in list(each)[:4]) for each in (labels, training)]
            raise ValueError(
                f"{root}: the folders of {split} ({names[0]}) are other ones than those of train ({names[1]}), so its "
                "images have no label of the training classes; sort them into the folders of train, list them with "
                "their labels (`pack list`), or move the split away"
            )


def _is_around_datasets(found: ImageFiles) -> bool:
    """Whether a folder holds nothing but dataset folders, as where DEST lies below SRC."""
    return bool(found.left_folders[DATASETS]) and not found.others and not found.unread


def _key(path: Path, root: Path) -> str:
    return "-".join(path.relative_to(root).with_suffix("").parts)


def with_splits(
    files: list[ImageFile], val_fraction: float, test_fraction: float, seed: int
) -> list[ImageFile]:
    """Splits that the folder lacks, drawn from its training part; nothing where it names none or all."""
    named = {file.part for file in files}
    if named == {None}:
        return files
    if "train" not in named:
        raise ValueError(f"there is no training split, but {', '.join(sorted(filter(None, named)))}")
    training = [file for file in files if file.part == "train"]
    drawn = iter(
        stratified(
            [file.label for file in training],
            val_fraction=0 if "val" in named else val_fraction,
            test_fraction=0 if "test" in named else test_fraction,
            seed=seed,
            groups=joined([f.group for f in training], equal_files([f.path for f in training])),
        )
    )
    return [replace(file, part=next(drawn)) if file.part == "train" else file for file in files]
