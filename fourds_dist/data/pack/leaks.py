"""Remarks on data leaks: equal images of several classes or splits, and groups in several splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fourds_dist.data.format.index import UNLABELLED

if TYPE_CHECKING:
    from fourds_dist.data.pack.entry import Entry


Named = tuple[str, str]
"""(title of an image, its class or split)"""


def some_equal(num_images: int, num_different: int, why: str) -> str:
    """Remark that there are equal images."""
    return f"{num_images} images are equal byte for byte to others ({num_different} are different); {why}"


def several_classes(num: int, first: Named, other: Named) -> str:
    """Remark that `num` sets of equal images have several classes, with two images of the first set."""
    return (
        f"equal images of several classes: {num} (first: {first[0]} is {first[1]}, {other[0]} is {other[1]}); "
        "correct or remove them"
    )


def several_splits(num: int, first: Named, other: Named) -> str:
    """Remark that `num` sets of equal images are in several splits, with two images of the first set."""
    return (
        f"equal images in several given splits: {num} (first: {first[0]} in {first[1]}, {other[0]} in {other[1]}); "
        "scores on these images are unreliable"
    )


def leaks(entries: Sequence[Entry], equal: Sequence[Sequence[int]], classes: Sequence[str]) -> list[str]:
    """Return remarks on equal images, on equal images of several classes or splits, and on groups in several splits.

    Args:
        equal: sets of equal images, each a list of positions in `entries`.
    """
    sets = [[entries[n] for n in numbers] for numbers in equal]
    lines = []
    if sets:
        num = sum(map(len, sets))
        lines.append(some_equal(num, len(sets), "drawn splits keep equal images in one split"))
    if ambiguous := [each for each in sets if len({entry.label for entry in each} - {UNLABELLED}) > 1]:
        first, other = _two(ambiguous[0], lambda entry: entry.label)
        lines.append(several_classes(len(ambiguous), *((e.title, classes[e.label]) for e in (first, other))))
    if leaked := [each for each in sets if len({entry.split or "train" for entry in each}) > 1]:
        first, other = _two(leaked[0], lambda entry: entry.split or "train")
        lines.append(several_splits(len(leaked), *((e.title, e.split or "train") for e in (first, other))))
    splits: dict[str, set[str]] = {}
    for entry in entries:
        if entry.group is not None:
            splits.setdefault(entry.group, set()).add(entry.split or "train")
    if divided := [group for group, names in splits.items() if len(names) > 1]:
        lines.append(
            f"groups in several given splits: {len(divided)} of {len(splits)} (first: {divided[0]} in "
            f"{', '.join(sorted(splits[divided[0]]))})"
        )
    return lines


def _two(entries: Sequence[Entry], key: Callable[[Entry], object]) -> tuple[Entry, Entry]:
    """The first labelled entry, and the first labelled entry with another key."""
    known = [entry for entry in entries if key(entry) != UNLABELLED]
    return known[0], next(entry for entry in known if key(entry) != key(known[0]))
