"""The index beside a shard, `SHARD.index`: where every sample of the tar lies, so that it can be read by range.

One row per sample, in the tar's order. It is a NumPy archive of plain arrays and is read without unpickling.
`index_tar` makes it in one pass over any WebDataset tar, by that package's conventions (`grouping`).
"""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import BinaryIO

import numpy as np

from fourds_dist.data.class_list import ClassList, Label, in_order, number_of
from fourds_dist.data.grouping import Grouping, OnFault, Sample
from fourds_dist.data.label import LabelField
from fourds_dist.data.tar import TarStream
from fourds_dist.data.tar_images import TarImages

FORMAT = 1
UNLABELLED = -1

_ONE_AT_A_TIME = threading.Lock()
"""NumPy reads headers by Python's parser, which in 3.11 fails now and then when several threads use it at once
(python/cpython#106905: "AST constructor recursion depth mismatch")."""


@dataclass(frozen=True)
class ShardIndex:
    """Columns of one shard's samples."""

    keys: np.ndarray
    """(n,) unicode: names of the samples."""
    extensions: np.ndarray
    """(n,) unicode: field of the image, e.g. jpg."""
    offsets: np.ndarray
    """(n,) int64: first byte of the image in the tar."""
    sizes: np.ndarray
    """(n,) int64: its bytes."""
    labels: np.ndarray
    """(n,) int32: class; -1 unlabelled."""
    checksums: np.ndarray
    """(n,) uint32: zlib.crc32 of the image."""
    fields: tuple[str, ...] = ()
    """Every field that any sample has."""
    fields_offsets: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    """(n, fields) int64: first byte of each; -1 where a sample lacks it."""
    fields_sizes: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    """(n, fields) int64: its bytes; -1 where a sample lacks it."""
    classes: tuple[str, ...] = ()
    """Names that the labels stand for, where the tar holds names; empty where it holds numbers."""
    num_bytes: int = 0
    """Size of the tar."""
    sha256: str = ""
    """Of the tar; empty if it was not taken."""
    stamp: str = ""
    """Version of the tar and way of reading that the index was made with; another stamp, another index."""
    grey: str = ""
    """What the images of more than 8 bits hold (`grey.to_json`), of foreign tars; empty where there are none."""
    sources: np.ndarray = field(default_factory=lambda: np.zeros(0, np.str_))
    """(n,) unicode: the file that each image was packed from, for people; (0,) where that is not known."""
    with_frames: np.ndarray = field(default_factory=lambda: np.zeros(0, np.str_))
    """(m,) unicode: keys of the samples whose image has several frames, of foreign tars."""

    def __len__(self) -> int:
        return len(self.keys)

    def to_bytes(self) -> bytes:
        """The index as a file, the same bytes for equal indices."""
        columns = {name: np.asarray(getattr(self, name)) for name in (f.name for f in fields(self))}
        for name in ("fields", "classes"):
            columns[name] = np.array(getattr(self, name), dtype=np.str_)
        file = io.BytesIO()
        np.savez_compressed(file, allow_pickle=False, format=np.array(FORMAT), **columns)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> ShardIndex:
        """The index in `data`; `where` is for messages.

        Raises:
            ValueError: truncated, corrupt, or of another format.
        """
        remedy = "index or pack its shard again"
        try:
            with _ONE_AT_A_TIME, np.load(io.BytesIO(data), allow_pickle=False) as archive:
                if (found := int(archive["format"])) != FORMAT:
                    raise ValueError(f"format {found}, where this version reads {FORMAT}")
                added = {"grey", "sources", "with_frames"} - set(
                    archive.files
                )  # indices of earlier versions lack them
                read = {f.name: archive[f.name] for f in fields(cls) if f.name not in added}
        except Exception as error:  # what zipfile and NumPy raise on garbage is not of one family
            why = (
                "it holds pickled objects, which are not read" if "pickle" in str(error) else str(error)[:200]
            )
            raise ValueError(f"{where} is truncated or no index of a shard ({why}); {remedy}") from None
        if problem := _odd_column(read):
            raise ValueError(f"{where} is inconsistent: {problem}; {remedy}")
        for name in ("fields", "classes"):
            read[name] = tuple(map(str, read[name]))
        read["num_bytes"] = int(read["num_bytes"])
        for name in ("sha256", "stamp", "grey"):
            read[name] = str(read.get(name, ""))
        index = cls(**read)
        if problem := index._inconsistency():
            raise ValueError(f"{where} is inconsistent: {problem}; {remedy}")
        return index

    def _inconsistency(self) -> str | None:
        n = len(self.keys)
        for name in ("extensions", "offsets", "sizes", "labels", "checksums"):
            if getattr(self, name).shape != (n,):
                return f"{name} has shape {getattr(self, name).shape} for {n} samples"
        if self.with_frames.ndim != 1 or self.with_frames.dtype.kind != "U":
            return (
                f"with_frames is an array of {self.with_frames.dtype} in {self.with_frames.ndim} dimensions"
            )
        if self.sources.shape not in ((0,), (n,)):
            return f"sources has shape {self.sources.shape} for {n} samples"
        for name in ("fields_offsets", "fields_sizes"):
            if getattr(self, name).shape != (n, len(self.fields)):
                return f"{name} has shape {getattr(self, name).shape} for {n} samples of {len(self.fields)} fields"
        if n and self.sizes.min() < 0:
            return f"an image has {self.sizes.min()} bytes"
        if n and (self.offsets.min() < 0 or (self.offsets > self.num_bytes - self.sizes).any()):
            return f"it points past the tar's {self.num_bytes} bytes"
        return None


