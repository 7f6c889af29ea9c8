"""Make the index of a tar in one pass, by WebDataset's conventions (`webdataset_samples`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

import numpy as np

from fourds_dist.data.format.class_list import ClassList, Label, in_order, number_of
from fourds_dist.data.format.index import UNLABELLED, ShardIndex
from fourds_dist.data.pack.label_field import LabelField
from fourds_dist.data.pack.tar import TarStream
from fourds_dist.data.pack.tar_images import TarImages
from fourds_dist.data.pack.webdataset_samples import OnFault, SampleGrouping, TarSample


def index_tar(
    file: BinaryIO,
    where: str,
    *,
    label: LabelField = LabelField(),  # noqa: B008  (immutable)
    image: str | None = None,
    classes: ClassList | Sequence[str] | None = None,
    allow_unlabelled: bool = False,
    checksum: bool = True,
    on_fault: OnFault | None = None,
    stamp: str = "",
    measure: bool = True,
    decode: int | None = None,
) -> ShardIndex:
    """Index a tar in one pass, without seeking.

    Args:
        file: open at the tar's first byte.
        where: name of the tar in messages.
        label: the field of the label.
        image: field of the image; None: the first of IMAGES that a sample has.
        classes: class list in label order; labels outside the list are faults. None: numbers are taken as positions,
            and names are sorted. The index's `classes` are the names of its labels, empty if labels are positions.
        allow_unlabelled: samples without the label's field are unlabelled, not faults.
        checksum: compute the tar's SHA-256.
        on_fault: called with every fault; the faulty sample is left out, and around damage also the samples before
            and after. None: the first fault is raised.
        stamp: stored in the index.
        measure: decode images of more than 8 bits, for the grey range of the dataset.
        decode: decode every image, of at most this many pixels; an image that cannot be decoded is a fault. None: do
            not decode.

    Raises:
        TarFault: (a ValueError) with shard, member, byte and remedy.
    """
    known = classes if isinstance(classes, ClassList | None) else ClassList(classes)
    grouping = SampleGrouping(
        where,
        label=label,
        image=image,
        classes=known,
        allow_unlabelled=allow_unlabelled,
        on_fault=on_fault,
    )
    images = TarImages(where, label.extension, image, on_fault, measure=measure, decode=decode)
    stream = TarStream(file, where, keep=images.most_kept, checksum=checksum)
    for item in stream:
        grouping.add(images.passed(item))
    samples = images.good(grouping.finish())
    values = [sample.label for sample in samples]
    labels, names = _numbered(values, where, known)
    if known is not None and names and any(v is not None and known.named(v) is None for v in values):
        stamp = (
            ""  # a mix of names and positions is valid for this class list only, so the index is not reused
        )
    return replace(
        _columns(samples, labels, names, stream, stamp),
        grey=images.grey(samples),
        with_frames=np.array(images.with_frames(samples), dtype=np.str_),
    )


def _columns(
    samples: list[TarSample], labels: np.ndarray, names: tuple[str, ...], stream: TarStream, stamp: str
) -> ShardIndex:
    images = [sample.members[sample.image] for sample in samples]
    fields = tuple(sorted({name for sample in samples for name in sample.members}))
    members = [[sample.members.get(name) for name in fields] for sample in samples]
    shape = (len(samples), len(fields))
    return ShardIndex(
        keys=np.array([sample.key for sample in samples], dtype=np.str_),
        extensions=np.array([sample.image for sample in samples], dtype=np.str_),
        offsets=np.array([m.offset for m in images], dtype=np.int64),
        sizes=np.array([m.size for m in images], dtype=np.int64),
        labels=labels,
        checksums=np.array([m.crc32 for m in images], dtype=np.uint32),
        fields=fields,
        fields_offsets=np.array([[m.offset if m else -1 for m in row] for row in members], np.int64).reshape(
            shape
        ),
        fields_sizes=np.array([[m.size if m else -1 for m in row] for row in members], np.int64).reshape(
            shape
        ),
        classes=names,
        num_bytes=stream.num_bytes,
        sha256=stream.sha256 or "",
        stamp=stamp,
    )


def _numbered(
    values: list[Label | None], where: str, classes: ClassList | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the labels as numbers, and their names; no names if the numbers are positions in a later class list."""
    present = {value for value in values if value is not None}
    number: dict[Label, int]
    if classes is not None:
        found = {value: classes.position(value) for value in present}
        number = {value: position for value, position in found.items() if position is not None}
        is_named = any(classes.named(value) is not None for value in present)
        names = classes.names if is_named else ()
    elif any(isinstance(value, int) for value in present):
        found = {value: number_of(value) for value in present}
        number = {value: n for value, n in found.items() if n is not None}
        if len(number) < len(present):
            name = min(v for v in present if isinstance(v, str) and v not in number)
            raise ValueError(
                f"{where} has both class names ({name!r}) and class numbers as labels; give --classes"
            )
        names = ()
    else:
        names = in_order(str(value) for value in present)
        number = {name: position for position, name in enumerate(names)}
    labels = [UNLABELLED if value is None else number[value] for value in values]
    return np.array(labels, dtype=np.int32), names
