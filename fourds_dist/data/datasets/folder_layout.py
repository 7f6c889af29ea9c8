"""Decide which sub-folders of a folder of images are classes and which are splits, from all sub-folders together.

    SRC/CLASS/...              each sub-folder is a class
    SRC/SPLIT/CLASS/...        all sub-folders have names of splits (`split_names`)
    SRC/CLASS/SPLIT/...        only with --layout CLASS/SPLIT

An ambiguous folder is refused with both readings; `--layout` selects one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fourds_dist.data.files.image_files import ImageFiles, images_in
from fourds_dist.data.files.split_names import rest_of, split_in, split_named, splits_of
from fourds_dist.io.names import check_text, composed, shown

LAYOUTS = ("CLASS", "SPLIT/CLASS", "CLASS/SPLIT")
"""Values of --layout."""

_MASK_NAMES = (
    "ground_truth groundtruth gt mask masks label labels annotation annotations segmentation segmentations label_masks "
    "seg_masks"
)
_MASKS = frozenset(_MASK_NAMES.split())
"""Names of folders that hold masks or annotations, not photographs."""

_SPLIT_LIKE_WORDS = (
    "fold part partition subset batch split set phase stage unlabeled labeled labelled unlabelled entrenamiento prueba "
    "validacion treino treinamento teste apprentissage entrainement trainieren trainingsdaten testdaten validierung "
    "validierungsdaten addestramento tr te ts va ood iid seen unseen gallery query external internal insample "
    "outofsample"
)
_SPLIT_LIKE = frozenset(_SPLIT_LIKE_WORDS.split())
"""Words, also of other languages, that make a folder look like a split without giving the split."""

_OF_SAMPLE = re.compile(r"(?<![^\W_])(in|out[\W_]?of)[\W_]sample(?![^\W_])", re.IGNORECASE)


@dataclass(frozen=True)
class ClassFolder:
    """A folder of images of one class."""

    path: Path
    label: str
    split: str | None
    """The split in the folder's path; None: no split is given."""
    base: Path
    """Folder to which the keys of the images are relative."""


@dataclass
class Arrangement:
    """The class folders below a folder, and the other files found."""

    folders: list[ClassFolder] = field(default_factory=list)
    beside: ImageFiles = field(default_factory=ImageFiles)
    """Files and folders outside the class folders."""
    remarks: list[str] = field(default_factory=list)


def arrange(
    root: Path, *, classes: Sequence[str] | None, layout: str | None, leave_out: Path | None
) -> Arrangement:
    """Return the class folders below a folder.

    Args:
        classes: names that are classes, even if they look like splits.
        layout: one of LAYOUTS; None: deduced from the names of all sub-folders.
        leave_out: a folder to ignore.

    Raises:
        ValueError: images are outside class folders, splits are beside other folders, or the layout is ambiguous.
    """
    return _Reader(root, frozenset(classes or ()), leave_out).read(layout)


