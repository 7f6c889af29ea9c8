"""Search for image files below a local folder.

Packing, prediction and evaluation search folders only with `find_images`, so that all use the same images. Files and
folders that are skipped are counted; a folder that cannot be read is an error, or counted, too.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fourds_dist.data.decode.file_kinds import UNREAD_FORMATS, is_image, is_left_by_system, kind_of
from fourds_dist.data.format.manifest import MANIFEST
from fourds_dist.io.names import shown

DATASETS = "dataset folders"
"""Key of `left_folders` for folders of shards."""
LOOPS = "links to a folder above"
"""Key of `left_folders` for links to the folder where the search began, or to a folder above it."""
SPECIAL = "pipes, sockets and devices"
"""Key of `others` for files without content; reading a pipe would wait forever."""

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst")
_TABLES = (
    ".parquet", ".arrow", ".feather", ".tfrecord", ".tfrecords", ".lmdb", ".mdb", ".h5", ".hdf5", ".mat", ".rec",
    ".mds", ".beton", ".pkl",
)  # fmt: skip
"""Extensions of tables that may hold images; they are not read."""

_SHOWN = 5


@dataclass
class ImageFiles:
    """Image files below a folder, and the files and folders that were left out."""

    paths: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    """Number of files that are not images, by extension."""
    unread: Counter[str] = field(default_factory=Counter)
    """Number of images in formats that are not read, by extension."""
    left_folders: Counter[str] = field(default_factory=Counter)
    """Number of skipped folders: hidden folders and those that a system left, by name; DATASETS; LOOPS."""
    closed: list[tuple[Path, str]] = field(default_factory=list)
    """Folders that cannot be listed, with the reason; also links that may have led to a folder."""

    def add(self, other: ImageFiles) -> None:
        """Add the files and counts of another search."""
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
            skip_bad: accept such folders; `left_out` counts them.
            remedy: another remedy than the right to read them, for the message.

        Raises:
            ValueError: naming the first such folders.
        """
        if not self.closed or skip_bad:
            return
        listed = "".join(f"\n  {shown(path)}: {why}" for path, why in self.closed[:_SHOWN])
        more = f"\n  and {len(self.closed) - _SHOWN} more" if len(self.closed) > _SHOWN else ""
        folders = "1 folder" if len(self.closed) == 1 else f"{len(self.closed)} folders"
        are_links = [os.path.islink(path) and not os.path.exists(path) for path, _ in self.closed]  # noqa: PTH110, PTH114
        what = ["correct or remove the links"] * any(are_links)
        what += ["give this user the right to read them"] * (not all(are_links))
        raise ValueError(f"{folders} cannot be read:{listed}{more}\n{' and '.join(what)}{remedy}")

    def left_out(self) -> list[str]:
        """Return a sentence for each kind of files or folders left out that the user may have meant to use."""
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
            lines.append(f"folders skipped: {names}")
        return lines

    def instead(self) -> str:
        """Return the reason why no images were found, and the remedy, for an error."""
        if self.closed:
            path, why = self.closed[0]
            return f"{shown(path)} cannot be read ({why}); give this user the right to read it"
        if self.unread:
            return f"it holds {formats(self.unread)}, which cannot be read: convert them to JPEG or PNG"
        if bare := self.others.get("no extension"):
            return (
                f"it holds {bare} files without an extension; give images their extension (.jpg, .png, ...)"
            )
        if packed := [kind for kind in self.others if kind in _ARCHIVES]:
            return f"it holds {self.others[packed[0]]} {packed[0]}: unpack archives first"
        if tables := [kind for kind in self.others if kind in _TABLES]:
            return (
                f"it holds {self.others[tables[0]]} {tables[0]}, which are not read: save the images in them as files, "
                "one folder per class"
            )
        if self.others:
            return "it holds " + ", ".join(f"{num} {kind}" for kind, num in sorted(self.others.items()))
        if self.left_folders:
            return "it holds only folders that are skipped: " + ", ".join(sorted(self.left_folders))
        return "it is empty"


def find_images(folder: Path, *, leave_out: Path | None = None) -> ImageFiles:
    """Return all image files below a folder, sorted by name; links are followed.

    Hidden files and folders, those that systems leave behind, and dataset folders of shards are skipped.

    Args:
        leave_out: another folder to skip: the destination of the images.
    """
    found = ImageFiles()
    top = os.path.realpath(folder)
    visited: set[str] = set()
    pending = [folder]
    while pending:
        current = pending.pop()
        if (path := os.path.realpath(current)) in visited:
            continue
        if current != folder and f"{top}{os.sep}".startswith(f"{path.rstrip(os.sep)}{os.sep}"):
            found.left_folders[LOOPS] += 1
            continue
        visited.add(path)
        pending += reversed(_scan(current, found, leave_out))
    return found


def images_in(folder: Path, *, leave_out: Path | None = None) -> tuple[ImageFiles, list[Path]]:
    """Return (image files directly in a folder, its sub-folders to search)."""
    found = ImageFiles()
    return found, _scan(folder, found, leave_out)


def formats(unread: Counter[str]) -> str:
    """Return the counts of images that are not read as text: `60 .heic (HEIC), 2 .dcm (DICOM)`."""
    return ", ".join(f"{num} {kind} ({UNREAD_FORMATS[kind]})" for kind, num in sorted(unread.items()))


def _scan(folder: Path, found: ImageFiles, leave_out: Path | None) -> list[Path]:
    """Add a folder's files to `found`; return its sub-folders to search."""
    try:
        with os.scandir(folder) as entries:
            listed = sorted((entry.name, _type_of(entry)) for entry in entries)
    except OSError as error:
        found.closed.append((folder, error.strerror or str(error)))
        return []
    folders = []
    for name, kind_of_entry in listed:
        path = folder / name
        if kind_of_entry == "folder":
            if is_left_by_system(name):
                found.left_folders[shown(name)] += 1
            elif _is_dataset(path) or (leave_out is not None and _is_same(path, leave_out)):
                found.left_folders[DATASETS] += 1
            else:
                folders.append(path)
        elif kind_of_entry == "special":
            found.others[SPECIAL] += 1
        elif is_image(name):
            found.paths.append(path)
        elif kind_of_entry == "unknown" and kind_of(name) == "no extension":
            found.closed.append((path, reason_of(path) or "unknown kind of file"))
        elif (kind := kind_of(name)) in UNREAD_FORMATS:
            found.unread[kind] += 1
        else:
            found.others[shown(kind)] += 1
    return folders


def reason_of(path: Path) -> str | None:
    """Return why a path cannot be read, by its kind and rights; None if nothing speaks against reading it."""
    try:
        path.stat()
    except FileNotFoundError:
        return (
            f"a link to {shown(path.readlink())}, which does not exist"
            if path.is_symlink()
            else "no such file"
        )
    except OSError as error:
        return error.strerror or str(error)
    return None


def _type_of(entry: os.DirEntry[str]) -> Literal["file", "folder", "special", "unknown"]:
    """Return the kind of an entry, with links followed; unknown: a link that leads nowhere or cannot be followed."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        entry.stat()
    except OSError:
        return "unknown"
    return "special"


def _is_dataset(path: Path) -> bool:
    """Return whether a folder holds a data set of shards, finished or not."""
    # os.path.exists returns False without the right to read, where Path.exists raises an error.
    return any(os.path.exists(path / name) for name in (MANIFEST, "packing.json"))  # noqa: PTH110


def _is_same(path: Path, other: Path) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)
