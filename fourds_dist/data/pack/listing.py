"""Which tars a path or URL means, where they lie, of which split each is, and of which version they are."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fourds_dist.data.listing import sizes
from fourds_dist.data.split_names import split_named, splits_of
from fourds_dist.data.url import expanded, split_pattern
from fourds_dist.storage import explained, is_local, locate

_HTTP = ("http://", "https://")
_GLOB = re.compile(r"[*?\[]")
_DECOMPRESS = {
    "gz": "gunzip -k", "tgz": "gunzip -k", "z": "uncompress", "bz2": "bunzip2 -k", "tbz2": "bunzip2 -k",
    "tbz": "bunzip2 -k", "xz": "unxz -k", "txz": "unxz -k", "lzma": "unlzma -k", "zst": "unzstd", "tzst": "unzstd",
    "lz4": "unlz4", "br": "brotli -dk",
}  # fmt: skip
"""Extension -> command that leaves a plain tar beside the file."""
_COMPRESSED = re.compile(r"(.+)\.(?:tar\.(gz|z|bz2|xz|lzma|zst|lz4|br)|(tgz|tbz2?|txz|tzst))", re.IGNORECASE)
_ARCHIVES = (".zip", ".7z", ".rar")
_MOST_LOOKED_AT = 50
"""Folders that are looked into for tars, for a message."""


def expand(url: str) -> list[str]:
    """The tars that a path or URL means, in order of their names.

    Raises:
        ValueError: there are none, or they are compressed; the message tells what is there.
    """
    folder, pattern = split_pattern(url)
    if pattern is None:
        return _of_folder(folder)
    options = expanded(pattern, url)
    if any(_GLOB.search(option) for option in options):
        return _fitting(folder, options, url)
    return _named(folder, options, url)


def _of_folder(folder: str) -> list[str]:
    """All tars of a folder."""
    _refuse_compressed([folder], "")
    fs, path = locate(folder)
    with explained(folder):
        if not fs.exists(path):
            raise ValueError(_no_folder(folder))
        if not folder.startswith(_HTTP) and fs.isfile(
            path
        ):  # over HTTP, a page that lists a folder is a file too
            raise ValueError(
                f"{folder} is a file whose name does not end in .tar; give a tar or a folder of tars"
            )
        names = _names(fs, path)
        tars = [name for name in names if name.endswith(".tar")]
        plain = set(tars)
        _refuse_compressed([name for name in names if _plain_name(name) not in plain], f"{folder}/")
        if not tars:
            held = ", ".join(names[:8]) or "nothing"
            below = [
                name for name in names[:_MOST_LOOKED_AT] if _holds_tars(fs, f"{path.rstrip('/')}/{name}")
            ]
            hint = f", where tars lie one folder below: give '{folder}/*/*.tar'" if below else ""
            raise ValueError(f"no shards match {folder}; {folder} holds {', '.join(below) or held}{hint}")
    return [f"{folder}/{name}" for name in tars]


def _named(folder: str, names: Sequence[str], url: str) -> list[str]:
    """Tars by their names; no listing is needed for them."""
    _refuse_compressed(names, f"{folder}/")
    by_folder: dict[str, list[str]] = {}
    for name in names:
        place, _, last = f"{folder}/{name}".rpartition("/")
        by_folder.setdefault(place, []).append(last)
    there = {f"{place}/{name}" for place, lasts in by_folder.items() for name in sizes(place, lasts)}
    missing = [f"{folder}/{name}" for name in names if f"{folder}/{name}" not in there]
    if not there:
        raise ValueError(f"no shards match {url}; {_what_is_there(folder)}")
    if missing:
        raise ValueError(
            f"{url} names {len(names)} tars, of which {len(missing)} are not there, first {missing[0]}; give those "
            "that there are"
        )
    return [f"{folder}/{name}" for name in sorted(names)]


def _fitting(folder: str, options: Sequence[str], url: str) -> list[str]:
    """Tars that globs fit, in sub-folders too."""
    fs, path = locate(folder)
    with explained(folder):
        if not fs.exists(path):
            raise ValueError(_no_folder(folder))
        found = sorted({name for option in options for name in _walk(fs, path, option.split("/"))})
    # A glob such as * fits indices and manifests too.
    chosen = [name for name in found if name.endswith(".tar")] or [
        name for name in found if not name.endswith((".index", ".json"))
    ]
    plain = set(chosen)
    _refuse_compressed([name for name in found if _plain_name(name) not in plain], f"{folder}/")
    if not chosen:
        raise ValueError(f"no shards match {url}; {_what_is_there(folder)}")
    return [f"{folder}/{name}" for name in chosen]


def _walk(fs: Any, path: str, parts: Sequence[str]) -> list[str]:
    """Names below a folder, relative to it, that a glob's parts fit, one part for each folder."""
    first, *rest = parts
    names = _names(fs, path)
    fitting = [first] if first in names else [name for name in names if fnmatch.fnmatchcase(name, first)]
    if not rest:
        return fitting
    return [
        f"{name}/{below}"
        for name in fitting
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


def _what_is_there(folder: str) -> str:
    fs, path = locate(folder)
    with explained(folder):
        if not fs.exists(path):
            return f"{folder}: no such folder" if is_local(fs) else f"none of them is in {folder}"
        names = _names(fs, path)
    tars = [name for name in names if name.endswith(".tar")]
    held = f"{len(tars)} tars, first {tars[0]}" if tars else ", ".join(names[:8]) or "nothing"
    return f"{folder} holds {held}"


def _plain_name(name: str) -> str | None:
    """The tar that decompressing a file leaves."""
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
            f"{prefix}{archives[0]} is no tar; unpack it and use `python -m fourds_dist.pack folder`"
        )


def common_folder(tars: Sequence[str]) -> str:
    """The deepest folder that holds all tars.

    Raises:
        ValueError: there is none.
    """
    folder = _common(tars)
    if not folder.strip("/") or folder.endswith(":/"):
        raise ValueError(f"the tars lie in no common folder ({tars[0]}, {tars[-1]}); give one by --to")
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
    """The split that each tar's name or folder tells, below the folder that all share; None where they do not.

    Where no tar tells any, the shared folder may, if its whole name means a split: val/00000.tar.
    """
    shared = _common(tars)
    below = {tar: tar[len(shared) + 1 :] if shared else tar for tar in tars}
    told = splits_of(tuple(below.values()))
    if any(told.values()):
        return {tar: told[name] for tar, name in below.items()}
    return dict.fromkeys(tars, split_named(shared.rpartition("/")[2]))


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