class _Reader:
    def __init__(self, root: Path, classes: frozenset[str], leave_out: Path | None) -> None:
        self._root = root
        self._classes = classes
        self._leave_out = leave_out
        self._made = Arrangement()

    def read(self, layout: str | None) -> Arrangement:
        tops = self._folders(self._root)
        if layout is None:
            layout = self._by_names(tops)
        match layout:
            case "SPLIT/CLASS":
                self._splits_first(tops)
            case "CLASS/SPLIT":
                self._classes_first(tops)
            case _:
                self._made.folders = [ClassFolder(top, composed(top.name), None, self._root) for top in tops]
        for folder in self._made.folders:
            check_text(folder.label, f"a class folder in {shown(folder.path.parent)}")
        return self._made

    def _folders(self, folder: Path) -> list[Path]:
        """Sub-folders of a folder, which must not hold images itself."""
        found, folders = images_in(folder, leave_out=self._leave_out)
        if found.paths:
            tables = [p.name for p in folder.iterdir() if p.suffix.lower() in (".csv", ".tsv", ".txt")]
            lists = f", or pack {tables[0]} by `pack list` if it lists the images" if tables else ""
            raise ValueError(
                f"{folder} holds {len(found.paths)} images outside class folders (first: {found.paths[0].name}); move "
                f"them into class folders, or pack the folder with --unlabelled and --classes FILE{lists}"
            )
        self._made.beside.add(found)
        return folders

    def _by_names(self, tops: list[Path]) -> str:
        """Deduce the layout from the names and contents of all sub-folders."""
        names = [composed(top.name) for top in tops]
        if self._classes and self._classes.issuperset(names):
            return "CLASS"
        splits = _split_group(names)
        if splits and len(splits) < len(names):
            others = ", ".join(name for name in names if name not in splits)
            raise ValueError(
                f"{self._root} has folders of splits ({', '.join(sorted(splits))[:100]}) beside others "
                f"({others[:100]}), and cannot have both. If {sorted(splits)[0]} is a class, give --layout CLASS; "
                "otherwise move the others to another folder"
            )
        below = {top: self._below(top) for top in tops}
        if splits:
            self._refuse_wrapped({top: folders for top, (_, folders) in below.items()}, "SPLIT/CLASS")
            self._refuse_no_class(
                [folder for _, folders in below.values() for folder in folders], "SPLIT/CLASS"
            )
            return "SPLIT/CLASS"
        self._refuse_splits_in_classes(below)
        self._refuse_wrapped({self._root: tops}, "CLASS")
        self._refuse_no_class(tops, "CLASS")
        self._refuse_likely_splits(below)
        return "CLASS"

    def _below(self, top: Path) -> tuple[int, list[Path]]:
        """(number of images in a folder itself, folders in it)."""
        found, folders = images_in(top, leave_out=self._leave_out)
        return len(found.paths), folders

    def _refuse_splits_in_classes(self, below: dict[Path, tuple[int, list[Path]]]) -> None:
        """Refuse class folders that hold splits or masks."""
        for top, (_, folders) in below.items():
            names = [folder.name for folder in folders]
            splits = [name for name in names if split_named(name)]
            masks = [name for name in names if name.lower() in _MASKS]
            if splits and len(splits) + len(masks) == len(names) and (len(splits) > 1 or len(below) > 1):
                first = f"; first move {masks[0]}, which looks like masks, to another folder" if masks else ""
                if len(below) == 1:
                    raise ValueError(
                        f"{top} is the only folder in {self._root} and has the sub-folders {', '.join(names[:6])}: "
                        f"either these are splits that hold the classes (pack {top}{first}), or {top.name} is the only "
                        "class (give --layout CLASS/SPLIT, or --layout CLASS if the sub-folders are not splits)"
                    )
                raise ValueError(
                    f"{top} has the sub-folders {', '.join(names[:6])}: either these are splits (give --layout "
                    "CLASS/SPLIT), or they are not, and splits are drawn over all images (give --layout "
                    f"CLASS){first}"
                )
            if masks and len(names) > len(masks):
                raise ValueError(
                    f"{top} has the sub-folder {masks[0]}, whose images look like masks or labels, beside "
                    f"{', '.join(n for n in names if n not in masks)[:60]}; move {masks[0]} to another folder, or give "
                    f"--layout CLASS if its images are of the class {top.name!r} as well"
                )

    def _refuse_wrapped(self, parents: dict[Path, list[Path]], layout: str) -> None:
        """Refuse a single folder around all class folders, which would be the only class."""
        if any(len(folders) != 1 for folders in parents.values()):
            return
        for parent, (single,) in parents.items():
            num_images, folders = self._below(single)
            if not num_images and len(folders) > 1:
                names = ", ".join(folder.name for folder in folders[:4])
                remedy = f"pack {single}" if parent == self._root else f"move them up into {parent}"
                raise ValueError(
                    f"{single} is the only folder in {parent} and holds the folders {names}: either these are the "
                    f"classes ({remedy}), or {single.name} is the only class (give --layout {layout})"
                )

    def _refuse_no_class(self, folders: list[Path], layout: str) -> None:
        """Refuse a single class folder with a generic name (images, JPEGImages)."""
        names = {composed(folder.name) for folder in folders}
        name = min(names, default="")
        is_generic = len(names) == 1 and not split_in(name) and not rest_of(name)
        if is_generic and not self._classes and any(self._below(folder)[0] for folder in folders):
            raise ValueError(
                f"{self._root}: {name!r} would be the only class. Sort its images into a folder for each class, or "
                f"list them with their classes (`pack list`); if {name!r} is a class, give --layout {layout}"
            )

    def _refuse_likely_splits(self, below: dict[Path, tuple[int, list[Path]]]) -> None:
        """Refuse sub-folders that look like splits: they hold the same folders and no images."""
        inner = [{folder.name for folder in folders} for _, folders in below.values()]
        if len(below) < 2 or any(num for num, _ in below.values()) or not all(inner):
            return
        shared = set.intersection(*inner)
        if 2 * len(shared) < max(map(len, inner)):
            return
        names = ", ".join(top.name for top in list(below)[:4])
        parts = ", ".join(sorted(shared)[:4])
        same = all(each == shared for each in inner) and len(shared) > max(2, len(below))
        if same or all(_looks_like_split(top.name) for top in below):
            raise ValueError(
                f"{self._root} has the sub-folders {names}, which all hold {parts}: either {parts} are the classes "
                f"(rename {names} to train, val and test if these are splits, or pack each as a separate dataset), or "
                f"{names} are the classes (give --layout CLASS)"
            )
        if len(shared) > 1:
            self._made.remarks.append(
                f"the classes are {names}, which all hold the sub-folders {parts}; if {parts} are the classes, rename "
                f"{names} to train, val and test"
            )

    def _splits_first(self, tops: list[Path]) -> None:
        splits = splits_of([top.name for top in tops])
        for top in tops:
            if (split := splits[top.name]) is None:
                raise ValueError(
                    f"{top}: the folder's name is no split; rename the folder to train, val or test"
                )
            self._made.folders += [
                ClassFolder(folder, composed(folder.name), split, top) for folder in self._folders(top)
            ]

    def _classes_first(self, tops: list[Path]) -> None:
        splits = splits_of(list({folder.name for top in tops for folder in self._below(top)[1]}))
        for top in tops:
            for folder in self._folders(top):
                if (split := splits[folder.name]) is None:
                    raise ValueError(
                        f"{folder}: the folder's name is no split; rename the folder to train, val or test, or move it "
                        "elsewhere"
                    )
                self._made.folders.append(ClassFolder(folder, composed(top.name), split, self._root))


