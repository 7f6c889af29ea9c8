"""Image files on a local disk: which there are below a folder, and what else lies there.

Packing, prediction and evaluation look through folders by `find_images` alone, so that all see the same images. Files
and folders that are not looked at are counted; a folder that may not be read is an error, or counted too.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fourds_dist.data.file_kinds import UNREAD_FORMATS, is_image, is_left_by_system, kind_of
from fourds_dist.data.manifest import MANIFEST
from fourds_dist.data.text import shown

DATASETS = "dataset folders"
"""Name under which folders of shards are counted."""
LOOPS = "links to a folder above"
"""What `left_folders` counts links under that lead back to where the search began or above."""

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst")
_TABLES = (
    ".parquet", ".arrow", ".feather", ".tfrecord", ".tfrecords", ".lmdb", ".mdb", ".h5", ".hdf5", ".mat", ".rec",
    ".mds", ".beton", ".pkl",
)  # fmt: skip
"""Files that may hold images, which nothing here reads."""

_SHOWN = 5


@dataclass
class ImageFiles:
    """Image files below some folder, and what was left out there."""

    paths: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    """Files that were not looked at, by extension."""
    unread: Counter[str] = field(default_factory=Counter)
    """Images in formats that are not read, by extension."""
    left_folders: Counter[str] = field(default_factory=Counter)
    """Hidden folders and those that a system left, by name; and dataset folders of shards."""
    closed: list[tuple[Path, str]] = field(default_factory=list)
    """Folders that cannot be listed, with the reason."""

    def add(self, other: ImageFiles) -> None:
        """Take in what was found elsewhere."""
        self.paths += other.paths
        self.others += other.others
        self.unread += other.unread
        self.left_folders += other.left_folders
        self.closed += other.closed

    def check_open(
        self, *, skip_bad: bool = False, remedy: str = ", or leave them out by --skip-bad"
    ) -> None:
        """Refuse folders that cannot be listed.

        Args:
            skip_bad: accept them; `left_out` counts them.
            remedy: what else to do than to give the right to read them.

        Raises:
            ValueError: naming them.
        """
        if not self.closed or skip_bad:
            return
        listed = "".join(f"\n  {shown(path)}: {why}" for path, why in self.closed[:_SHOWN])
        more = f"\n  and {len(self.closed) - _SHOWN} more" if len(self.closed) > _SHOWN else ""
        folders = "1 folder" if len(self.closed) == 1 else f"{len(self.closed)} folders"
        raise ValueError(
            f"{folders} cannot be read:{listed}{more}\ngive this user the right to read them{remedy}"
        )

    def left_out(self) -> list[str]:
        """What was left out though a user may have meant it, a sentence each."""
        lines = []
        if self.unread:
            lines.append(
                f"left out: {formats(self.unread)}: images in formats that are not read; convert them to JPEG or PNG"
            )
        if self.closed:
            num = len(self.closed)
            lines.append(
                f"left out: {num} folder{'s' * (num > 1)} that cannot be read (first: {shown(self.closed[0][0])})"
            )
        if self.left_folders:
            names = ", ".join(f"{num} {name}" for name, num in sorted(self.left_folders.items()))
            lines.append(f"folders not looked into: {names}")
        return lines

    def instead(self) -> str:
        """What lies where no images were found, for an error: the cause, and what to do about it."""
        if self.closed:
            return f"{shown(self.closed[0][0])} cannot be read ({self.closed[0][1]}); give this user the right to"
        if self.unread:
            return f"it holds {formats(self.unread)}, which cannot be read: convert them to JPEG or PNG"
        if bare := self.others.get("no extension"):
            return (
                f"it holds {bare} files without an extension; give images their extension (.jpg, .png, ...)"
            )
        if packed := [kind for kind in self.others if kind in _ARCHIVES]:
            return f"it holds {self.others[packed[0]]} {packed[0]}: unpack what is in it first"
        if tables := [kind for kind in self.others if kind in _TABLES]:
            return (
                f"it holds {self.others[tables[0]]} {tables[0]}, which are not read: write the images in them out as "
                "files, a folder for each class"
            )
        if self.others:
            return "it holds " + ", ".join(f"{num} {kind}" for kind, num in sorted(self.others.items()))
        if self.left_folders:
            return "it holds " + ", ".join(sorted(self.left_folders)) + " alone, which is not looked into"
        return "it is empty"


def find_images(folder: Path, *, leave_out: Path | None = None) -> ImageFiles:
    """All image files below a folder, by name; links are followed.

    Hidden files and folders, what systems leave behind, and dataset folders of shards are not looked at.

    Args:
        leave_out: a folder that is not looked into either: where the images are going to.
    """
    found = ImageFiles()
    top = os.path.realpath(folder)
    met: set[str] = set()
    pending = [folder]
    while pending:
        here = pending.pop()
        if (place := os.path.realpath(here)) in met:
            continue
        if here != folder and f"{top}{os.sep}".startswith(f"{place.rstrip(os.sep)}{os.sep}"):
            found.left_folders[LOOPS] += 1
            continue
        met.add(place)
        pending += reversed(_look_into(here, found, leave_out))
    return found


def images_in(folder: Path, *, leave_out: Path | None = None) -> tuple[ImageFiles, list[Path]]:
    """(the image files in a folder itself, the folders in it to look into)."""
    found = ImageFiles()
    return found, _look_into(folder, found, leave_out)


def formats(unread: Counter[str]) -> str:
    """Counts of images that are not read: `60 .heic (HEIC), 2 .dcm (DICOM)`."""
    return ", ".join(f"{num} {kind} ({UNREAD_FORMATS[kind]})" for kind, num in sorted(unread.items()))


def _look_into(here: Path, found: ImageFiles, leave_out: Path | None) -> list[Path]:
    """Sorts a folder's files in; its folders that are to be looked into."""
    try:
        with os.scandir(here) as entries:
            listed = sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError as error:
        found.closed.append((here, error.strerror or str(error)))
        return []
    folders = []
    for name, is_folder in listed:
        path = here / name
        if is_folder:
            if is_left_by_system(name):
                found.left_folders[shown(name)] += 1
            elif _is_dataset(path) or (leave_out is not None and _is_same(path, leave_out)):
                found.left_folders[DATASETS] += 1
            else:
                folders.append(path)
        elif is_image(name):
            found.paths.append(path)
        elif (kind := kind_of(name)) in UNREAD_FORMATS:
            found.unread[kind] += 1
        else:
            found.others[shown(kind)] += 1
    return folders


def _is_dataset(path: Path) -> bool:
    """Whether a folder holds shards and a manifest, or those of a packing that did not finish."""
    return any(os.path.exists(path / name) for name in (MANIFEST, "packing.json"))  # noqa: PTH110  (no right: False)


def _is_same(path: Path, other: Path) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)
