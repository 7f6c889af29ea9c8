"""The manifest of a dataset: manifest.json at the root of its folder, which says what is there.

It is written last, so a folder that has one is whole. Shards keep their order; a split's samples are numbered through
them. Beside each shard lies its index (`index`).

    photos/manifest.json
    photos/train-00000.tar   photos/train-00000.tar.index   ...
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from fourds_dist.data.grey import GreyRange, is_range
from fourds_dist.data.text import composed
from fourds_dist.json_text import parsed_json
from fourds_dist.storage import explained, locate, write_bytes

FORMAT = 1
MANIFEST = "manifest.json"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Shard:
    """One tar of a split."""

    name: str
    """Relative to the manifest's folder, e.g. train-00000.tar; may hold a sub-folder. A path or URL of its own where
    the manifest was made elsewhere than the tars (`pack index --to`)."""

    num_samples: int

    num_bytes: int
    """Size of the tar."""

    sha256: str | None = None
    """Of the whole tar; None for foreign tars that were indexed without it."""


@dataclass(frozen=True)
class Manifest:
    """What a dataset folder holds."""

    name: str

    classes: tuple[str, ...]
    """In label order."""

    splits: Mapping[str, tuple[Shard, ...]]
    """train, val, test: those that there are."""

    class_counts: Mapping[str, tuple[int, ...]]
    """Split -> labelled images of each class; what is left of the split's samples is unlabelled."""

    notes: Mapping[str, Any] = field(default_factory=dict)
    """How the data came about; JSON."""

    grey_range: GreyRange | None = None
    """(black, white): by which values images of more than 8 bits are read (`grey`); None where there are none."""

    @property
    def fingerprint(self) -> str:
        """Identity of the data in checkpoints: 16 hex digits over classes, shards and grey range, if there is one."""
        shards = {
            split: [[shard.name, shard.num_samples, shard.num_bytes, shard.sha256] for shard in shards]
            for split, shards in sorted(self.splits.items())
        }
        parts = [list(self.classes), shards, *([list(self.grey_range)] if self.grey_range else [])]
        text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def num_samples(self, split: str) -> int:
        """Samples of a split; 0 where there is none."""
        return sum(shard.num_samples for shard in self.splits.get(split, ()))


def shard_url(url: str, name: str) -> str:
    """Where a shard named in the manifest of `url` lies."""
    return name if _is_absolute(name) else f"{url.rstrip('/')}/{name}"


def index_url(url: str, name: str) -> str:
    """Where its index lies: beside the shard, or beside the manifest where that was made elsewhere than the tars."""
    if not _is_absolute(name):
        return f"{url.rstrip('/')}/{name}.index"
    tag = hashlib.sha256(name.encode()).hexdigest()[:8]  # two folders may hold tars of one name
    return f"{url.rstrip('/')}/{name.rstrip('/').rpartition('/')[2]}.{tag}.index"


def read_manifest(url: str) -> Manifest:
    """The manifest of the dataset folder at a path or URL, its class names in the one Unicode form.

    Raises:
        ValueError: no folder, no manifest in it, a store that refuses, another format, not JSON, or inconsistent; the
            message names the place and the remedy.
    """
    where = f"{url.rstrip('/')}/{MANIFEST}"
    fs, path = locate(where)
    with explained(where):
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
    """Write the manifest of a dataset folder, whole or not at all.

    Raises:
        ValueError: it is inconsistent, its notes are not JSON, or the store refuses.
    """
    where = f"{url.rstrip('/')}/{MANIFEST}"
    data = format_manifest(manifest)
    if parse_manifest(data, where).fingerprint != manifest.fingerprint:
        raise ValueError(f"{where} would not say what was meant; its names must be plain text")
    locate(where)
    with explained(where):
        write_bytes(where, data)