def _split_group(names: Collection[str]) -> set[str]:
    """Names that are splits: a split alone (train), or several splits with one rest (photos_train, photos_test)."""
    splits = {name for name in names if split_named(name)}
    groups: dict[tuple[str, ...], set[str]] = {}
    for name in names:
        if split_in(name):
            groups.setdefault(rest_of(name), set()).add(name)
    for rest, group in groups.items():
        if rest and len({split_in(name) for name in group}) > 1:
            splits |= group
    return splits


def _looks_like_split(name: str) -> bool:
    name = _OF_SAMPLE.sub(lambda match: re.sub(r"[\W_]", "", match[0]), name)
    words = [word.lower() for word in re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))]
    known = ("train", "training", "test", "testing", "valid", "validation")
    return split_in(name) is not None or any(
        word in _SPLIT_LIKE or difflib.get_close_matches(word, known, n=1, cutoff=0.8) for word in words
    )


def sub_folders_remark(below: Mapping[str, Collection[str]], images: Collection[str]) -> list[str]:
    """Remark on class folders whose images are all in sub-folders, which may be the classes: animal/cat/1.jpg.

    Args:
        below: class -> names of the files and folders in its folder that are images or hold images.
        images: names of the images.
    """
    inner = sorted({name for names in below.values() for name in names})
    if len(below) < 2 or not set(inner).isdisjoint(images) or len(inner) <= len(below):
        return []
    listed = ", ".join(shown(name) for name in inner[:4])
    return [
        f"the classes are {', '.join(list(below)[:4])}; all images are in sub-folders ({listed}, ...), whose names are "
        "not used; if these are the classes, move them up, or list the images with their classes (`pack list`)"
    ]


def none_of(folder: Path, found: ImageFiles) -> str:
    """Error message for a class folder without images."""
    instead = found.instead()
    has_remedy = bool(found.unread) or instead.endswith(("first", "for each class"))
    remedy = "; remove the folder, or list the class in --classes FILE to accept an empty class"
    return f"{folder}: no images in this class folder: {instead}{'' if has_remedy else remedy}"
