"""Labels from one-hot columns (one column for each class), and splits from columns such as is_train or is_valid."""

from __future__ import annotations

from collections.abc import Sequence

_TRUE = frozenset({"1", "1.0", "true", "yes", "t", "y"})
_FALSE = frozenset({"0", "0.0", "false", "no", "f", "n", ""})

FLAGS = {
    "istrain": ("train", "test"), "istraining": ("train", "test"), "istrainingimage": ("train", "test"),
    "isval": ("val", "train"), "isvalid": ("val", "train"), "isvalidation": ("val", "train"),
    "istest": ("test", "train"), "istesting": ("test", "train"),
}  # fmt: skip
"""Plain name of a column -> (split of rows with a true cell, split of rows with a false cell)."""


def truth(value: object) -> bool | None:
    """Return the truth value of a cell; None: the cell is neither true nor false."""
    text = str("" if value is None else value).strip().lower()
    return True if text in _TRUE else False if text in _FALSE else None


def one_hot(header: Sequence[str], rows: Sequence[Sequence[object]], path: int) -> list[str] | None:
    """Return the label of each row from one-hot columns; None: the columns other than `path` are not truth values.

    Args:
        path: position of the column of paths; all other columns are classes.

    Raises:
        ValueError: several classes or none are true in a row; the message does not name the file.
    """
    columns = [n for n, name in enumerate(header) if n != path and name.strip()]
    if len(columns) < 2 or not rows:
        return None
    truths = [[truth(row[n] if n < len(row) else None) for n in columns] for row in rows]
    if any(None in row for row in truths):
        return None
    labels = []
    for number, row in enumerate(truths, start=1):
        if (num := sum(map(bool, row))) != 1:
            raise ValueError(
                f"the list has a column for each class, and {num} of these are true in row {number} below the header; "
                "a classifier needs one label for each image: add a column label, or remove such rows"
            )
        labels.append(header[columns[row.index(True)]].strip())
    return labels


def split_by_flags(flags: Sequence[tuple[str, object]]) -> str | None:
    """Return the split of a row from columns such as is_train and is_test; None: there are no such columns.

    Args:
        flags: (plain name of a column, its cell).

    Raises:
        ValueError: a cell is neither true nor false, or two splits are true; the message does not name the file.
    """
    found = []
    for name, value in flags:
        is_true = truth(value)
        if is_true is None:
            raise ValueError(f"{value!r} in the column {name} is neither true nor false")
        found.append((is_true, FLAGS[name][0 if is_true else 1]))
    positive = {split for is_true, split in found if is_true}
    if len(positive) > 1:
        raise ValueError(f"the columns of splits are true for both {' and '.join(sorted(positive))}")
    return positive.pop() if positive else found[0][1] if found else None
