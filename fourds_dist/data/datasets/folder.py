"""A folder of images with one sub-folder for each class, named after the class.

    photos/dog/1.jpg                         splits are drawn class by class
    photos/train/dog/1.jpg, photos/test/...  given splits are used; missing ones are drawn from the training split
    photos/dog/train/1.jpg, photos/dog/...   the same, with --layout CLASS/SPLIT
    photos/1.jpg, photos/test/2.jpg          unlabelled images, with --unlabelled; folders of splits are optional

Other spellings of splits (Training, test_set, val2017) are recognised. An ambiguous folder is refused, and --layout
resolves the ambiguity. Drawn splits keep equal images, and images of one --group (a patient, a part), in one split.
Hidden files and system files are ignored.

python -m fourds_dist.pack folder photos/ DEST
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.example import Example
from fourds_dist.data.datasets.files import check_images
from fourds_dist.data.datasets.folder_layout import ClassFolder, arrange, none_of, sub_folders_remark
from fourds_dist.data.datasets.splits import stratified
from fourds_dist.data.files.duplicates import equal_files, joined
from fourds_dist.data.files.frames import frames_remark
from fourds_dist.data.files.image_files import DATASETS, ImageFiles, find_images
from fourds_dist.data.files.progress import OnProgress
from fourds_dist.data.files.split_names import split_named, splits_of
from fourds_dist.data.format.class_list import ClassList, in_order, refuse_doubtful
from fourds_dist.io.names import check_text, composed, shown


@dataclass(frozen=True)
class ImageFile:
    """One image on disk, with its label, split and group if known."""

    path: Path
    key: str
    label: str | None
    part: str | None
    """The split in the image's path or list; None: no split is given."""
    group: str | None = None
    """Images of one group are in one split if splits are drawn."""


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
    """Return a folder of images as a domain.

    Args:
        name: name of the domain; None: the folder's name.
        classes: in label order; None: the names of the class folders, sorted.
        unlabelled: use all images below the folder as unlabelled; needs `classes`. Folders in it are splits if all are
            named after splits and hold all images.
        layout: one of `folder_layout.LAYOUTS`; None: deduced from the names of all sub-folders.
        group: regular expression that finds the group of an image in its path below the folder; see `grouped`.
        leave_out: a folder to ignore, the destination of the dataset.
        val_fraction, test_fraction, seed: for splits that the folder does not have.
        skip_bad: leave out images and folders that cannot be read, and count them in the notes.
        decode: check every image by decoding it whole, not only its header.

    Raises:
        ValueError: the folder does not exist or has no images, images are outside class folders, sub-folders may be
            classes or splits, a class is not in `classes`, or files or folders cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(
            f"{folder}: {'a file' if root.exists() else 'no such folder'}; give a folder of images"
        )
    for what, text in ((f"the folder {shown(root)}", root.resolve().name), ("the data set", name or "")):
        check_text(text, what)
    ignored = None if leave_out is None else Path(leave_out)
    if classes is not None:
        classes = tuple(map(composed, classes))
    if unlabelled:
        if classes is None:
            raise ValueError("unlabelled images need the class list of the model; give --classes FILE")
        found = find_images(root, leave_out=ignored)
        parts = split_folders(found.paths, root)
        files = [
            ImageFile(path, _key(path, root), None, parts.get(path.relative_to(root).parts[0]))
            for path in found.paths
        ]
        remarks: list[str] = []
    else:
        files, found, remarks = _by_class(root, classes, layout, ignored)
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
    positions = {label: known.position(label) for label in present}
    if unknown := in_order(label for label, position in positions.items() if position is None):
        raise ValueError(
            f"{folder} has folders that the class list lacks: {', '.join(unknown[:8])}; the list begins with "
            f"{', '.join(known.names[:8])}"
        )
    class_of = {label: known.names[position] for label, position in positions.items() if position is not None}
    if numbered := [label for label in in_order(class_of) if known.named(label) is None]:
        remarks.append(
            "class folders named by numbers are read as positions in the class list, from 0: "
            f"{numbered[0]} is {class_of[numbered[0]]}, ..."
        )
    files = [replace(file, label=file.label and class_of[file.label]) for file in files]
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
    """Compile the regular expression of --group.

    Raises:
        ValueError: the pattern is no regular expression.
    """
    try:
        return re.compile(composed(pattern))
    except re.error as error:
        raise ValueError(f"--group '{pattern}' is no regular expression: {error}") from None


def grouped(files: Sequence[ImageFile], paths: Sequence[str], pattern: str) -> list[ImageFile]:
    """Return the files with the groups that a regular expression finds in their paths.

    Args:
        paths: path of each file, as searched by the expression.
        pattern: the capture groups of the match together are the image's group; without capture groups, the whole
            match.

    Raises:
        ValueError: the pattern is no regular expression, or does not match a path.
    """
    expression = group_expression(pattern)
    with_groups, without_match = [], []
    for file, path in zip(files, paths, strict=True):
        match = expression.search(composed(path))
        found = [part or "" for part in (match.groups() or (match[0],))] if match else []
        if not any(found):
            without_match.append(path)
        with_groups.append(replace(file, group="\x1f".join(found)))
    if without_match:
        raise ValueError(
            f"--group '{pattern}' finds no group in {len(without_match)} of {len(files)} paths "
            f"(first: {shown(without_match[0])})"
        )
    return with_groups


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
    """Return a domain of files, checked now and read when shards are written; the notes count files left out.

    Raises:
        ValueError: files cannot be read.
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
        on_frames = frames_remark(len(several), shown(several[0]))
        notes["remarks"] = [*cast("list[str]", notes.get("remarks", [])), *on_frames]
    return Domain(name, classes, produce, notes, len(good))


