"""Read lists of images in Parquet: one row for each image, with its path and label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ENDINGS = (".parquet", ".pq")
"""Endings of the names of Parquet files."""

Cells = tuple[int, Sequence[object]]
"""(number of the row, from 1; its values)"""


def parquet_table(file: Path) -> tuple[list[str], list[Cells]]:
    """Return (names of columns, rows) of a Parquet file. Columns of lists, structures and bytes are left empty.

    Numbers of a column whose class names the file lists, as files of Hugging Face do, become these names.

    Raises:
        ValueError: the file does not exist, is no Parquet file, or holds the images themselves.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(file)
        schema = parquet.schema_arrow
        plain = [field.name for field in schema if _is_plain(field.type)]
        columns: dict[str, list[object]] = parquet.read(columns=plain).to_pydict()
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file") from None
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    images = [field.name for field in schema if _holds_bytes(field.type)]
    if images and not any(isinstance(value, str) for name in plain for value in columns[name][:1]):
        raise ValueError(
            f"{file} holds the images themselves, in the column {images[0]!r}; save them as files in a folder for each "
            "class, or give a list of paths and labels"
        )
    for name, classes in _class_names(schema.metadata).items():
        if name in columns:
            columns[name] = [_named(value, classes) for value in columns[name]]
    names = list(schema.names)
    rows = range(parquet.metadata.num_rows)
    return names, [
        (row + 1, [columns[name][row] if name in columns else None for name in names]) for row in rows
    ]


def _is_plain(kind: Any) -> bool:
    import pyarrow as pa

    return not pa.types.is_nested(kind) and not _holds_bytes(kind)


def _holds_bytes(kind: Any) -> bool:
    """Whether a column has bytes, alone or in a structure."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(_holds_bytes(kind.field(number).type) for number in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _class_names(metadata: dict[bytes, bytes] | None) -> dict[str, list[str]]:
    """Return column -> class names, as Hugging Face writes them into the schema."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature["names"] for name, feature in features.items() if "names" in feature}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _named(value: object, classes: list[str]) -> object:
    return classes[value] if isinstance(value, int) and 0 <= value < len(classes) else value
