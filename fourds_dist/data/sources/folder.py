"""A folder of images: one sub-folder per class, named as the class.

    photos/dog/1.jpg                         splits are drawn, class by class
    photos/train/dog/1.jpg, photos/test/...  splits that are there are kept; others are drawn from the training part
    photos/1.jpg                             without classes (unlabelled)

python -m fourds_dist.pack folder photos/ DEST
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fourds_dist.data.pack.example import Example
from fourds_dist.data.pack.plan import OnProgress
from fourds_dist.data.sources.domain import Domain
from fourds_dist.data.sources.files import check_images, find_images, images_in
from fourds_dist.data.sources.splits import stratified

PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Name of a sub-folder that is a split, not a class -> the split."""


@dataclass(frozen=True)
class ImageFile:
    """One image on disk, and what is known of it."""

    path: Path
    key: str
    label: str | None
    part: str | None
    """The split that its place names."""


def image_folder(
    folder: str | Path,
    *,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    unlabelled: bool = False,
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
        val_fraction, test_fraction, seed: for splits that the folder does not name.
        skip_bad: leave out images that cannot be read, and count them in the notes.
        decode: decode every image to see whether it can be read, not just its header.

    Raises:
        ValueError: no such folder or no images, images outside class folders, a class that is not in `classes`, files
            that cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(
            f"{folder}: {'a file' if root.exists() else 'no such folder'}; give a folder of images"
        )
    if unlabelled:
        if classes is None:
            raise ValueError(
                "unlabelled images need a class list (--classes): it is what the model is trained to tell"
            )
        files, others = _flat(root)
    else:
        files, others = _by_class(root)
    present = {file.label for file in files if file.label is not None}
    if classes is not None and (unknown := sorted(present - set(classes))):
        raise ValueError(
            f"{folder} has folders that the class list lacks: {', '.join(unknown[:8])}; the list begins with "
            f"{', '.join(classes[:8])}"
        )
    files = _with_splits(files, val_fraction, test_fraction, seed)
    return files_domain(
        name or root.resolve().name,
        tuple(classes) if classes is not None else tuple(sorted(present)),
        files,
        {"origin": f"image folder {root.resolve().name}", "other files": dict(sorted(others.items()))},
        skip_bad=skip_bad,
        decode=decode,
        num_threads=num_threads,
        on_progress=on_progress,
    )


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
    extensions = check_images(
        [file.path for file in files],
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
            yield Example(file.key, file.path, extension, file.label, file.part)

    return Domain(name, classes, produce, notes=notes | {"unreadable": len(files) - len(good)})


def _flat(root: Path) -> tuple[list[ImageFile], Counter[str]]:
    found = find_images(root)
    if not found.paths:
        raise ValueError(f"{root}: no images below it")
    return [ImageFile(path, _key(path, root), None, None) for path in found.paths], found.others


def _by_class(root: Path) -> tuple[list[ImageFile], Counter[str]]:
    tops = _folders(root)
    split_tops = [top for top in tops if top.name.lower() in PARTS]
    if split_tops and len(split_tops) < len(tops):
        beside = ", ".join(top.name for top in tops if top not in split_tops)
        raise ValueError(
            f"{root} has folders of splits ({split_tops[0].name}) beside others ({beside[:100]}); it cannot have both"
        )
    files: list[ImageFile] = []
    others: Counter[str] = Counter()
    for place in [root, *split_tops]:
        direct = images_in(place)
        if direct.paths:
            raise ValueError(
                f"{place} holds {len(direct.paths)} images outside class folders (first: {direct.paths[0].name}); move "
                "them into one, or pack the folder with --unlabelled and --classes FILE"
            )
        others += direct.others
    for place in split_tops or [root]:
        part = PARTS[place.name.lower()] if split_tops else None
        for folder in _folders(place):
            found = find_images(folder)
            if not found.paths:
                raise ValueError(
                    f"{folder}: no images in this class folder; remove it (see --classes to keep the class)"
                )
            label = unicodedata.normalize("NFC", folder.name)
            files += [ImageFile(path, _key(path, place), label, part) for path in found.paths]
            others += found.others
    if not files:
        raise ValueError(f"{root} has no class folders with images; expected {root}/CLASS/IMAGE.jpg")
    return files, others


def _folders(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))


def _key(path: Path, root: Path) -> str:
    return "-".join(path.relative_to(root).with_suffix("").parts)


def _with_splits(
    files: list[ImageFile], val_fraction: float, test_fraction: float, seed: int
) -> list[ImageFile]:
    """Splits that the folder lacks, drawn from its training part; nothing where it names none or all."""
    named = {file.part for file in files}
    if named == {None}:
        return files
    if "train" not in named:
        raise ValueError(f"there is no training split, but {', '.join(sorted(filter(None, named)))}")
    training = [file.label for file in files if file.part == "train"]
    drawn = iter(
        stratified(
            training,
            val_fraction=0 if "val" in named else val_fraction,
            test_fraction=0 if "test" in named else test_fraction,
            seed=seed,
        )
    )
    return [
        ImageFile(file.path, file.key, file.label, next(drawn)) if file.part == "train" else file
        for file in files
    ]
