"""Find the tars of a path, URL, glob or brace range, and the common folder, split and version of tars."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fourds_dist.data.files.split_names import split_named, splits_of
from fourds_dist.io.listing import sizes
from fourds_dist.io.storage import is_local, locate, translate_storage_errors
from fourds_dist.io.url import expanded, split_pattern

_HTTP = ("http://", "https://")
_GLOB = re.compile(r"[*?\[]")
_DECOMPRESS = {
    "gz": "gunzip -k", "tgz": "gunzip -k", "z": "uncompress", "bz2": "bunzip2 -k", "tbz2": "bunzip2 -k",
    "tbz": "bunzip2 -k", "xz": "unxz -k", "txz": "unxz -k", "lzma": "unlzma -k", "zst": "unzstd", "tzst": "unzstd",
    "lz4": "unlz4", "br": "brotli -dk",
}  # fmt: skip
"""Extension -> command that decompresses a file into a plain tar."""
_COMPRESSED = re.compile(r"(.+)\.(?:tar\.(gz|z|bz2|xz|lzma|zst|lz4|br)|(tgz|tbz2?|txz|tzst))", re.IGNORECASE)
_ARCHIVES = (".zip", ".7z", ".rar")
_MOST_LISTED = 50
"""Largest number of sub-folders that are listed for an error message."""


def expand(url: str) -> list[str]:
    """Return the tars of a path, URL, glob or brace range, sorted by name.

    Raises:
        ValueError: there are no tars, or they are compressed; the message lists what the folder holds.
    """
    folder, pattern = split_pattern(url)
    if pattern is None:
        return _of_folder(folder)
    options = expanded(pattern, url)
    if any(_GLOB.search(option) for option in options):
        return _matching(folder, options, url)
    return _named(folder, options, url)


def _of_folder(folder: str) -> list[str]:
    """All tars of a folder."""
    _refuse_compressed([folder], "")
    fs, path = locate(folder)
    with translate_storage_errors(folder):
        if not fs.exists(path):
            raise ValueError(_no_folder(folder))
        # Over HTTP, the page that lists a folder is a file too.
        if not folder.startswith(_HTTP) and fs.isfile(path):
            raise ValueError(
                f"{folder} is a file whose name does not end in .tar; give a tar or a folder of tars"
            )
        names = _names(fs, path)
        tars = [name for name in names if name.endswith(".tar")]
        plain = set(tars)
        _refuse_compressed([name for name in names if _plain_name(name) not in plain], f"{folder}/")
        if not tars:
            contents = ", ".join(names[:8]) or "nothing"
            below = [name for name in names[:_MOST_LISTED] if _holds_tars(fs, f"{path.rstrip('/')}/{name}")]
            hint = f", which hold tars: give '{folder}/*/*.tar'" if below else ""
            raise ValueError(f"no shards match {folder}; {folder} holds {', '.join(below) or contents}{hint}")
    return [f"{folder}/{name}" for name in tars]


def _named(folder: str, names: Sequence[str], url: str) -> list[str]:
    """Tars given by name; the folder is not listed."""
    _refuse_compressed(names, f"{folder}/")
    by_folder: dict[str, list[str]] = {}
    for name in names:
        parent, _, last = f"{folder}/{name}".rpartition("/")
        by_folder.setdefault(parent, []).append(last)
    found = {f"{parent}/{name}" for parent, lasts in by_folder.items() for name in sizes(parent, lasts)}
    missing = [f"{folder}/{name}" for name in names if f"{folder}/{name}" not in found]
    if not found:
        raise ValueError(f"no shards match {url}; {_contents_of(folder)}")
    if missing:
        raise ValueError(
            f"{url} names {len(names)} tars, of which {len(missing)} do not exist, first {missing[0]}; give existing "
            "tars only"
        )
    return [f"{folder}/{name}" for name in sorted(names)]


def _matching(folder: str, options: Sequence[str], url: str) -> list[str]:
    """Tars that match globs, also in sub-folders."""
    fs, path = locate(folder)
    with translate_storage_errors(folder):
        if not fs.exists(path):
            raise ValueError(_no_folder(folder))
        found = sorted({name for option in options for name in _walk(fs, path, option.split("/"))})
    # A glob such as * matches indices and manifests too.
    chosen = [name for name in found if name.endswith(".tar")] or [
        name for name in found if not name.endswith((".index", ".json"))
    ]
    plain = set(chosen)
    _refuse_compressed([name for name in found if _plain_name(name) not in plain], f"{folder}/")
    if not chosen:
        raise ValueError(f"no shards match {url}; {_contents_of(folder)}")
    return [f"{folder}/{name}" for name in chosen]


def _walk(fs: Any, path: str, parts: Sequence[str]) -> list[str]:
    """Paths relative to a folder that match the parts of a glob, one part for each level."""
    first, *rest = parts
    names = _names(fs, path)
    matching = [first] if first in names else [name for name in names if fnmatch.fnmatchcase(name, first)]
    if not rest:
        return matching
    return [
        f"{name}/{below}"
        for name in matching
        if fs.isdir(f"{path.rstrip('/')}/{name}")
        for below in _walk(fs, f"{path.rstrip('/')}/{name}", rest)
    ]


def _names(fs: Any, path: str) -> list[str]:
    return sorted({entry.rstrip("/").rpartition("/")[2] for entry in fs.ls(path, detail=False)})


def _holds_tars(fs: Any, path: str) -> bool:
    return fs.isdir(path) and any(name.endswith(".tar") for name in _names(fs, path))


def _no_folder(folder: str) -> str:
    if not folder.startswith(_HTTP):
        return f"{folder}: no such folder"
    return (
        f"{folder}: the server lists no such folder; name the tars one by one or by a brace range, e.g. "
        f"{folder}/train-{{000..099}}.tar"
    )


def _contents_of(folder: str) -> str:
    fs, path = locate(folder)
    with translate_storage_errors(folder):
        if not fs.exists(path):
            return f"{folder}: no such folder" if is_local(fs) else f"none of them is in {folder}"
        names = _names(fs, path)
    tars = [name for name in names if name.endswith(".tar")]
    contents = f"{len(tars)} tars, first {tars[0]}" if tars else ", ".join(names[:8]) or "nothing"
    return f"{folder} holds {contents}"


def _plain_name(name: str) -> str | None:
    """Name of the tar after decompression; None for files that are not compressed."""
    match = _COMPRESSED.fullmatch(name)
    return f"{match[1]}.tar" if match else None


def _refuse_compressed(names: Sequence[str], prefix: str) -> None:
    packed = [name for name in names if _plain_name(name) is not None]
    if packed:
        match = _COMPRESSED.fullmatch(packed[0])
        assert match is not None
        command = _DECOMPRESS[(match[2] or match[3]).lower()]
        raise ValueError(
            f"{prefix}{packed[0]} is compressed{f', and {len(packed) - 1} more' if len(packed) > 1 else ''}: ranges "
            f"can only be read from plain tars; decompress it, e.g. by `{command} {packed[0].rpartition('/')[2]}`"
        )
    archives = [name for name in names if name.lower().endswith(_ARCHIVES)]
    if archives and len(archives) == len(names):
        raise ValueError(
            f"{prefix}{archives[0]} is no tar; unpack it and run `python -m fourds_dist.pack folder`"
        )


def common_folder(tars: Sequence[str]) -> str:
    """Return the deepest folder that holds all tars.

    Raises:
        ValueError: there is no such folder.
    """
    folder = _common(tars)
    if not folder.strip("/") or folder.endswith(":/"):
        raise ValueError(
            f"the tars have no common folder ({tars[0]}, {tars[-1]}); give a folder for the manifest by --to DEST"
        )
    return folder


def _common(tars: Sequence[str]) -> str:
    folders = [tar.rpartition("/")[0].split("/") for tar in tars]
    common = []
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return "/".join(common)


def splits_by_name(tars: Sequence[str]) -> dict[str, str | None]:
    """Return the split in each tar's name or folder, below the common folder; None: no split in the name.

    If no tar has a split in its name, the whole name of the common folder may be a split: val/00000.tar.
    """
    shared = _common(tars)
    below = {tar: tar[len(shared) + 1 :] if shared else tar for tar in tars}
    found = splits_of(tuple(below.values()))
    if any(found.values()):
        return {tar: found[name] for tar, name in below.items()}
    return dict.fromkeys(tars, split_named(shared.rpartition("/")[2]))


def version_of(tar: str) -> str:
    """Return a text that changes whenever the tar changes: its size, and its ETag, hash or modification time."""
    fs, path = locate(tar)
    with translate_storage_errors(tar):
        info: Mapping[str, Any] = fs.info(path)
    version = (
        info.get("ETag")
        or info.get("etag")
        or info.get("md5Hash")
        or info.get("mtime")
        or info.get("created")
    )
    return f"{info['size']}:{version}:"
