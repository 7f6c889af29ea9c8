"""Class names and labels: the class of a label, by one rule for folders, lists, tars and indices.

A label is a name or a number. With a class list,

- a label that is in the list means that class, also if it is a number: the list's numbers are names. 07, +7 and 7.0
  mean the class 7, if no other class has that value;
- a number that is not in the list is a position in the list, from 0, if no name in the list is a number;
- any other label is refused.

So the list alone decides how labels are read, never a single sample. Without a list, `deduced` makes one from the
labels of the whole data set: numbers are positions from 0 to the largest, names are sorted. -1 means unlabelled, unless
the list has a class -1.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from fourds_dist.io.names import composed

Label = int | str
"""A label as stored in the data: a number or a name."""

_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")
_MEASUREMENT = re.compile(r"[+-]?[0-9]*\.?[0-9]+(e[+-]?[0-9]+)?", re.IGNORECASE)
_MISSING = frozenset({"", "nan", "<na>", "n/a", "#n/a", "null"})

MANY_CLASSES = 20
"""Data sets of at least this many classes are checked for labels that are ids or captions."""
FAR_LABEL = 100
"""Numbers from this one on are checked for being codes."""
CAPTION_WORDS = 4
"""Names of at least this many words, on average over the classes, count as captions."""


def number_of(label: Label) -> int | None:
    """Return the value of a label that is a whole number: 7, 07, +7 and 7.0 are 7; None for other labels."""
    if isinstance(label, int):
        return label
    return int(label.partition(".")[0]) if _NUMBER.fullmatch(label) else None


def is_missing(label: str) -> bool:
    """Return whether a label's text means a missing label: empty, or a table's mark for missing values, such as nan."""
    return label.strip().lower() in _MISSING


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return class names in label order: numbers by their value, then other names, sorted as text."""

    def sort_key(name: str) -> tuple[bool, int, str]:
        number = number_of(name)
        return number is None, number or 0, name

    return tuple(sorted(names, key=sort_key))


class ClassList:
    """A class list in which labels are looked up.

    Args:
        names: class names in label order.
        by_position: whether all labels are positions, also if names are numbers, as in shards that fourds_dist packed.
    """

    def __init__(self, names: Sequence[str], *, by_position: bool = False) -> None:
        self.names = tuple(names)
        self._by_position = by_position
        self._position = {name: number for number, name in enumerate(self.names)}
        values = [number_of(name) for name in self.names]
        of_value = Counter(values)
        self.has_numbers = any(value is not None for value in values)
        self._of_value = {
            value: position
            for position, value in enumerate(values)
            if value is not None and of_value[value] == 1
        }

    def __len__(self) -> int:
        return len(self.names)

    def position(self, label: Label) -> int | None:
        """Return the position of the class that a label means; None if it means no class."""
        named = self.named(label)
        if named is not None:
            return named
        number = number_of(label)
        takes_positions = self._by_position or not self.has_numbers
        return number if takes_positions and number is not None and 0 <= number < len(self) else None

    def named(self, label: Label) -> int | None:
        """Return the position of the class whose name the label is; None if the list has no such name."""
        if self._by_position:
            return None
        exact = self._position.get(str(label))
        return exact if exact is not None else self._of_value.get(number_of(label))  # pyright: ignore[reportArgumentType]

    def refusal(self, label: Label) -> str:
        """Return the reason why a label means no class, as the end of 'the sample ...'."""
        if number_of(label) is None or (self.has_numbers and not self._by_position):
            return f"is a {str(label)[:60]!r}, which the class list lacks"
        first = (
            "; if the labels count from 1, the class list needs one more line at the top for 0, e.g. none"
            if number_of(label) == len(self)
            else ""
        )
        return f"is of class {label} of {len(self)} from 0{first}"


