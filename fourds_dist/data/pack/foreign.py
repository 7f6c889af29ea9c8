"""Foreign tars become a dataset: an index for each, made in one streaming pass, and a manifest over all.

The tars stay as they are. Indices are kept while their tar does not change, so that doing it again costs little.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fourds_dist.data.class_list import ClassList
from fourds_dist.data.frames import frames_remark
from fourds_dist.data.grey import GreyRange
from fourds_dist.data.index import ShardIndex, index_tar
from fourds_dist.data.label import LabelField
from fourds_dist.data.manifest import (
    MANIFEST,
    Manifest,
    Shard,
    index_url,
    read_manifest,
    write_manifest,
)
from fourds_dist.data.pack.index_files import read_index, write_index
from fourds_dist.data.pack.listing import common_folder, expand, splits_by_name, version_of
from fourds_dist.data.pack.merging import merged
from fourds_dist.data.pack.plan import OnProgress
from fourds_dist.data.pack.shard_labels import ShardLabels, classes_of, renumbered
from fourds_dist.data.pack.tar_doubles import Prints, all_leaks
from fourds_dist.data.pack.tar_grey import grey_note, with_grey_range
from fourds_dist.data.tar import TarFault
from fourds_dist.storage import check_writable, explained, locate

_READ_BYTES = 8 << 20
_READING = 3
"""Raised whenever indices are made in another way, so that older ones are made again."""


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
        self, url: str, classes: ClassList | None, faults: list[TarFault], stamp: str = ""
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
        urls: tars, folders of tars, brace ranges (train-{000..099}.tar) or globs (also of folders: photos/*/*.tar).
        split: all tars' split, whose listing is replaced where there is one; tars that another split lists leave that.
            None: by the word of a split in each name or folder; train where there is none.
        to: folder for the manifest and the indices; None: beside the tars, the manifest in their common folder.
        name: of the dataset; None: the folder's.
        classes: in label order; None: the list that the manifest there was given, or what the labels tell.
        grey_range: (black, white) of images of more than 8 bits; None: the manifest's that is there, if that was given,
            or measured over all splits (`grey`).
        num_threads: tars read at a time.
        on_progress: is told ("indexing", tars, of how many).

    Raises:
        ValueError: no tars match, a place that cannot be written, a faulty tar, labels that do not fit together, or
            faults that left no labels; the message says what and where.
    """
    LabelField.parse(reading.label)  # refuses what is none
    tars = [tar for url in urls for tar in expand(url)]
    if repeated := next((tar for tar, count in Counter(tars).items() if count > 1), None):
        raise ValueError(f"{repeated} is given twice")
    folder = (to or common_folder(tars)).rstrip("/")
    _refuse_unwritable(folder, beside_tars=to is None)
    names = {tar: tar if to is not None else tar[len(folder) + 1 :] for tar in tars}
    if to is not None:
        names = {tar: tar if "://" in tar else os.path.abspath(tar) for tar in tars}  # noqa: PTH100  (keeps links)
    told = dict.fromkeys(tars, split) if split else splits_by_name(tars)
    splits = {tar: told[tar] or "train" for tar in tars}
    held = _held(folder)
    known, ours = _agreed(classes, held, set(splits.values()), folder)
    how = f"{_READING}:{dataclasses.astuple(reading)!r}"
    if known is not None and known.named(-1) is not None:
        how += ":-1"  # is a class, not the mark of unlabelled samples
    faults: list[TarFault] = []

    def list_of(tar: str) -> ClassList | None:
        return ours if names[tar] in our_names else known

    our_names = _packed_by_us(held)

    def one(tar: str) -> tuple[ShardLabels, Prints, bool]:
        where, stamp, fitting = index_url(folder, names[tar]), version_of(tar) + how, list_of(tar)
        with contextlib.suppress(ValueError, FileNotFoundError):
            if (index := read_index(where)).stamp == stamp:
                there = ShardLabels.of(index)
                if fitting is None or there.positions(fitting) is not None:
                    return there, Prints.of(index), False
        mine: list[TarFault] = []
        index = reading.index(tar, fitting, mine, stamp)
        if mine:  # what is left out is told each time, so such an index is not taken for current
            index = dataclasses.replace(index, stamp="")
            faults.extend(mine)
        write_index(where, index)
        return ShardLabels.of(index), Prints.of(index), True

    found: list[ShardLabels] = []
    prints: list[Prints] = []
    num_read = 0
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for labels, of_images, was_read in pool.map(one, tars):
                found.append(labels)
                prints.append(of_images)
                num_read += was_read
                on_progress("indexing", len(found), len(tars))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _refuse_nothing_left(folder, found, faults)
    final = known if known is not None else ClassList(classes_of(folder, tars, found))
    shards: dict[str, list[Shard]] = {}
    counts: dict[str, Counter[str]] = {}
    for number, (tar, labels) in enumerate(zip(tars, found, strict=True)):
        fitting = list_of(tar) or final
        prints[number] = prints[number].placed(labels.positions(fitting))
        if labels.needs_renumbering(fitting):
            where = index_url(folder, names[tar])
            write_index(where, renumbered(read_index(where), fitting))
        shards.setdefault(splits[tar], []).append(
            Shard(names[tar], labels.num_samples, labels.num_bytes, labels.sha256 or None)
        )
        counts.setdefault(splits[tar], Counter()).update(labels.counts(fitting))
    notes: dict[str, object] = {"class list": "given"} if classes is not None or _is_given(held) else {}
    remarks = [*_other_images(found, reading), *_with_frames(found)]
    unclear = [names[tar] for tar in tars if told[tar] is None]
    if unclear and len(unclear) < len(tars):
        text = f"no split in the names of {len(unclear)} tars, which count as train: {', '.join(unclear[:5])}"
        remarks.insert(0, text)
    foreign = {splits[tar] for tar in tars if names[tar] not in our_names}
    indexed: dict[str, dict[str, Any]] = {
        split: {
            **dataclasses.asdict(reading),
            "grey": grey_note(one for tar, one in zip(tars, found, strict=True) if splits[tar] == split),
        }
        for split in foreign
    }
    manifest = merged(held, folder, name, final.names, shards, counts, indexed, notes)
    manifest = with_grey_range(manifest, held, grey_range)
    ours_now = [(names[tar], splits[tar], of_images) for tar, of_images in zip(tars, prints, strict=True)]
    remarks += all_leaks(manifest, folder, ours_now, num_threads)
    if remarks:
        manifest = dataclasses.replace(manifest, notes={**manifest.notes, "remarks": remarks})
    write_manifest(folder, manifest)
    return Indexed(folder, manifest, num_read, tuple(faults))


