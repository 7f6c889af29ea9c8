"""Remarks on equal images name the first pair of each kind, and count the sets."""

from __future__ import annotations

from fourds_dist.data.pack.entry import Entry
from fourds_dist.data.pack.leaks import leaks

CLASSES = ("ant", "bee")


def entry(key: str, label: int, split: str | None = None, group: str | None = None) -> Entry:
    return Entry(key, "png", label, split, 0, 1, group)


def test_nothing_to_remark() -> None:
    assert leaks([], [], CLASSES) == []
    assert leaks([entry("a", 0, "train", "g"), entry("b", 1, None, "g")], [], CLASSES) == []


def test_equal_images_of_one_class_and_split_are_counted_only() -> None:
    (line,) = leaks([entry(key, 0) for key in "abcde"], [[0, 2], [1, 3, 4]], CLASSES)
    assert line.startswith("5 images are equal byte for byte to others (2 are different); drawn splits keep")


def test_an_unlabelled_image_has_no_other_class() -> None:
    entries = [entry("a", -1), entry("b", 1), entry("c", -1), entry("d", 0), entry("e", 1)]
    assert len(leaks(entries, [[0, 1]], CLASSES)) == 1
    _, classes = leaks(entries, [[0, 1], [2, 3, 4]], CLASSES)
    assert classes.startswith("equal images of several classes: 1 (first: d is ant, e is bee); correct")


def test_no_given_split_counts_as_train() -> None:
    entries = [entry("a", 0), entry("b", 0, "train"), entry("c", 0, "test")]
    assert len(leaks(entries, [[0, 1]], CLASSES)) == 1
    _, splits = leaks(entries, [[0, 1, 2]], CLASSES)
    assert splits.startswith("equal images in several given splits: 1 (first: a in train, c in test); scores")


def test_groups_in_several_splits() -> None:
    entries = [entry("a", 0, "train", "p"), entry("b", 0, "val", "q"), entry("c", 0, "test", "q")]
    assert leaks(entries, [], CLASSES) == ["groups in several given splits: 1 of 2 (first: q in test, val)"]