def format_manifest(manifest: Manifest) -> bytes:
    """The manifest as JSON, a line per shard, the same bytes for equal manifests.

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
        raise ValueError(f"a name in the manifest of {manifest.name!r} is no text: {error}") from None


def parse_manifest(data: bytes | str, where: str) -> Manifest:
    """The manifest in `data`; `where` is for messages.

    Raises:
        ValueError: another format, not JSON, or inconsistent.
    """
    try:
        content = parsed_json(data)
    except ValueError as error:
        raise ValueError(
            f"{where} is truncated or no JSON ({error}); pack the data again, or restore the file"
        ) from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        if found is None or not _is_count(found):
            raise ValueError(f"{where} is no manifest of fourds_dist: it names no format")
        newer = (
            "a newer fourds_dist wrote it; update fourds_dist" if found > FORMAT else "pack the data again"
        )
        raise ValueError(f"{where} has format {found}; this version reads format {FORMAT}: {newer}")
    try:
        manifest = _from_json(content)
        problem = _inconsistency(manifest)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{where} is inconsistent: {type(error).__name__}, {error}; was it edited?"
        ) from None
    if problem is None and content.get("fingerprint") != manifest.fingerprint:
        problem = (
            f"its fingerprint is {content.get('fingerprint')}, but its entries make {manifest.fingerprint}"
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
        return f"class {repeated!r} is there twice"
    if unknown := next((split for split in manifest.splits if split not in SPLITS), None):
        return f"unknown split {unknown!r}; splits are {', '.join(SPLITS)}"
    names = [shard.name for shards in manifest.splits.values() for shard in shards]
    if repeated := first_repeated(names):
        return f"shard {repeated!r} is there twice"
    if manifest.grey_range is not None and not is_range(manifest.grey_range):
        return f"grey_range {manifest.grey_range!r} is not two numbers, the lower one first"
    for split, shards in manifest.splits.items():
        for shard in shards:
            if not isinstance(shard.name, str) or ".." in shard.name.split("/"):
                return f"{shard.name!r} is no name of a shard"
            if not _is_count(shard.num_samples) or not _is_count(shard.num_bytes):
                return f"shard {shard.name!r} has {shard.num_samples} samples in {shard.num_bytes} bytes"
        counts = manifest.class_counts.get(split, ())
        if len(counts) != len(manifest.classes) or not all(map(_is_count, counts)):
            return f"split {split!r} counts {len(counts)} classes of {len(manifest.classes)}"
        if sum(counts) > manifest.num_samples(split):
            return f"split {split!r} has {sum(counts)} labels on {manifest.num_samples(split)} samples"
    return None


def _why_none(url: str) -> str:
    fs, folder = locate(url)
    if not fs.exists(folder):
        return (
            f"{url}: no such folder; check the address, or pack data there with `python -m fourds_dist.pack`"
        )
    if not fs.isdir(folder):
        return f"{url} is a file; give the folder that holds {MANIFEST}"
    entries = sorted(entry.rstrip("/").rpartition("/")[2] for entry in fs.ls(folder, detail=False))
    tars = [name for name in entries if name.endswith(".tar")]
    if "packing.json" in entries:
        return f"{url} holds a packing that did not finish; run the same `python -m fourds_dist.pack` command again"
    if tars:
        return (
            f"{url} holds {len(tars)} tars but no {MANIFEST}; `python -m fourds_dist.pack index {url}` makes one "
            "for any WebDataset tars"
        )
    held = (
        f"it holds {', '.join(entries[:8])}{', ...' if len(entries) > 8 else ''}"
        if entries
        else "it is empty"
    )
    return f"{url} is no dataset folder: it has no {MANIFEST}; {held}"


def first_repeated(names: Sequence[str]) -> str | None:
    """The first name that stands in a list a second time."""
    if len(set(names)) == len(names):
        return None
    met: set[str] = set()
    return next(name for name in names if name in met or met.add(name))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_absolute(name: str) -> bool:
    return "://" in name or name.startswith("/")
