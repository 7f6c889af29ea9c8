"""The manifest of a dataset: manifest.json at the root of its folder, which lists classes, splits and shards.

The manifest is written last, so a folder with a manifest is complete. Positions number a split's samples through its
shards, in the manifest's order. Each shard has its index beside it (`index`).

    photos/manifest.json
    photos/train-00000.tar   photos/train-00000.tar.index   ...
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from fourds_dist.data.decode.grey import GreyRange, is_range
from fourds_dist.io.json_text import parse_json
from fourds_dist.io.names import composed
from fourds_dist.io.storage import locate, translate_storage_errors, write_bytes
from fourds_dist.io.url import refuse_query

FORMAT = 1
MANIFEST = "manifest.json"
SPLITS = ("train", "val", "test")
SCALING = "scaling"
"""Entry of the notes of images that were packed smaller (`pack.scaling`)."""


@dataclass(frozen=True)
class Shard:
    """One tar of a split."""

    name: str
    """Path relative to the manifest's folder, e.g. train-00000.tar; may contain a sub-folder. An absolute path or URL
    if the manifest and the tars are in different folders (`pack index --to`)."""

    num_samples: int

    num_bytes: int
    """Size of the tar in bytes."""

    sha256: str | None = None
    """SHA-256 of the whole tar; None for existing tars that were indexed without it."""


@dataclass(frozen=True)
class Manifest:
    """Content of a dataset folder."""

    name: str

    classes: tuple[str, ...]
    """Class names in label order."""

    splits: Mapping[str, tuple[Shard, ...]]
    """Split (train, val, test) -> its shards; only existing splits."""

    class_counts: Mapping[str, tuple[int, ...]]
    """Split -> number of labelled images of each class; other samples of the split are unlabelled."""

    notes: Mapping[str, Any] = field(default_factory=dict)
    """Origin of the data; JSON."""

    grey_range: GreyRange | None = None
    """(black, white): the range of images of more than 8 bits (`grey`); None if there are none."""

    @property
    def fingerprint(self) -> str:
        """Identity of the data in checkpoints: 16 hex digits of a hash of classes, shards and grey range, if any."""
        shards = {
            split: [[shard.name, shard.num_samples, shard.num_bytes, shard.sha256] for shard in shards]
            for split, shards in sorted(self.splits.items())
        }
        parts = [list(self.classes), shards, *([list(self.grey_range)] if self.grey_range else [])]
        text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def max_side(self) -> int | None:
        """Longest side in pixels to which images were scaled when they were packed; None: they were not scaled."""
        note = self.notes.get(SCALING)
        side = note.get("max_side") if isinstance(note, Mapping) else None
        return side if _is_count(side) else None

    def num_samples(self, split: str) -> int:
        """Return the number of samples of a split; 0 if there is no such split."""
        return sum(shard.num_samples for shard in self.splits.get(split, ()))


def shard_url(url: str, name: str) -> str:
    """Return the URL of a shard in the manifest of `url`."""
    return name if _is_absolute(name) else f"{url.rstrip('/')}/{name}"


def index_url(url: str, name: str) -> str:
    """Return the URL of a shard's index: beside the shard, or beside the manifest if that is in another folder."""
    if not _is_absolute(name):
        return f"{url.rstrip('/')}/{name}.index"
    tag = hashlib.sha256(name.encode()).hexdigest()[:8]  # two folders may hold tars of one name
    return f"{url.rstrip('/')}/{name.rstrip('/').rpartition('/')[2]}.{tag}.index"


