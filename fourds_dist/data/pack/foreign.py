"""Foreign tars become a dataset: an index for each, made in one streaming pass, and a manifest over all.

The tars stay as they are. Indices are kept while their tar does not change, so that doing it again costs little.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from fourds_dist.data.grey import Grey, GreyRange, from_json, joined
from fourds_dist.data.index import UNLABELLED, ShardIndex, index_tar
from fourds_dist.data.label import LabelField
from fourds_dist.data.manifest import (
    MANIFEST,
    SPLITS,
    Manifest,
    Shard,
    index_url,
    read_manifest,
    write_manifest,
)
from fourds_dist.data.pack.listing import common_folder, expand, split_of, version_of
from fourds_dist.data.pack.plan import OnProgress
from fourds_dist.data.tar import TarFault
from fourds_dist.storage import explained, locate, write_bytes

_READ_BYTES = 8 << 20


@dataclass(frozen=True)
class Reading:
    """How foreign tars are to be read; kept in the manifest's notes, and a part of every index's stamp."""

    label: str = "cls"
    """A `LabelField`."""
    image: str | None = None
    """Field of the image; None: the first of grouping.IMAGES."""
    unlabelled: bool = False
    """Samples without a label are taken as unlabelled."""
    skip_bad: bool = False
    """Faulty samples are left out and counted."""
    checksum: bool = True
    """Take the tars' SHA-256."""
    decode: int | None = None
    """Decode every image, of at most so many pixels; those that cannot be decoded are faults. None: none."""

    def index(
        self, url: str, classes: Sequence[str] | None, faults: list[TarFault], stamp: str = ""
    ) -> ShardIndex:
        """One pass over a tar.

        Raises:
            ValueError: the first fault, without skip_bad.
        """
        fs, path = locate(url)
        with explained(url), fs.open(path, "rb", block_size=_READ_BYTES, cache_type="readahead") as file:
            return index_tar(
                file,  # pyright: ignore[reportArgumentType]
                url,
                label=LabelField.parse(self.label),
                image=self.image,
                classes=classes,
                allow_unlabelled=self.unlabelled,
                checksum=self.checksum,
                on_fault=faults.append if self.skip_bad else None,
                stamp=stamp,
                decode=self.decode,
            )


@dataclass(frozen=True)
class Indexed:
    """What `index_foreign` did."""

    url: str
    """Folder of the manifest."""
    manifest: Manifest
    num_read: int
    """Tars that were read; the others' indices were there already."""
    faults: tuple[TarFault, ...]
    """What was left out."""