def _other_images(found: Sequence[ShardLabels], reading: Reading) -> list[str]:
    """A sentence on images that are not taken since their samples have others."""
    others = sum((Counter(labels.other_images) for labels in found), Counter())
    if not others or reading.image is not None:
        return []
    listed = ", ".join(f"{count} {field}" for field, count in others.most_common())
    return [
        f"samples have further images beside the one that is taken: {listed}; if one of these is meant, say --image "
        f"{others.most_common(1)[0][0]}"
    ]


def _with_frames(found: Sequence[ShardLabels]) -> list[str]:
    """A sentence on images of several frames."""
    first = next((labels.first_with_frames for labels in found if labels.num_with_frames), "")
    return frames_remark(sum(labels.num_with_frames for labels in found), first)


def _refuse_unwritable(folder: str, *, beside_tars: bool) -> None:
    """Refuse a folder for manifest and indices that cannot be written, before any tar is read."""
    remedy = "give a folder for the manifest and the indices by --to DEST"
    try:
        check_writable(folder)
    except ValueError as error:
        cause = str(error).removesuffix("; give another place")
        raise ValueError(f"{cause}; {remedy}" if beside_tars else str(error)) from None


def _refuse_nothing_left(folder: str, found: Sequence[ShardLabels], faults: Sequence[TarFault]) -> None:
    """Refuse a data set that lost all its samples or all its labels to faults."""
    if not faults:
        return
    left = sum(labels.num_samples for labels in found)
    if not left or not any(labels.by_label for labels in found):
        what = "none is left" if not left else f"none of the {left} that are left has a label"
        first = next((fault for fault in faults if fault.kind == "apart"), faults[0])
        raise ValueError(f"{folder}: {len(faults)} faults were left out, and {what}; the first: {first}")


def _held(folder: str) -> Manifest | None:
    fs, path = locate(f"{folder}/{MANIFEST}")
    with explained(folder):
        fs.invalidate_cache()
        return read_manifest(folder) if fs.exists(path) else None


def _packed_by_us(held: Manifest | None) -> set[str]:
    """Shards of a data set that fourds_dist packed: they hold positions in its class list."""
    if held is None or "packing" not in held.notes:
        return set()
    foreign = held.notes.get("indexed", {})
    return {shard.name for split, shards in held.splits.items() if split not in foreign for shard in shards}


def _is_given(held: Manifest | None) -> bool:
    return held is not None and held.notes.get("class list") == "given"


def _agreed(
    classes: Sequence[str] | None, held: Manifest | None, replaced: set[str], folder: str
) -> tuple[ClassList | None, ClassList | None]:
    """The class list that the labels have to fit, if it is known beforehand; and for tars that fourds_dist packed."""
    if held is None:
        return (None if classes is None else ClassList(classes)), None
    ours = ClassList(held.classes, by_position=True) if _packed_by_us(held) else None
    if ours is not None or set(held.splits) - replaced:
        if classes is not None and tuple(classes) != held.classes:
            raise ValueError(
                f"{folder} has other classes ({', '.join(held.classes[:5])}, ...) than --classes "
                f"({', '.join(classes[:5])}, ...); "
                + ("pack it again" if ours is not None else "index all its splits together")
            )
        return ClassList(held.classes), ours
    if classes is None and _is_given(held):
        return ClassList(held.classes), None
    return (None if classes is None else ClassList(classes)), None
