"""What of one split is known from another: equal images and groups that are in several. Packing tells it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fourds_dist.data.index import UNLABELLED

if TYPE_CHECKING:
    from fourds_dist.data.pack.plan import Entry


Named = tuple[str, str]
"""An image for people, and its class or split."""


def some_equal(num_images: int, num_different: int, why: str) -> str:
    """That there are equal images."""
    return f"{num_images} images are equal byte for byte to others ({num_different} are different); {why}"


def several_classes(num: int, first: Named, other: Named) -> str:
    """That sets of equal images have several classes, with two images of the first set."""
    return (
        f"equal images of several classes: {num} (first: {first[0]} is {first[1]}, {other[0]} is {other[1]}); "
        "correct or remove them"
    )


def several_splits(num: int, first: Named, other: Named) -> str:
    """That sets of equal images are in several splits, with two images of the first set."""
    return (
        f"equal images in several given splits: {num} (first: {first[0]} in {first[1]}, {other[0]} in {other[1]}); "
        "scores on them say little"
    )


def leaks(entries: Sequence[Entry], equal: Sequence[Sequence[int]], classes: Sequence[str]) -> list[str]:
    """A sentence each: on equal images, those of several classes or splits, and groups in several splits.

    Args:
        equal: numbers of the entries that are equal, a list for each set.
    """
    sets = [[entries[n] for n in numbers] for numbers in equal]
    lines = []
    if sets:
        num = sum(map(len, sets))
        lines.append(some_equal(num, len(sets), "where splits are drawn, equal images come to one split"))
    if two := [each for each in sets if len({entry.label for entry in each} - {UNLABELLED}) > 1]:
        first, other = _two(two[0], lambda entry: entry.label)
        lines.append(several_classes(len(two), *((e.title, classes[e.label]) for e in (first, other))))
    if over := [each for each in sets if len({entry.split or "train" for entry in each}) > 1]:
        first, other = _two(over[0], lambda entry: entry.split or "train")
        lines.append(several_splits(len(over), *((e.title, e.split or "train") for e in (first, other))))
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