def index_foreign(
    urls: Sequence[str],
    *,
    split: str | None = None,
    to: str | None = None,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    reading: Reading = Reading(),
    grey_range: GreyRange | None = None,
    num_threads: int = 4,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Indexed:
    """Index tars at paths or URLs and write a manifest, or add to the one that is there.

    Args:
        urls: tars, folders of tars, brace ranges (train-{000..099}.tar) or globs.
        split: all tars' split, whose listing is replaced where there is one; None: by the beginning of each name,
            or train where names do not tell.
        to: folder for the manifest and the indices; None: beside the tars, the manifest in their common folder.
        name: of the dataset; None: the folder's.
        classes: in label order; None: the manifest's that is there, or what the labels tell.
        grey_range: (black, white) of images of more than 8 bits; None: the manifest's that is there, if that was given,
            or measured over all splits (`grey`).
        num_threads: tars read at a time.
        on_progress: is told ("indexing", tars, of how many).

    Raises:
        ValueError: no tars match, a faulty tar, or labels that do not fit together; the message says what and where.
    """
    tars = [tar for url in urls for tar in expand(url)]
    if repeated := next((tar for tar, count in Counter(tars).items() if count > 1), None):
        raise ValueError(f"{repeated} is given twice")
    folder = (to or common_folder(tars)).rstrip("/")
    names = {tar: tar if to is not None else tar[len(folder) + 1 :] for tar in tars}
    if to is not None:
        names = {tar: tar if "://" in tar else os.path.abspath(tar) for tar in tars}  # noqa: PTH100  (keeps links)
    splits = {tar: split or split_of(tar, tars) for tar in tars}
    held = _held(folder)
    known = _agreed(classes, held, set(splits.values()), folder)
    how = repr(dataclasses.astuple(reading))
    faults: list[TarFault] = []

    def one(tar: str) -> tuple[_Labels, bool]:
        where, stamp = index_url(folder, names[tar]), version_of(tar) + how
        with contextlib.suppress(ValueError, FileNotFoundError):
            if (index := _read_index(where)).stamp == stamp and (there := _Labels.of(index)).fit(known):
                return there, False
        mine: list[TarFault] = []
        index = reading.index(tar, known, mine, stamp)
        if mine:  # what is left out is told each time, so such an index is not taken for current
            index = dataclasses.replace(index, stamp="")
            faults.extend(mine)
        _write_index(where, index)
        return _Labels.of(index), True

    found: list[_Labels] = []
    num_read = 0
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for labels, was_read in pool.map(one, tars):
                found.append(labels)
                num_read += was_read
                on_progress("indexing", len(found), len(tars))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    final = known if known is not None else _classes_of(tars, found)
    shards: dict[str, list[Shard]] = {}
    counts: dict[str, Counter[str]] = {}
    for tar, labels in zip(tars, found, strict=True):
        if labels.classes and labels.classes != final:
            where = index_url(folder, names[tar])
            _write_index(where, _renumbered(_read_index(where), final))
        shards.setdefault(splits[tar], []).append(
            Shard(names[tar], labels.num_samples, labels.num_bytes, labels.sha256 or None)
        )
        counts.setdefault(splits[tar], Counter()).update(labels.counts(final))
    how_by_split: dict[str, dict[str, Any]] = {
        one: {
            **dataclasses.asdict(reading),
            "grey": _grey(labels for tar, labels in zip(tars, found, strict=True) if splits[tar] == one),
        }
        for one in shards
    }
    manifest = _merged(held, name or folder.rpartition("/")[2], final, shards, counts, how_by_split)
    manifest = _with_grey_range(manifest, held, grey_range)
    write_manifest(folder, manifest)
    return Indexed(folder, manifest, num_read, tuple(faults))


@dataclass(frozen=True)
class _Labels:
    """What is kept of an index until all are made: a shard's worth of columns is too much for many shards."""

    num_samples: int
    num_bytes: int
    sha256: str
    classes: tuple[str, ...]
    """Names that the labels stand for; empty where they are numbers."""
    by_label: Mapping[int, int]
    """Label -> samples, without the unlabelled."""
    grey: Grey | None

    @classmethod
    def of(cls, index: ShardIndex) -> _Labels:
        labels, counts = np.unique(index.labels[index.labels != UNLABELLED], return_counts=True)
        by_label = dict(zip(labels.tolist(), counts.tolist(), strict=True))
        grey = from_json(index.grey)
        return cls(len(index), index.num_bytes, index.sha256, index.classes, by_label, grey)

    def fit(self, classes: tuple[str, ...] | None) -> bool:
        """Whether a class list has all that the labels stand for."""
        if classes is None:
            return True
        if self.classes:
            return {self.classes[label] for label in self.by_label} <= set(classes)
        return max(self.by_label, default=-1) < len(classes)

    def counts(self, classes: tuple[str, ...]) -> Counter[str]:
        """Class -> samples."""
        return Counter({(self.classes or classes)[label]: count for label, count in self.by_label.items()})


def _held(folder: str) -> Manifest | None:
    fs, path = locate(f"{folder}/{MANIFEST}")
    with explained(folder):
        fs.invalidate_cache()
        return read_manifest(folder) if fs.exists(path) else None


def _agreed(
    classes: Sequence[str] | None, held: Manifest | None, replaced: set[str], folder: str
) -> tuple[str, ...] | None:
    """The class list that the labels have to fit, if it is known beforehand."""
    if held is None or not set(held.splits) - replaced:
        return None if classes is None else tuple(classes)
    if classes is not None and tuple(classes) != held.classes:
        raise ValueError(
            f"{folder} has other classes ({', '.join(held.classes[:5])}, ...) than --classes "
            f"({', '.join(classes[:5])}, ...); index all its splits together"
        )
    return held.classes


def _read_index(where: str) -> ShardIndex:
    fs, path = locate(where)
    with explained(where):
        return ShardIndex.from_bytes(fs.cat_file(path), where)  # pyright: ignore[reportArgumentType]


def _write_index(where: str, index: ShardIndex) -> None:
    with explained(where):
        write_bytes(where, index.to_bytes())


def _classes_of(tars: Sequence[str], found: Sequence[_Labels]) -> tuple[str, ...]:
    """All names in the tars, sorted; or numbers up to the largest."""
    names = sorted({labels.classes[n] for labels in found if labels.classes for n in labels.by_label})
    numbered = [
        (tar, labels)
        for tar, labels in zip(tars, found, strict=True)
        if not labels.classes and labels.by_label
    ]
    if names and numbered:
        raise ValueError(
            f"{numbered[0][0]} has class numbers where other tars have names ({names[0]!r}); give --classes"
        )
    if not names and not numbered:
        raise ValueError("no sample has a label; give the class list that the model is to tell by --classes")
    return tuple(names or map(str, range(max(max(labels.by_label) for _, labels in numbered) + 1)))


def _renumbered(index: ShardIndex, classes: tuple[str, ...]) -> ShardIndex:
    """The same index with labels by the list that all shards share."""
    number = {name: n for n, name in enumerate(classes)}
    # A name without samples, left from an earlier listing, may be gone.
    table = np.array([*(number.get(name, UNLABELLED) for name in index.classes), UNLABELLED], dtype=np.int32)
    return dataclasses.replace(index, labels=table[index.labels], classes=classes)


def _merged(
    held: Manifest | None,
    name: str,
    classes: tuple[str, ...],
    shards: Mapping[str, list[Shard]],
    counts: Mapping[str, Counter[str]],
    how: Mapping[str, Mapping[str, Any]],
) -> Manifest:
    mine = {split: tuple(listed) for split, listed in shards.items()}
    my_counts = {split: tuple(count[name] for name in classes) for split, count in counts.items()}
    if held is None:
        return Manifest(name, classes, mine, my_counts, {"indexed": dict(how)})
    splits, all_counts = {**held.splits, **mine}, {**held.class_counts, **my_counts}
    order = [split for split in SPLITS if split in splits]
    notes = {**held.notes, "indexed": {**held.notes.get("indexed", {}), **how}}
    return Manifest(
        held.name, classes, {s: splits[s] for s in order}, {s: all_counts[s] for s in order}, notes
    )


def _grey(labels: Iterable[_Labels]) -> dict[str, Any] | None:
    grey = joined(one.grey for one in labels)
    return None if grey is None else dataclasses.asdict(grey)


def _with_grey_range(manifest: Manifest, held: Manifest | None, given: GreyRange | None) -> Manifest:
    """The range of all splits together: given now or earlier, else measured."""
    told = [how.get("grey") for how in manifest.notes["indexed"].values()]
    grey = joined(Grey(**one) for one in told if one)
    if given is None and held is not None and held.notes.get("grey range given"):
        given = held.grey_range
    notes = {k: v for k, v in manifest.notes.items() if k not in ("grey", "grey range given")}
    notes |= ({"grey": dataclasses.asdict(grey)} if grey else {}) | (
        {"grey range given": True} if given else {}
    )
    return dataclasses.replace(manifest, notes=notes, grey_range=given or (grey and grey.range))
