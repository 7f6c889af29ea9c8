"""Read the rows of a list of images: plain lines, CSV (with commas, semicolons, tabs, bars, quotes), JSON or Parquet.

The format is deduced from the whole file. A header names the columns; without a header they are path, label, split,
group.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fourds_dist.data.datasets.columns import FLAGS, one_hot, split_by_flags
from fourds_dist.data.datasets.json_rows import json_table
from fourds_dist.data.datasets.parquet_rows import ENDINGS, parquet_table
from fourds_dist.data.decode.file_kinds import is_image
from fourds_dist.data.files.split_names import split_named, splits_of
from fourds_dist.data.format.class_list import Label, as_label
from fourds_dist.io.names import composed

_COLUMN_NAMES = {
    "path": "path filepath file filename image imagepath imagefile imagefilename imagename img imgpath imgfile imgname "
    "imagefilepath fname relpath relativepath imageid imgid",
    "label": "label classname labelname class category categoryname target species classlabel labels classes cls "
    "labelid classid categoryid",
    "split": "split splitname subset part partition set usage phase",
    "group": "group groupid patient patientid subject subjectid person personid identity",
}
COLUMNS = {meaning: tuple(names.split()) for meaning, names in _COLUMN_NAMES.items()}
"""Meaning -> names of columns in a header, without case, spaces, dashes and underscores; earlier names win."""

_MEANING = {name: meaning for meaning, names in COLUMNS.items() for name in names}
_DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class ListEntry:
    """One image of a list."""

    line: int
    """Line number, from 1."""
    path: str
    """Path as in the list."""
    label: Label | None
    split: str | None
    group: str | None = None


@dataclass(frozen=True)
class ListEntries:
    """All images of a list, in the order of the list."""

    rows: tuple[ListEntry, ...]
    unread: tuple[str, ...] = ()
    """Names of columns that are ignored."""
    has_labels: bool = True
    """Whether there is a column of labels."""


@dataclass(frozen=True)
class _Cells:
    line: int
    cells: Sequence[object]


def read_rows(file: Path, *, needs_labels: bool = True) -> ListEntries:
    """Return the rows of a list.

    Args:
        needs_labels: refuse a table with a header that names no column of labels.

    Raises:
        ValueError: the list cannot be parsed; the message names file and line.
    """
    if file.suffix.lower() in ENDINGS:
        names, objects = parquet_table(file)
        return _of_table(
            file, names, [_Cells(number, cells) for number, cells in objects], needs_labels=needs_labels
        )
    text = read_text(file)
    if not text.strip():
        raise ValueError(f"{file} is empty")
    first = text.lstrip().partition("\n")[0]
    if (
        file.suffix.lower() in (".json", ".jsonl", ".ndjson")
        or first.startswith(("{", "[{", "[["))
        or first == "["
    ):
        names, objects = json_table(file, text)
        return _of_table(
            file, names, [_Cells(number, cells) for number, cells in objects], needs_labels=needs_labels
        )
    delimiter, header = _dialect(file, text)
    if delimiter is None:
        return _of_lines(file, text)
    cells = list(_table(file, text, delimiter))
    if header:
        names = [str(cell) for cell in cells[0].cells]
        return _of_table(file, names, cells[1:], needs_labels=needs_labels)
    return _of_table(file, ["path", "label", "split", "group"], cells, is_given=False)


def read_text(file: Path) -> str:
    """Return the text of a file with line ends `\\n`.

    Raises:
        ValueError: the file does not exist, or is not text in UTF-8 (or UTF-16 with a byte order mark).
    """
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file") from None
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    return decoded(data, str(file))


def decoded(data: bytes, where: str) -> str:
    """Decode the bytes of a text file; raises like `read_text`."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} cannot be read as text in UTF-8: {error}; save it in UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _dialect(file: Path, text: str) -> tuple[str | None, bool]:
    """Return (delimiter, whether there is a header) of a table; delimiter None: plain lines."""
    lines = [line for line in text.split("\n") if line.strip()]
    if lines[0].lower().startswith("sep=") and len(lines[0].strip()) == 5:  # Excel's
        return lines[0].strip()[4], len(lines) > 1 and _is_header(_cells_of(lines[1], lines[0].strip()[4]))
    headed = [d for d in _DELIMITERS if _is_header(_cells_of(lines[0], d))]
    if headed:
        return max(headed, key=lambda d: len(_cells_of(lines[0], d))), True
    suffix = file.suffix.lower()
    named = {".csv": (",", ";", "\t", "|"), ".tsv": ("\t",)}.get(suffix)
    if named is None and any("\t" in line for line in lines):
        return None, False
    for delimiter in named or (",", ";"):
        cells = [_cells_of(line, delimiter) for line in lines]
        begins = [is_image(row[0].strip()) for row in cells if row]
        if all(len(row) >= 2 for row in cells) and (all(begins) or (named and sum(begins) * 2 > len(begins))):
            if not begins[0] and all(begins[1:]):
                raise ValueError(
                    f"{file}, line 1: {lines[0]!r} looks like a header without a column of paths; name the columns "
                    "path,label,split"
                )
            return delimiter, False
    if suffix == ".csv":
        raise ValueError(
            f"{file} cannot be parsed as CSV: the first line is {lines[0][:80]!r}; expected a header with the columns "
            "path and label, or rows of path,label"
        )
    return None, False


def _is_header(cells: Sequence[str]) -> bool:
    meanings = {_MEANING.get(_plain(cell)) for cell in cells}
    return len(cells) > 1 and "path" in meanings and not any(is_image(cell) for cell in cells)


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "").replace("_", "").replace("-", "").removeprefix("\ufeff")


