"""The index beside a shard, `SHARD.index`: the byte range of every sample of the tar, for ranged reads.

An index has one row per sample, in the tar's order. The file is a NumPy archive of plain arrays and is read without
unpickling. `index_tar` makes an index in one pass over any WebDataset tar (`webdataset_samples`).
"""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass, field, fields

import numpy as np

FORMAT = 1
UNLABELLED = -1

_ONE_AT_A_TIME = threading.Lock()
"""Serializes reads of headers: NumPy uses Python's parser, which fails at times in 3.11 when several threads use it
(python/cpython#106905: "AST constructor recursion depth mismatch")."""


@dataclass(frozen=True)
class ShardIndex:
    """Columns of one shard's samples."""

    keys: np.ndarray
    """(n,) unicode: names of the samples."""
    extensions: np.ndarray
    """(n,) unicode: field that holds the image, e.g. jpg."""
    offsets: np.ndarray
    """(n,) int64: first byte of the image in the tar."""
    sizes: np.ndarray
    """(n,) int64: size of the image in bytes."""
    labels: np.ndarray
    """(n,) int32: class; -1: unlabelled."""
    checksums: np.ndarray
    """(n,) uint32: zlib.crc32 of the image."""
    fields: tuple[str, ...] = ()
    """All fields that any sample has."""
    fields_offsets: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    """(n, fields) int64: first byte of each field in the tar; -1 if the sample lacks the field."""
    fields_sizes: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    """(n, fields) int64: size of each field in bytes; -1 if the sample lacks the field."""
    classes: tuple[str, ...] = ()
    """Class names in label order if the tar holds names; empty if it holds numbers."""
    num_bytes: int = 0
    """Size of the tar in bytes."""
    sha256: str = ""
    """SHA-256 of the tar; empty if unknown."""
    stamp: str = ""
    """Version of the tar and options that the index was made with; another stamp requires another index."""
    grey: str = ""
    """Measurement of the images of more than 8 bits (`grey.to_json`) of existing tars; empty if there are none."""
    sources: np.ndarray = field(default_factory=lambda: np.zeros(0, np.str_))
    """(n,) unicode: the file that each image was packed from, for messages; (0,) if unknown."""
    with_frames: np.ndarray = field(default_factory=lambda: np.zeros(0, np.str_))
    """(m,) unicode: keys of the samples of existing tars whose image has several frames."""

    def __len__(self) -> int:
        return len(self.keys)

    def to_bytes(self) -> bytes:
        """Return the content of the index file; equal indices give equal bytes."""
        columns = {name: np.asarray(getattr(self, name)) for name in (f.name for f in fields(self))}
        for name in ("fields", "classes"):
            columns[name] = np.array(getattr(self, name), dtype=np.str_)
        file = io.BytesIO()
        np.savez_compressed(file, allow_pickle=False, format=np.array(FORMAT), **columns)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> ShardIndex:
        """Return the index in the content of an index file.

        Args:
            where: the file, for messages.

        Raises:
            ValueError: the file is truncated, corrupt, or of another format.
        """
        remedy = "index or pack its shard again"
        try:
            with _ONE_AT_A_TIME, np.load(io.BytesIO(data), allow_pickle=False) as archive:
                if (found := int(archive["format"])) != FORMAT:
                    raise ValueError(f"format {found}; this version reads format {FORMAT}")
                # Indices of earlier versions lack some columns.
                missing = {"grey", "sources", "with_frames"} - set(archive.files)
                read = {f.name: archive[f.name] for f in fields(cls) if f.name not in missing}
        except Exception as error:  # zipfile and NumPy raise exceptions of many families on corrupt data
            why = (
                "it holds pickled objects, which are not read" if "pickle" in str(error) else str(error)[:200]
            )
            raise ValueError(f"{where} is truncated or not an index of a shard ({why}); {remedy}") from None
        if problem := _column_problem(read):
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


def _column_problem(columns: dict[str, np.ndarray]) -> str | None:
    """Return an error message if a column has a wrong type or wrong dimensions; None otherwise."""
    for name, (kind, num_dimensions) in _COLUMNS.items():
        column = columns[name]
        is_text = np.issubdtype(column.dtype, np.str_)
        if (not is_text if kind is np.str_ else column.dtype != kind) or column.ndim != num_dimensions:
            return f"{name} is an array of {column.dtype} in {column.ndim} dimensions"
    return None


def packed_from(index: ShardIndex, row: int) -> str:
    """Name the file that a sample's image was packed from, for messages; empty if unknown."""
    source = str(index.sources[row]) if len(index.sources) else ""
    return f" (packed from {source})" if source else ""