def read_manifest(url: str) -> Manifest:
    """Read the manifest of the dataset folder at a path or URL; convert class names to one Unicode form.

    Raises:
        ValueError: the URL has a query, the folder or its manifest is missing, the store refuses, or the manifest has
            another format, is not JSON or is inconsistent.
    """
    refuse_query(url)
    where = f"{url.rstrip('/')}/{MANIFEST}"
    fs, path = locate(where)
    with translate_storage_errors(where):
        try:
            data = fs.cat_file(path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ValueError(_why_none(url)) from None
    manifest = parse_manifest(data, where)
    manifest = replace(manifest, classes=tuple(map(composed, manifest.classes)))
    if repeated := first_repeated(manifest.classes):
        raise ValueError(
            f"{where} has the class {repeated!r} twice, in two Unicode forms; pack or index the data again"
        )
    return manifest


def write_manifest(url: str, manifest: Manifest) -> None:
    """Write the manifest of a dataset folder atomically.

    Raises:
        ValueError: the manifest is inconsistent, its notes are not JSON, or the store refuses.
    """
    where = f"{url.rstrip('/')}/{MANIFEST}"
    data = format_manifest(manifest)
    if parse_manifest(data, where).fingerprint != manifest.fingerprint:
        raise ValueError(f"{where} would change when read again; use plain text for all names")
    locate(where)
    with translate_storage_errors(where):
        write_bytes(where, data)


def format_manifest(manifest: Manifest) -> bytes:
    """Return a manifest as JSON, one line per shard; equal manifests give equal bytes.

    Raises:
        ValueError: the notes are not JSON, or a name is not text.
    """
    try:
        notes = json.dumps(dict(manifest.notes), ensure_ascii=False, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the notes of {manifest.name!r} are not JSON: {error}") from None
    splits = []
    for split, shards in manifest.splits.items():
        rows = ",\n".join(f"        {json.dumps(asdict(shard), ensure_ascii=False)}" for shard in shards)
        counts = json.dumps(list(manifest.class_counts.get(split, ())))
        body = f'      "class_counts": {counts},\n      "shards": [\n{rows}\n      ]\n'
        splits.append(f"    {json.dumps(split)}: {{\n{body}    }}")
    grey_range = f'  "grey_range": {json.dumps(manifest.grey_range)},\n' if manifest.grey_range else ""
    text = (
        f'{{\n  "format": {FORMAT},\n  "name": {json.dumps(manifest.name, ensure_ascii=False)},\n'
        f'  "fingerprint": "{manifest.fingerprint}",\n'
        f'  "classes": {json.dumps(list(manifest.classes), ensure_ascii=False)},\n'
        f"{grey_range}"
        '  "splits": {\n' + ",\n".join(splits) + f'\n  }},\n  "notes": {notes}\n}}\n'
    )
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a name in the manifest of {manifest.name!r} is not valid text: {error}") from None


def parse_manifest(data: bytes | str, where: str) -> Manifest:
    """Return the manifest in JSON data.

    Args:
        where: the file, for messages.

    Raises:
        ValueError: the manifest has another format, is not JSON, or is inconsistent.
    """
    try:
        content = parse_json(data)
    except ValueError as error:
        raise ValueError(
            f"{where} is truncated or not JSON ({error}); pack the data again, or restore the file"
        ) from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        if found is None or not _is_count(found):
            raise ValueError(f"{where} is not a manifest of fourds_dist: it has no format number")
        newer = (
            "a newer fourds_dist wrote the file; update fourds_dist"
            if found > FORMAT
            else "pack the data again"
        )
        raise ValueError(f"{where} has format {found}; this version reads format {FORMAT}: {newer}")
    try:
        manifest = _from_json(content)
        problem = _inconsistency(manifest)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{where} is inconsistent: {type(error).__name__}, {error}; was it edited? Pack or index the data again"
        ) from None
    if problem is None and content.get("fingerprint") != manifest.fingerprint:
        problem = (
            f"its fingerprint is {content.get('fingerprint')}, but its entries have {manifest.fingerprint}"
        )
    if problem:
        raise ValueError(f"{where} is inconsistent: {problem}; was it edited? Pack or index the data again")
    return manifest


def _from_json(content: Mapping[str, Any]) -> Manifest:
    splits, notes = content["splits"], content.get("notes", {})
    if not isinstance(notes, dict):
        raise TypeError(f"notes is a {type(notes).__name__}")
    return Manifest(
        name=str(content["name"]),
        classes=tuple(content["classes"]),
        splits={k: tuple(Shard(**shard) for shard in v["shards"]) for k, v in splits.items()},
        class_counts={k: tuple(v["class_counts"]) for k, v in splits.items()},
        notes=notes,
        grey_range=None if content.get("grey_range") is None else tuple(content["grey_range"]),
    )


def _inconsistency(manifest: Manifest) -> str | None:
    if not manifest.classes or not all(isinstance(name, str) for name in manifest.classes):
        return "classes must be a list of names, at least one"
    if repeated := first_repeated(manifest.classes):
        return f"class {repeated!r} is listed twice"
    if unknown := next((split for split in manifest.splits if split not in SPLITS), None):
        return f"unknown split {unknown!r}; splits are {', '.join(SPLITS)}"
    names = [shard.name for shards in manifest.splits.values() for shard in shards]
    if repeated := first_repeated(names):
        return f"shard {repeated!r} is listed twice"
    if manifest.grey_range is not None and not is_range(manifest.grey_range):
        return f"grey_range {manifest.grey_range!r} is not two numbers, the lower one first"
    for split, shards in manifest.splits.items():
        for shard in shards:
            if not isinstance(shard.name, str) or ".." in shard.name.split("/"):
                return f"{shard.name!r} is not a valid shard name"
            if not _is_count(shard.num_samples) or not _is_count(shard.num_bytes):
                return f"shard {shard.name!r} has {shard.num_samples} samples in {shard.num_bytes} bytes"
        counts = manifest.class_counts.get(split, ())
        if len(counts) != len(manifest.classes):
            return f"split {split!r} has {len(counts)} class counts for {len(manifest.classes)} classes"
        if not all(map(_is_count, counts)):
            return f"split {split!r} has a class count that is not a whole number from 0"
        if sum(counts) > manifest.num_samples(split):
            return f"split {split!r} has {sum(counts)} labels on {manifest.num_samples(split)} samples"
    return None


def _why_none(url: str) -> str:
    fs, folder = locate(url)
    if not fs.exists(folder):
        return f"{url}: no such folder; check the address, or pack data into it with `python -m fourds_dist.pack`"
    if not fs.isdir(folder):
        return f"{url} is a file; give the folder that holds {MANIFEST}"
    entries = sorted(entry.rstrip("/").rpartition("/")[2] for entry in fs.ls(folder, detail=False))
    tars = [name for name in entries if name.endswith(".tar")]
    if "packing.json" in entries:
        return f"{url} holds a packing that did not finish; run the same `python -m fourds_dist.pack` command again"
    if tars:
        return (
            f"{url} holds {len(tars)} tars but no {MANIFEST}; `python -m fourds_dist.pack index {url}` writes one "
            "for any WebDataset tars"
        )
    held = (
        f"it holds {', '.join(entries[:8])}{', ...' if len(entries) > 8 else ''}"
        if entries
        else "it is empty"
    )
    return (
        f"{url} is not a dataset folder: it has no {MANIFEST}; {held}. Give a folder that packing wrote; "
        "`python -m fourds_dist.pack folder PICTURES OUT` packs images on a disk of this machine"
    )


def first_repeated(names: Sequence[str]) -> str | None:
    """Return the first repeated name of a list; None if there is none."""
    if len(set(names)) == len(names):
        return None
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_absolute(name: str) -> bool:
    return "://" in name or name.startswith("/")
