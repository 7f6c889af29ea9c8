"""The paper's datasets from their published layouts (`layouts`); image files are not changed.

Splits are those of the paper: a random 80/20 split per domain with seed 42 (drawn class by class here), or the
published lists (DomainNet; `--splits random` gives the paper's 90/10). A tenth of each training part becomes the
validation split, which the paper does not have. An image that is listed twice counts once; an image with two labels is
left out (nine in ImageCLEF-DA's pascal). Files are found and checked as in `folder`.

python -m fourds_dist.pack office-home OfficeHomeDataset_10072016 DEST
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.example import Example
from fourds_dist.data.datasets.files import check_images
from fourds_dist.data.datasets.layouts import LAYOUTS, Layout, folder_of
from fourds_dist.data.datasets.splits import stratified
from fourds_dist.data.decode.file_kinds import is_left_by_system
from fourds_dist.data.files.duplicates import equal_files, joined
from fourds_dist.data.files.image_files import ImageFiles, find_images, images_in
from fourds_dist.data.files.progress import OnProgress
from fourds_dist.io.names import composed


@dataclass(frozen=True)
class PaperImage:
    path: Path
    label: str
    part: str
    """'train', 'test', or 'all' without published splits."""


def paper(
    layout: str,
    folder: str | Path,
    *,
    domains: Sequence[str] | None = None,
    splits: str = "published",
    val_fraction: float = 0.1,
    seed: int = 42,
    partial: bool = False,
    skip_bad: bool = False,
    decode: bool = False,
    num_threads: int = 2,
    on_progress: OnProgress = lambda what, done, total: None,
) -> tuple[Domain, ...]:
    """Return the domains of a dataset, with one class list for all.

    Args:
        layout: name of the dataset in LAYOUTS.
        folder: folder of the unpacked archives.
        domains: domains to pack; None: all.
        splits: 'published': the published lists, or random splits without lists; 'random': random splits.
        val_fraction: share of the training images that become the validation split.
        seed: seed of random splits.
        partial: accept a copy with fewer classes than were published.
        skip_bad: leave out images and folders that cannot be read, and count them in the notes.
        decode: check every image by decoding it whole, not only its header.

    Raises:
        ValueError: a domain is not found (the message says what was expected, what was found, and where to get the
            dataset), images cannot be read, domains have different class lists, or a domain is unknown.
    """
    known = LAYOUTS[layout]
    wanted = tuple(domains or known.domains)
    if unknown := [name for name in wanted if name not in known.domains]:
        raise ValueError(f"{known.title} has no domain {unknown[0]!r}; it has {', '.join(known.domains)}")
    found = {name: _pictures(known, known.domains[name], Path(folder)) for name in wanted}
    for _, files in found.values():
        files.check_open(skip_bad=skip_bad)
    clear = {name: _each_once(pictures) for name, (pictures, _) in found.items()}
    classes = _classes(known, clear, partial)
    extensions = _checked(clear, skip_bad, decode, num_threads, on_progress)
    made = []
    for name, pictures in clear.items():
        title = folder_of(layout, name)
        good = [picture for picture in pictures if extensions[picture.path] is not None]
        if not good:
            raise ValueError(f"{known.title}: no image of the domain {name!r} can be read")
        assigned = _splits(known, good, splits, val_fraction, seed)
        every, files = found[name]
        notes = {
            "origin": f"{known.title}, {known.origin}",
            "images": dict(sorted(Counter(assigned).items())),
            "with two labels": len({picture.path for picture in every}) - len(pictures),
            "unreadable": len(pictures) - len(good),
            "other files": dict(sorted(files.others.items())),
            "remarks": files.left_out(),
            "splits": "random" if splits == "random" or pictures[0].part == "all" else "published",
            "val_fraction": val_fraction,
            "seed": seed,
        }
        made.append(Domain(title, classes, _Reading(good, assigned, extensions), notes=notes))
    return tuple(made)


def _checked(
    clear: Mapping[str, Sequence[PaperImage]],
    skip_bad: bool,
    decode: bool,
    num_threads: int,
    on_progress: OnProgress,
) -> dict[Path, str | None]:
    """Return path -> extension by the file's content, for all domains; None: the file cannot be read."""
    paths = list(dict.fromkeys(picture.path for pictures in clear.values() for picture in pictures))
    extensions = check_images(
        paths, skip_bad=skip_bad, decode=decode, num_threads=num_threads, on_progress=on_progress
    )
    return dict(zip(paths, extensions, strict=True))


@dataclass(frozen=True)
class _Reading:
    """Produces the examples of one domain."""

    pictures: list[PaperImage]
    splits: list[str]
    extensions: Mapping[Path, str | None]

    def __call__(self) -> Iterator[Example]:
        taken: set[str] = set()
        for index, (picture, split) in enumerate(zip(self.pictures, self.splits, strict=True)):
            key = re.sub(r"\W+", "-", "-".join((picture.label, picture.path.stem)), flags=re.ASCII).strip("-")
            if key in taken:  # a.jpg beside a.png, or names that differ in punctuation only
                key = f"{key}-{index}"
            taken.add(key)
            yield Example(key, picture.path, self.extensions[picture.path] or "", picture.label, split)


