"""Make a dataset of existing tars: an index of each tar, made in one streaming pass, and one manifest.

The tars are not changed. The index of an unchanged tar is reused, so that indexing again is cheap.
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

from fourds_dist.data.decode.grey import GreyRange
from fourds_dist.data.files.frames import frames_remark
from fourds_dist.data.files.progress import OnProgress
from fourds_dist.data.format.class_list import ClassList
from fourds_dist.data.format.index import ShardIndex
from fourds_dist.data.format.manifest import (
    MANIFEST,
    Manifest,
    Shard,
    index_url,
    read_manifest,
    write_manifest,
)
from fourds_dist.data.pack.index_files import read_index, write_index
from fourds_dist.data.pack.indexing import index_tar
from fourds_dist.data.pack.label_field import LabelField
from fourds_dist.data.pack.merging import merged
from fourds_dist.data.pack.shard_labels import ShardLabels, classes_of, refuse_other_classes, renumbered
from fourds_dist.data.pack.shard_urls import common_folder, expand, splits_by_name, version_of
from fourds_dist.data.pack.tar import TarFault
from fourds_dist.data.pack.tar_doubles import Prints, all_leaks
from fourds_dist.data.pack.tar_grey import grey_note, with_grey_range
from fourds_dist.io.storage import check_writable, locate, translate_storage_errors

_READ_BYTES = 8 << 20
_READING = 3
"""Version of the indexing code. A new number makes older indices stale."""


@dataclass(frozen=True)
class TarReadOptions:
    """How existing tars are read; stored in the manifest's notes, and part of every index's stamp."""

    label: str = "cls"
    """A `LabelField`."""
    image: str | None = None
    """Field of the image; None: the first of `webdataset_samples.IMAGES` that a sample has."""
    unlabelled: bool = False
    """Accept samples without a label as unlabelled."""
    skip_bad: bool = False
    """Leave out and count faulty samples."""
    checksum: bool = True
    """Compute the SHA-256 of each tar."""
    decode: int | None = None
    """Decode every image, of at most this many pixels; undecodable images are faults. None: do not decode."""

    def index(
        self, url: str, classes: ClassList | None, faults: list[TarFault], stamp: str = ""
    ) -> ShardIndex:
        """Index a tar in one pass.

        Raises:
            ValueError: the first fault, without `skip_bad`.
        """
        fs, path = locate(url)
        with (
            translate_storage_errors(url),
            fs.open(path, "rb", block_size=_READ_BYTES, cache_type="readahead") as file,
        ):
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
class IndexedTar:
    """Result of `index_existing_tars`."""

    url: str
    """Folder of the manifest."""
    manifest: Manifest
    num_read: int
    """Tars that were read; the indices of the other tars were reused."""
    num_tars: int
    """All tars of this call."""
    faults: tuple[TarFault, ...]
    """Faults whose samples were left out."""


def index_existing_tars(
    urls: Sequence[str],
    *,
    split: str | None = None,
    to: str | None = None,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    reading: TarReadOptions = TarReadOptions(),
    grey_range: GreyRange | None = None,
    num_threads: int = 4,
    on_progress: OnProgress = lambda what, done, total: None,
) -> IndexedTar:
    """Index tars at paths or URLs, and write a manifest or extend the existing one.

    Args:
        urls: tars, folders of tars, brace ranges (train-{000..099}.tar) or globs (also of folders: photos/*/*.tar).
        split: split of all given tars; replaces this split in an existing manifest, and removes the tars from other
            splits. None: the split that each name or folder contains as a word; train without such a word.
        to: folder of the manifest and the indices; None: indices beside the tars, the manifest in their common folder.
        name: name of the dataset; None: the folder's name.
        classes: in label order; None: the given list of the existing manifest, or a list deduced from the labels.
        grey_range: (black, white) of images of more than 8 bits; None: the given range of the existing manifest, or
            a range measured over all splits (`grey`).
        num_threads: number of tars read at the same time.
        on_progress: called with ("indexing", tars done, tars in all).

    Raises:
        ValueError: no tars match, the folder cannot be written, a tar is faulty, labels do not fit together, no
            labelled sample is left without the faulty ones, or a split by name has other classes than train.
    """
    LabelField.parse(reading.label)  # refuses an invalid label field
    tars = [tar for url in urls for tar in expand(url)]
    if repeated := next((tar for tar, count in Counter(tars).items() if count > 1), None):
        raise ValueError(f"{repeated} is given twice")
    folder = (to or common_folder(tars)).rstrip("/")
    _refuse_unwritable(folder, beside_tars=to is None)
    names = {tar: tar if to is not None else tar[len(folder) + 1 :] for tar in tars}
    if to is not None:
        names = {tar: tar if "://" in tar else os.path.abspath(tar) for tar in tars}  # noqa: PTH100  (keeps links)
    given_splits = dict.fromkeys(tars, split) if split else splits_by_name(tars)
    splits = {tar: given_splits[tar] or "train" for tar in tars}
    existing = _existing_manifest(folder)
    known, packed_classes = _class_lists(classes, existing, set(splits.values()), folder)
    how = f"{_READING}:{dataclasses.astuple(reading)!r}"
    if known is not None and known.named(-1) is not None:
        how += ":-1"  # -1 is a class, not the mark of unlabelled samples
    faults: list[TarFault] = []
    packed_names = _packed_shards(existing)

    def list_of(tar: str) -> ClassList | None:
        return packed_classes if names[tar] in packed_names else known

    def index_one(tar: str) -> tuple[ShardLabels, Prints, bool]:
        where, stamp, class_list = index_url(folder, names[tar]), version_of(tar) + how, list_of(tar)
        with contextlib.suppress(ValueError, FileNotFoundError):
            if (index := read_index(where)).stamp == stamp:
                labels = ShardLabels.of(index)
                if class_list is None or labels.positions(class_list) is not None:
                    return labels, Prints.of(index), False
        tar_faults: list[TarFault] = []
        index = reading.index(tar, class_list, tar_faults, stamp)
        if tar_faults:  # faults are reported on every run, so the index of a faulty tar is not reused
            index = dataclasses.replace(index, stamp="")
            faults.extend(tar_faults)
        write_index(where, index)
        return ShardLabels.of(index), Prints.of(index), True

    found: list[ShardLabels] = []
    prints: list[Prints] = []
    num_read = 0
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for labels, image_prints, was_read in pool.map(index_one, tars):
                found.append(labels)
                prints.append(image_prints)
                num_read += was_read
                on_progress("indexing", len(found), len(tars))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    where = ", ".join(urls[:3]) + (", ..." if len(urls) > 3 else "")
    _refuse_nothing_left(where, found, faults)
    final = known if known is not None else ClassList(classes_of(where, tars, found))
    shards: dict[str, list[Shard]] = {}
    counts: dict[str, Counter[str]] = {}
    for number, (tar, labels) in enumerate(zip(tars, found, strict=True)):
        class_list = list_of(tar) or final
        prints[number] = prints[number].placed(labels.positions(class_list))
        if labels.needs_renumbering(class_list):
            index_file = index_url(folder, names[tar])
            write_index(index_file, renumbered(read_index(index_file), class_list))
        shards.setdefault(splits[tar], []).append(
            Shard(names[tar], labels.num_samples, labels.num_bytes, labels.sha256 or None)
        )
        counts.setdefault(splits[tar], Counter()).update(labels.counts(class_list))
    if split is None:
        refuse_other_classes(counts, {names[tar]: of for tar, of in given_splits.items() if of})
    notes: dict[str, object] = {"class list": "given"} if classes is not None or _is_given(existing) else {}
    remarks = [*_other_images(found, reading), *_with_frames(found)]
    without_split = [names[tar] for tar in tars if given_splits[tar] is None]
    if without_split and len(without_split) < len(tars):
        listed = ", ".join(without_split[:5])
        text = f"no split in the names of {len(without_split)} tars, which count as train: {listed}"
        remarks.insert(0, text)
    indexed_splits = {splits[tar] for tar in tars if names[tar] not in packed_names}
    indexed: dict[str, dict[str, Any]] = {
        split: {
            **dataclasses.asdict(reading),
            "grey": grey_note(of for tar, of in zip(tars, found, strict=True) if splits[tar] == split),
        }
        for split in indexed_splits
    }
    manifest = merged(existing, folder, name, final.names, shards, counts, indexed, notes)
    manifest = with_grey_range(manifest, existing, grey_range)
    new_prints = [(names[tar], splits[tar], of_tar) for tar, of_tar in zip(tars, prints, strict=True)]
    remarks += all_leaks(manifest, folder, new_prints, num_threads)
    if remarks:
        manifest = dataclasses.replace(manifest, notes={**manifest.notes, "remarks": remarks})
    write_manifest(folder, manifest)
    return IndexedTar(folder, manifest, num_read, len(tars), tuple(faults))


def _other_images(found: Sequence[ShardLabels], reading: TarReadOptions) -> list[str]:
    """Remark on the further images of samples that have several."""
    others = sum((Counter(labels.other_images) for labels in found), Counter())
    if not others or reading.image is not None:
        return []
    listed = ", ".join(f"{count} {field}" for field, count in others.most_common())
    return [
        f"samples have more images than the one that is used: {listed}; to use another one, give --image "
        f"{others.most_common(1)[0][0]}"
    ]


def _with_frames(found: Sequence[ShardLabels]) -> list[str]:
    """Remark on images of several frames."""
    first = next((labels.first_with_frames for labels in found if labels.num_with_frames), "")
    return frames_remark(sum(labels.num_with_frames for labels in found), first)


def _refuse_unwritable(folder: str, *, beside_tars: bool) -> None:
    """Refuse a folder of manifest and indices that cannot be written, before any tar is read."""
    if beside_tars:
        check_writable(folder, fix="give a folder for the manifest and the indices by --to DEST")
    else:
        check_writable(folder)


def _refuse_nothing_left(where: str, found: Sequence[ShardLabels], faults: Sequence[TarFault]) -> None:
    """Refuse a dataset without any sample or any label once the faulty samples are left out."""
    if not faults:
        return
    num_left = sum(labels.num_samples for labels in found)
    if not num_left or not any(labels.by_label for labels in found):
        what = f"none of the {num_left} samples left has a label" if num_left else "no sample is left"
        first = next((fault for fault in faults if fault.kind == "apart"), faults[0])
        raise ValueError(f"{where}: {what}; {len(faults)} faults were skipped, the first: {first}")


def _existing_manifest(folder: str) -> Manifest | None:
    fs, path = locate(f"{folder}/{MANIFEST}")
    with translate_storage_errors(folder):
        fs.invalidate_cache()
        return read_manifest(folder) if fs.exists(path) else None


def _packed_shards(existing: Manifest | None) -> set[str]:
    """Names of the shards that fourds_dist packed; their labels are positions in the class list."""
    if existing is None or "packing" not in existing.notes:
        return set()
    indexed = existing.notes.get("indexed", {})
    return {
        shard.name for split, shards in existing.splits.items() if split not in indexed for shard in shards
    }


def _is_given(existing: Manifest | None) -> bool:
    return existing is not None and existing.notes.get("class list") == "given"


def _class_lists(
    classes: Sequence[str] | None, existing: Manifest | None, replaced: set[str], folder: str
) -> tuple[ClassList | None, ClassList | None]:
    """Return the class list of the given tars (None: to be deduced), and the class list of packed shards."""
    if existing is None:
        return (None if classes is None else ClassList(classes)), None
    packed_classes = ClassList(existing.classes, by_position=True) if _packed_shards(existing) else None
    if packed_classes is not None or set(existing.splits) - replaced:
        if classes is not None and tuple(classes) != existing.classes:
            raise ValueError(
                f"{folder} has other classes ({', '.join(existing.classes[:5])}, ...) than --classes "
                f"({', '.join(classes[:5])}, ...); "
                + ("pack it again" if packed_classes is not None else "index all its splits together")
            )
        return ClassList(existing.classes), packed_classes
    if classes is None and _is_given(existing):
        return ClassList(existing.classes), None
    return (None if classes is None else ClassList(classes)), None