def _by_class(
    root: Path, classes: Sequence[str] | None, layout: str | None, leave_out: Path | None
) -> tuple[list[ImageFile], ImageFiles, list[str]]:
    """Return (files of all class folders, all files and folders found, remarks)."""
    arranged = arrange(root, classes=classes, layout=layout, leave_out=leave_out)
    files: list[ImageFile] = []
    total = arranged.beside
    empty: list[tuple[ClassFolder, ImageFiles]] = []
    below: dict[str, set[str]] = {}
    for folder in arranged.folders:
        found = find_images(folder.path, leave_out=leave_out)
        files += [
            ImageFile(path, _key(path, folder.base), folder.label, folder.split) for path in found.paths
        ]
        total.add(found)
        below.setdefault(folder.label, set()).update(
            path.relative_to(folder.path).parts[0] for path in found.paths
        )
        if not found.paths and not found.closed and not _holds_only_datasets(found):
            empty.append((folder, found))
    if classes is None:
        _refuse_other_classes(files, root)
    present = {*(file.label for file in files), *(classes or ())}
    for folder, found in empty:
        # With a class list, or in a layout of splits, a class may lack images in one folder.
        if folder.label not in present or (found.unread and folder.split is None):
            raise ValueError(none_of(folder.path, found))
    if gone := sorted({folder.label for folder in arranged.folders} - present):
        arranged.remarks.append(
            f"class folders without a readable image, which are not classes: {', '.join(gone)}"
        )
    if classes is None and layout is None and not arranged.remarks:
        arranged.remarks += sub_folders_remark(below, {file.path.name for file in files})
    return files, total, arranged.remarks


def _refuse_other_classes(files: Sequence[ImageFile], root: Path) -> None:
    """Refuse a split whose folders all differ from the training classes, such as test/images/1.jpg."""
    by_split: dict[str | None, dict[str | None, None]] = {}
    for file in files:
        by_split.setdefault(file.part, {})[file.label] = None
    training = by_split.get("train", {})
    for split, labels in by_split.items():
        if len(training) > 1 and not set(labels) & set(training):
            names = [", ".join(str(name) for name in list(each)[:4]) for each in (labels, training)]
            raise ValueError(
                f"{root}: the folders of {split} ({names[0]}) differ from the folders of train ({names[1]}), so the "
                f"images of {split} have no label of a training class; sort them into folders named as in train, list "
                "them with their labels (`pack list`), or move the split to another folder"
            )


def _holds_only_datasets(found: ImageFiles) -> bool:
    """Whether a folder holds only dataset folders, e.g. if DEST is below SRC."""
    return bool(found.left_folders[DATASETS]) and not found.others and not found.unread


def split_folders(paths: Sequence[Path], root: Path) -> dict[str, str | None]:
    """Return name -> split of the folders in `root`, if all images are in folders named after splits; else empty.

    Without a training split the folders are no splits, as in a folder of test images.
    """
    inside = {path.relative_to(root).parts for path in paths}
    names = {parts[0] for parts in inside}
    if any(len(parts) == 1 for parts in inside) or not all(map(split_named, names)):
        return {}
    splits = splits_of(list(names))
    return splits if "train" in splits.values() else {}


def _key(path: Path, root: Path) -> str:
    return "-".join(path.relative_to(root).with_suffix("").parts)


def with_splits(
    files: list[ImageFile], val_fraction: float, test_fraction: float, seed: int
) -> list[ImageFile]:
    """Return the files with missing splits drawn from the training split; files without any given split do not change.

    Raises:
        ValueError: splits are given, but no training split.
    """
    given = {file.part for file in files}
    if given == {None}:
        return files
    if "train" not in given:
        splits = ", ".join(sorted(filter(None, given)))
        raise ValueError(
            f"there is no training split, only {splits}; rename the folder of training images to train"
        )
    training = [file for file in files if file.part == "train"]
    drawn = iter(
        stratified(
            [file.label for file in training],
            val_fraction=0 if "val" in given else val_fraction,
            test_fraction=0 if "test" in given else test_fraction,
            seed=seed,
            groups=joined([f.group for f in training], equal_files([f.path for f in training])),
        )
    )
    return [replace(file, part=next(drawn)) if file.part == "train" else file for file in files]
