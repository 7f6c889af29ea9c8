"""Which tars a path or URL means, where they lie, and of which version they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fourds_dist.data.manifest import SPLITS
from fourds_dist.data.url import matching, split_pattern
from fourds_dist.storage import explained, locate


def expand(url: str) -> list[str]:
    """The tars that a path or URL means, in order of their names.

    Raises:
        ValueError: there are none; the message tells what is there.
    """
    folder, pattern = split_pattern(url)
    fs, path = locate(folder)
    with explained(folder):
        if not fs.exists(path):
            raise ValueError(f"{folder}: no such folder")
        there = sorted(entry.rstrip("/").rpartition("/")[2] for entry in fs.ls(path, detail=False))
    tars = [name for name in there if name.endswith(".tar")]
    chosen = sorted(matching(there, pattern)) if pattern is not None else tars
    if not chosen:
        held = f"{len(tars)} tars, first {tars[0]}" if tars else ", ".join(there[:8]) or "nothing"
        raise ValueError(f"no shards match {url}; {folder} holds {held}")
    return [f"{folder}/{name}" for name in chosen]


def common_folder(tars: Sequence[str]) -> str:
    """The deepest folder that holds all tars.

    Raises:
        ValueError: there is none.
    """
    folders = [tar.rpartition("/")[0].split("/") for tar in tars]
    common = []
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    folder = "/".join(common)
    if not folder.strip("/") or folder.endswith(":/"):
        raise ValueError(f"the tars lie in no common folder ({tars[0]}, {tars[-1]}); give one by --to")
    return folder


def split_of(tar: str, tars: Sequence[str]) -> str:
    """The split of a tar by the beginning of its name, if all names tell; else train."""
    told = [_told(other) for other in tars]
    return (_told(tar) or "train") if all(told) else "train"


def _told(tar: str) -> str | None:
    name = tar.rpartition("/")[2].lower()
    return next((split for split in SPLITS if name.startswith(split)), None)


def version_of(tar: str) -> str:
    """What changes when the tar does."""
    fs, path = locate(tar)
    with explained(tar):
        info: Mapping[str, Any] = fs.info(path)
    version = (
        info.get("ETag")
        or info.get("etag")
        or info.get("md5Hash")
        or info.get("mtime")
        or info.get("created")
    )
    return f"{info['size']}:{version}:"
