"""Columns of a table that together say a label or a split: a column for each class, and is_train or is_valid."""

from __future__ import annotations

from collections.abc import Sequence

_TRUE = frozenset({"1", "1.0", "true", "yes", "t", "y"})
_FALSE = frozenset({"0", "0.0", "false", "no", "f", "n", ""})

FLAGS = {
    "istrain": ("train", "test"), "istraining": ("train", "test"), "istrainingimage": ("train", "test"),
    "isval": ("val", "train"), "isvalid": ("val", "train"), "isvalidation": ("val", "train"),
    "istest": ("test", "train"), "istesting": ("test", "train"),
}  # fmt: skip
"""Plain name of a column -> the split of images for which it is true, and of the others."""


def truth(value: object) -> bool | None:
    """The truth value that a cell spells; None where it spells none."""
    text = str("" if value is None else value).strip().lower()
    return True if text in _TRUE else False if text in _FALSE else None


def one_hot(header: Sequence[str], rows: Sequence[Sequence[object]], path: int) -> list[str] | None:
    """The label of each row, where all columns but that of the paths are classes of which one is true in each row.

    None where the columns are something else.

    Raises:
        ValueError: such columns, of which several or none are true in some row; the message has no file.
    """
    columns = [n for n, name in enumerate(header) if n != path and name.strip()]
    if len(columns) < 2 or not rows:
        return None
    truths = [[truth(row[n] if n < len(row) else None) for n in columns] for row in rows]
    if any(None in row for row in truths):
        return None
    labels = []
    for place, row in enumerate(truths):
        if (num := sum(map(bool, row))) != 1:
            raise ValueError(
                f"it has a column for each class, and in row {place + 1} below the header {num} of them are "
                "true; a classifier takes one label for each image: add a column label, or leave such rows out"
            )
        labels.append(header[columns[row.index(True)]].strip())
    return labels


def split_by_flags(flags: Sequence[tuple[str, object]]) -> str | None:
    """The split that columns such as is_train and is_test say of a row.

    Args:
        flags: (plain name of a column, its cell).

    Raises:
        ValueError: a cell without a truth value, or two splits; the message has no file.
    """
    told = []
    for name, value in flags:
        is_true = truth(value)
        if is_true is None:
            raise ValueError(f"{value!r} in the column {name} is neither true nor false")
        told.append((is_true, FLAGS[name][0 if is_true else 1]))
    positive = {split for is_true, split in told if is_true}
    if len(positive) > 1:
        raise ValueError(f"its columns say {' and '.join(sorted(positive))}")
    return positive.pop() if positive else told[0][1] if told else None