_COLUMNS = {
    "keys": (np.str_, 1), "extensions": (np.str_, 1), "offsets": (np.int64, 1), "sizes": (np.int64, 1),
    "labels": (np.int32, 1), "checksums": (np.uint32, 1), "fields": (np.str_, 1), "fields_offsets": (np.int64, 2),
    "fields_sizes": (np.int64, 2), "classes": (np.str_, 1), "num_bytes": (np.int64, 0), "sha256": (np.str_, 0),
    "stamp": (np.str_, 0),
}  # fmt: skip
"""Column of an index -> (its type, dimensions)."""


def _odd_column(columns: dict[str, np.ndarray]) -> str | None:
    """What is wrong with the type or the dimensions of a column, if anything is."""
    for name, (kind, num_dimensions) in _COLUMNS.items():
        column = columns[name]
        is_text = np.issubdtype(column.dtype, np.str_)
        if (not is_text if kind is np.str_ else column.dtype != kind) or column.ndim != num_dimensions:
            return f"{name} is an array of {column.dtype} in {column.ndim} dimensions"
    return None


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
        file: at the tar's first byte.
        where: the tar's name for messages.
        label: where the labels stand.
        image: field of the image; None: the first of IMAGES that a sample has.
        classes: in label order; labels outside are faults. None: numbers are taken as they are, and names are
            sorted. The index's `classes` are the names that its labels stand for, none where they are positions.
        allow_unlabelled: samples without the label's field are unlabelled, not faults.
        checksum: take the tar's SHA-256.
        on_fault: takes every fault, whose sample is then left out (on both sides of damage, the samples next to it);
            None: the first fault is raised.
        stamp: kept in the index.
        measure: decode images of more than 8 bits, for the grey range of the data set.
        decode: decode every image, of at most so many pixels; one that cannot be decoded is a fault. None: none.

    Raises:
        TarFault: (a ValueError) with shard, member, byte and remedy.
    """
    known = classes if isinstance(classes, ClassList | None) else ClassList(classes)
    grouping = Grouping(
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
        stamp = ""  # names and positions side by side have a meaning under this class list alone
    return replace(
        _columns(samples, labels, names, stream, stamp),
        grey=images.grey(samples),
        with_frames=np.array(images.with_frames(samples), dtype=np.str_),
    )


def _columns(
    samples: list[Sample], labels: np.ndarray, names: tuple[str, ...], stream: TarStream, stamp: str
) -> ShardIndex:
    images = [sample.members[sample.image] for sample in samples]
    kinds = tuple(sorted({name for sample in samples for name in sample.members}))
    at = [[sample.members.get(name) for name in kinds] for sample in samples]
    shape = (len(samples), len(kinds))
    return ShardIndex(
        keys=np.array([sample.key for sample in samples], dtype=np.str_),
        extensions=np.array([sample.image for sample in samples], dtype=np.str_),
        offsets=np.array([m.offset for m in images], dtype=np.int64),
        sizes=np.array([m.size for m in images], dtype=np.int64),
        labels=labels,
        checksums=np.array([m.crc32 for m in images], dtype=np.uint32),
        fields=kinds,
        fields_offsets=np.array([[m.offset if m else -1 for m in row] for row in at], np.int64).reshape(
            shape
        ),
        fields_sizes=np.array([[m.size if m else -1 for m in row] for row in at], np.int64).reshape(shape),
        classes=names,
        num_bytes=stream.num_bytes,
        sha256=stream.sha256 or "",
        stamp=stamp,
    )


def packed_from(index: ShardIndex, row: int) -> str:
    """For messages: the file that a sample's image was packed from; empty where that is not known."""
    source = str(index.sources[row]) if len(index.sources) else ""
    return f" (packed from {source})" if source else ""


def _numbered(
    values: list[Label | None], where: str, classes: ClassList | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels, and the names they stand for; none where they are numbers: positions in a class list yet to come."""
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
                f"{where} has names of classes ({name!r}) and numbers side by side; give --classes"
            )
        names = ()
    else:
        names = in_order(str(value) for value in present)
        number = {name: position for position, name in enumerate(names)}
    labels = [UNLABELLED if value is None else number[value] for value in values]
    return np.array(labels, dtype=np.int32), names