def deduced(
    counts: Mapping[Label, int],
    *,
    num_unlabelled: int,
    where: str,
    remedy: str,
    example: Callable[[Label], str] = lambda label: f"the label {label}",
) -> tuple[str, ...]:
    """Return the class list that follows from the labels of a whole data set.

    Args:
        counts: label -> number of images; numbers as int.
        num_unlabelled: number of images without a label.
        where: the data set, for messages.
        remedy: another remedy for labels that are ids or captions, for messages.
        example: names an image with a given label, for messages.

    Raises:
        ValueError: no labels, names beside numbers, or labels that look like codes, ids, captions or measurements.
    """
    if not counts:
        raise ValueError(f"{where} has no labels; give the class list of the model by --classes")
    names = {label for label in counts if isinstance(label, str)}
    values = {label: number_of(label) for label in counts}
    if len(names) < len(counts) and None in values.values():
        name = min(label for label in names if values[label] is None)
        number = next(label for label in counts if isinstance(label, int))
        raise ValueError(
            f"{where} has names of classes ({name!r}) and numbers ({number}) side by side; give --classes"
        )
    num_images = sum(counts.values())
    _refuse_ids(names or set(map(str, counts)), num_images, where, remedy)
    if len(names) == len(counts):
        _refuse_measurements(names, where)
        refuse_doubtful(names, where, "the labels ")
        return in_order(names)
    numbers = {value: label for label, value in values.items() if value is not None}
    if (least := min(numbers)) < 0:
        raise ValueError(
            f"{where}: {example(numbers[least])}: {least} is no class number from 0; give the names by --classes FILE"
        )
    if set(numbers) == {1} and num_unlabelled:
        raise ValueError(
            f"{where}: the only label is 1, and {num_unlabelled} images have none (-1 means unlabelled); name the "
            "classes by --classes FILE, one per line: -1 and 1 if these are the classes"
        )
    largest = max(numbers)
    if largest >= FAR_LABEL and largest >= 20 * len(numbers):
        codes = ", ".join(map(str, sorted(numbers)[:5])) + (", ..." if len(numbers) > 5 else "")
        raise ValueError(
            f"{where}: {example(numbers[largest])}: the class number {largest} would make {largest + 1} classes, but "
            f"{num_images} images have {len(numbers)} different labels ({codes}); name the classes by --classes FILE, "
            "one per line: the numbers themselves if they are codes, or all names in label order"
        )
    return tuple(map(str, range(largest + 1)))


def refuse_doubtful(names: Iterable[str], where: str, what: str = "") -> None:
    """Refuse names that differ only in spelling (Cat and cat, golden_retriever and golden-retriever, 1 and 01) and
    names that list other names (cat|dog): only the user knows whether these are separate classes.

    Args:
        where: the data set, for messages.
        what: kind of the names, for messages.

    Raises:
        ValueError: naming two such names and the remedy.
    """
    known = sorted(set(names))
    first: dict[str, str] = {}
    for name in known:
        other = first.setdefault(_normalised(name), name)
        if other != name:
            raise ValueError(
                f"{where} has {what}{other!r} and {name!r}, which differ in spelling alone; give them one name, or "
                "name all classes by --classes FILE, one per line, if these are two classes"
            )
    bare = set(first)
    for name in known:
        for separator in "|;,&+ ":
            parts = [part.strip() for part in name.split(separator)]
            num_known = sum(_normalised(part) in bare for part in parts)
            if len(parts) > 1 and (num_known == len(parts) or (num_known and separator in "|;")):
                beside = " and ".join(repr(part) for part in parts if _normalised(part) in bare)
                raise ValueError(
                    f"{where} has {what}{name!r} beside {beside}: {name!r} looks like several labels of one image, but "
                    "a classifier takes one label per image; give each image one label, or name all classes by "
                    "--classes FILE, one per line, if this is a separate class"
                )


def _normalised(name: str) -> str:
    """Return a name without differences of spelling (case, spaces, dashes, underscores, width); names of fewer than two
    letters are not changed."""
    if (number := number_of(name)) is not None:
        return str(number)
    if sum(map(str.isalpha, name)) < 2:
        return name
    text = unicodedata.normalize("NFKC", name).casefold()
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    text = re.sub(r"(?<!\w)-(?=[0-9])", "minus ", text)
    return re.sub(r"[\s_\-]+", " ", text).strip(" .")


def look_like_ids(num_classes: int, num_images: int) -> bool:
    """Return whether there are about as many classes as labelled images, so that labels may be ids or captions."""
    return num_classes >= MANY_CLASSES and 2 * num_classes > num_images


def _refuse_ids(names: set[str], num_images: int, where: str, remedy: str) -> None:
    long = sum(len(name.split()) for name in names) >= CAPTION_WORDS * len(names)
    if look_like_ids(len(names), num_images) or (long and look_like_ids(2 * len(names), num_images)):
        first = min(names)[:80]
        raise ValueError(
            f"{where} has {len(names)} different labels on {num_images} images (first: {first!r}): they look like "
            f"{'captions' if long else 'ids'}, not classes; {remedy}, or name the classes by --classes FILE, one per "
            "line"
        )


def _refuse_measurements(names: set[str], where: str) -> None:
    if all(_MEASUREMENT.fullmatch(name) for name in names):
        broken = [name for name in names if number_of(name) is None]
        if broken:
            raise ValueError(
                f"{where} has labels that are not whole numbers ({min(broken)}): measurements are not classes; if they "
                "are class names, give the names by --classes FILE, one per line"
            )


def as_label(value: object) -> Label | None:
    """Return the label in a field of text or JSON: a number, a name in NFC, or None if it is missing.

    Raises:
        ValueError: the value is neither a number nor a name.
    """
    if value is None or value != value:  # NaN
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{str(value)[:40]} is neither a number nor a name")  # noqa: TRY004  (a fault of the data)
    if isinstance(value, int):
        return value
    text = composed(value.strip())
    if "\n" in text:
        raise ValueError(f"{text[:40]!r} has several lines; a class name has one line")
    return None if is_missing(text) else text