def _pictures(layout: Layout, domain: str, folder: Path) -> tuple[list[PaperImage], ImageFiles]:
    """Return all images of a domain, in an order that depends on the names only, and the other files found."""
    expected = []
    for root in (folder / root for root in layout.roots):
        for template in layout.class_folders:
            path = template.format(domain=domain)
            expected.append(f"{root / path}/CLASS/IMAGE")
            pictures, found = _from_class_folders(_on_disk(root, path))
            if pictures or found.closed:
                return pictures, found
        for lists in layout.lists:
            files = {part: _on_disk(root, template.format(domain=domain)) for part, template in lists.items()}
            expected.append(" with ".join(map(str, files.values())))
            if all(file.is_file() for file in files.values()):
                starts = {
                    part: [root / start.format(domain=domain, part=part) for start in layout.images]
                    for part in files
                }
                listed = [
                    p for part in files for p in _from_list(files[part], part, starts[part], layout.classes)
                ]
                return listed, ImageFiles()
    inside = None
    if folder.is_dir():
        inside = sorted(path.name for path in folder.iterdir() if not is_left_by_system(path.name))[:12]
    raise ValueError(
        f"{layout.title}: the domain {domain!r} is not under {folder}.\n"
        f"expected: {'; '.join(expected)}\n"
        f"found there: {', '.join(inside) or 'nothing' if inside is not None else 'no such folder'}\n"
        f"the dataset: {layout.origin}"
    )


def _on_disk(root: Path, relative: str) -> Path:
    """Path below a folder as spelled on the disk; case, spaces, dashes and underscores are ignored."""
    path = root
    for part in Path(relative).parts:
        if not (path / part).exists() and path.is_dir():
            alike = sorted(child.name for child in path.iterdir() if _letters(child.name) == _letters(part))
            part = alike[0] if alike else part
        path = path / part
    return path


def _letters(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()


def _from_class_folders(parent: Path) -> tuple[list[PaperImage], ImageFiles]:
    if not parent.is_dir():
        return [], ImageFiles()
    beside, folders = images_in(parent)
    if beside.paths:
        beside.others["images outside class folders"] = len(beside.paths)
    pictures = []
    for folder in folders:
        found = find_images(folder)
        pictures += [PaperImage(path, composed(folder.name), "all") for path in found.paths]
        beside.add(found)
    return pictures, beside


def _from_list(
    file: Path, part: str, starts: list[Path], classes: tuple[str, ...] | None
) -> list[PaperImage]:
    """Read lines 'path class-index'; paths may contain spaces, and their folder is the class if `classes` is None."""
    pictures, names = [], dict(enumerate(classes or ()))
    for number, line in enumerate(file.read_text("utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        path, _, index = re.sub(r"\s+(?=\S+$)", " ", line.strip()).rpartition(" ")
        if not path or not index.isdigit() or (classes and int(index) >= len(classes)):
            raise ValueError(f"{file}, line {number}: {line!r} is not 'path class-index'")
        if classes is None and names.setdefault(int(index), _class_of(path)) != _class_of(path):
            raise ValueError(
                f"{file}, line {number}: class {index} is both {names[int(index)]!r} and {path!r}"
            )
        found = next((start / path for start in starts if (start / path).is_file()), None)
        if found is None:
            raise ValueError(
                f"{file}, line {number}: there is no {path!r} under {' or '.join(map(str, starts))}"
            )
        pictures.append(PaperImage(found, names[int(index)], part))
    if not pictures:
        raise ValueError(f"{file} is empty")
    return pictures


def _class_of(path: str) -> str:
    return composed(Path(path).parent.name)


def _each_once(pictures: list[PaperImage]) -> list[PaperImage]:
    """Return every image once, in the test part if it is in both; images with two labels are left out."""
    labels: dict[Path, set[str]] = {}
    for picture in pictures:
        labels.setdefault(picture.path, set()).add(picture.label)
    test_last = sorted(pictures, key=lambda picture: picture.part == "test")
    return list({picture.path: picture for picture in test_last if len(labels[picture.path]) == 1}.values())


def _classes(layout: Layout, found: dict[str, list[PaperImage]], partial: bool) -> tuple[str, ...]:
    """Return the class list of all domains."""
    present = {name: {picture.label for picture in pictures} for name, pictures in found.items()}
    union = set().union(*present.values())
    for name, labels in present.items():
        if labels != union and not layout.classes:
            raise ValueError(
                f"{layout.title}: the domain {name!r} lacks the classes {', '.join(sorted(union - labels)[:8])}, which "
                "other domains have; all domains must have the same classes"
            )
    if len(union) != layout.num_classes and not partial:
        raise ValueError(
            f"{layout.title} was published with {layout.num_classes} classes, but {len(union)} were found "
            f"({', '.join(sorted(union)[:8])}, ...); unpack the whole archive, or accept this copy by --partial"
        )
    return layout.classes or tuple(sorted(union))


def _splits(
    layout: Layout, pictures: list[PaperImage], splits: str, val_fraction: float, seed: int
) -> list[str]:
    if splits == "random" or pictures[0].part == "all":
        test_fraction = layout.test_fraction
        return _drawn(pictures, val_fraction * (1 - test_fraction), test_fraction, seed)
    training = [picture for picture in pictures if picture.part == "train"]
    drawn = iter(_drawn(training, val_fraction, 0, seed))
    return [next(drawn) if picture.part == "train" else "test" for picture in pictures]


def _drawn(pictures: Sequence[PaperImage], val_fraction: float, test_fraction: float, seed: int) -> list[str]:
    equal = equal_files([picture.path for picture in pictures])
    return stratified(
        [picture.label for picture in pictures],
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        groups=joined([None] * len(pictures), equal),
    )
