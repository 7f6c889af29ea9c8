"""What of one split is known from another: equal images and groups that are in several. Packing tells it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fourds_dist.data.index import UNLABELLED

if TYPE_CHECKING:
    from typing import Protocol

    class Entry(Protocol):
        """A sample of a data set."""

        @property
        def label(self) -> int: ...
        @property
        def split(self) -> str | None: ...
        @property
        def group(self) -> str | None: ...
        @property
        def title(self) -> str:
            """For messages."""
            ...


def leaks(
    entries: Sequence[Entry],
    equal: Sequence[Sequence[int]],
    classes: Sequence[str],
    *,
    are_drawn: bool = True,
) -> list[str]:
    """A sentence each: on equal images, those of several classes or splits, and groups in several splits.

    Args:
        equal: numbers of the entries that are equal, a list for each set.
        are_drawn: splits that are not given are drawn.
    """
    sets = [[entries[n] for n in numbers] for numbers in equal]
    lines = []
    if sets:
        num = sum(map(len, sets))
        lines.append(
            f"{num} images are equal byte for byte to others ({len(sets)} are different)"
            f"{'; where splits are drawn, equal images come to one split' if are_drawn else ''}"
        )
    if two := [each for each in sets if len({entry.label for entry in each} - {UNLABELLED}) > 1]:
        first, other = _two(two[0], lambda entry: entry.label)
        lines.append(
            f"equal images of several classes: {len(two)} (first: {first.title} is {classes[first.label]}, "
            f"{other.title} is {classes[other.label]}); correct or remove them"
        )
    if over := [each for each in sets if len({entry.split or "train" for entry in each}) > 1]:
        first, other = _two(over[0], lambda entry: entry.split or "train")
        lines.append(
            f"equal images in several given splits: {len(over)} (first: {first.title} in {first.split or 'train'}, "
            f"{other.title} in {other.split or 'train'}); scores on them say little"
        )
    splits: dict[str, set[str]] = {}
    for entry in entries:
        if entry.group is not None:
            splits.setdefault(entry.group, set()).add(entry.split or "train")
    if torn := [group for group, names in splits.items() if len(names) > 1]:
        lines.append(
            f"groups in several given splits: {len(torn)} of {len(splits)} (first: {torn[0]} in "
            f"{', '.join(sorted(splits[torn[0]]))})"
        )
    return lines


def _two(entries: Sequence[Entry], key: Callable[[Entry], object]) -> tuple[Entry, Entry]:
    """The first entry, and the first that has another key; of labels, neither is unlabelled."""
    known = [entry for entry in entries if key(entry) != UNLABELLED]
    return known[0], next(entry for entry in known if key(entry) != key(known[0]))