def _cells_of(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return []


def _table(file: Path, text: str, delimiter: str) -> Iterable[_Cells]:
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells) and not (
                reader.line_num == 1 and delimiter.join(cells).lower().startswith("sep=")
            ):
                yield _Cells(reader.line_num, cells)
    except csv.Error as error:
        raise ValueError(
            f"{file}, line {reader.line_num}: {error}; quote cells that contain quotes, and double the inner quotes"
        ) from None


def _of_table(
    file: Path,
    header: Sequence[str],
    table: Sequence[_Cells],
    *,
    is_given: bool = True,
    needs_labels: bool = True,
) -> ListEntries:
    column: dict[str, int] = {}
    for meaning, names in COLUMNS.items():
        for name in names:
            positions = [n for n, cell in enumerate(header) if _plain(str(cell)) == name]
            if len(positions) > 1:
                raise ValueError(
                    f"{file}: the header names the column {header[positions[0]]!r} twice; rename one"
                )
            if positions and meaning not in column:
                column[meaning] = positions[0]
    if "path" in column and "label" not in column and is_given:
        try:
            labels = one_hot(header, [row.cells for row in table], column["path"])
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        if labels is not None:
            pairs = zip(table, labels, strict=True)
            table = [_Cells(row.line, (row.cells[column["path"]], label)) for row, label in pairs]
            return _of_table(file, ("path", "label"), table)
    flags = {n: plain for n, name in enumerate(header) if is_given and (plain := _plain(str(name))) in FLAGS}
    if "split" in column:
        flags = {}
    if "path" not in column or ("label" not in column and needs_labels):
        lacking = "path" if "path" not in column else "label"
        raise ValueError(
            f"{file} has no column {lacking}, but {', '.join(map(repr, header[:8]))}; rename the column of {lacking}s "
            "(if all images are unlabelled, add an empty column label)"
        )
    rows: list[tuple[int, str, object, str, str]] = []
    for row in table:
        cells = [cell.strip() if isinstance(cell, str) else cell for cell in row.cells]
        if len(cells) > len(header) and any(cells[len(header) :]):
            raise ValueError(
                f"{file}, line {row.line}: {len(cells)} cells, but {len(header)} columns; quote cells that contain the "
                "delimiter"
            )
        cells += [None] * (len(header) - len(cells))
        path, label, split, group = (
            cells[column[meaning]] if meaning in column else None
            for meaning in ("path", "label", "split", "group")
        )
        if not isinstance(path, str) or not path:
            raise ValueError(f"{file}, line {row.line}: the path is missing")
        if flags:
            try:
                split = split_by_flags([(name, cells[n]) for n, name in flags.items()])
            except ValueError as error:
                raise ValueError(f"{file}, line {row.line}: {error}") from None
        rows.append((row.line, path, label, _cell(split), _cell(group)))
    read = {*column.values(), *flags}
    unread = [str(name) for n, name in enumerate(header) if is_given and str(name).strip() and n not in read]
    return ListEntries(_made(file, rows), tuple(unread), "label" in column)


def _of_lines(file: Path, text: str) -> ListEntries:
    rows: list[tuple[int, str, object, str, str]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        if "\t" in line:
            path, *more = line.split("\t")
            if len(more) > 3:
                raise ValueError(
                    f"{file}, line {number}: {len(more) + 1} cells; expected path, label, split and group"
                )
            cells = [path, *more, "", ""][:4]
        else:
            path, separator, label = line.rstrip().rpartition(" ")
            if not separator or not path.strip():
                raise ValueError(
                    f"{file}, line {number}: {line!r} has no label; end the line with a tab for unlabelled images"
                )
            cells = [path, label, "", ""]
        path, label, split, group = (cell.strip() for cell in cells)
        if not path:
            raise ValueError(f"{file}, line {number}: {line!r} has no path")
        if not rows and not is_image(path) and (_plain(path), _plain(label)) in _HEADS:
            continue
        rows.append((number, path, label, split, group))
    if not rows:
        raise ValueError(f"{file} is empty")
    return ListEntries(_made(file, rows))


_HEADS = {(path, label) for path in COLUMNS["path"] for label in COLUMNS["label"]}


def _made(file: Path, rows: Sequence[tuple[int, str, object, str, str]]) -> tuple[ListEntry, ...]:
    """Return the rows with parsed labels and splits."""
    if not rows:
        raise ValueError(f"{file} is empty: there are no rows below the header")
    splits = _splits(file, [(line, split) for line, _, _, split, _ in rows])
    made: list[ListEntry] = []
    first_line: dict[str, int] = {}
    for line, path, cell, split, group in rows:
        try:
            label = as_label(cell)
        except ValueError as error:
            raise ValueError(f"{file}, line {line}: the label {error}") from None
        if path in first_line:
            raise ValueError(
                f"{file}, line {line}: {path!r} is in line {first_line[path]} already; remove one line"
            )
        first_line[path] = line
        made.append(ListEntry(line, path, label, splits[split], composed(group) or None))
    return tuple(made)


def _splits(file: Path, cells: Sequence[tuple[int, str]]) -> dict[str, str | None]:
    """Name of a split in the list -> the split; None for empty cells."""
    names = {name: line for line, name in reversed(cells) if name}
    unknown = [(line, name) for name, line in names.items() if split_named(name) is None]
    if unknown:
        line, name = min(unknown)
        raise ValueError(f"{file}, line {line}: {name!r} is no split; use train, val or test")
    return {"": None, **splits_of(tuple(names))}


def _cell(value: object) -> str:
    return "" if value is None or value != value else str(value).strip()
