"""Class numbers against class names: the list decides, and without one the whole data set."""

from __future__ import annotations

import math

import pytest

from fourds_dist.data.format.class_list import ClassList, Label, as_label, deduced, in_order, number_of


@pytest.mark.parametrize(
    ("names", "label", "position"),
    [
        (("0", "1", "10", "2"), 2, 3),  # names that are numbers are names
        (("0", "1", "10", "2"), "10", 2),
        (("0", "1", "10", "2"), 3, None),
        (("cat", "dog"), 1, 1),
        (("cat", "dog"), "1", 1),
        (("cat", "dog"), "dog", 1),
        (("cat", "dog"), 2, None),
        (("cat", "dog"), -1, None),
        (("cat", "dog"), "1.0", 1),
        (("007", "8"), 7, 0),
        (("007", "8"), "8.0", 1),
        (("007", "8"), 0, None),
        (("007", "7"), "7", 1),
        (("007", "7"), "07", None),  # which of the two?
        (("-1", "1"), -1, 0),
        (("-1", "1"), "+1", 1),
        (("cat", "7"), 0, None),
        (("cat", "7"), 7, 1),
        (("1", "2", "3"), 3, 2),  # counting from 1
    ],
)
def test_what_a_label_means(names: tuple[str, ...], label: Label, position: int | None) -> None:
    assert ClassList(names).position(label) == position


def test_shards_of_fourds_dist_hold_class_indices_whatever_the_names() -> None:
    classes = ClassList(("0", "10", "2"), by_position=True)
    assert [classes.position(n) for n in (0, 1, 2, 10, -1)] == [0, 1, 2, None, None]


def test_errors_name_how_the_label_was_read() -> None:
    assert ClassList(("4", "9")).refusal(0) == "is a '0', which the class list lacks"
    assert ClassList(("a", "b")).refusal("c") == "is a 'c', which the class list lacks"
    assert ClassList(("a", "b")).refusal(5) == "is of class 5 of 2 from 0"
    assert "count from 1" in ClassList(("a", "b")).refusal(2)


def test_order() -> None:
    assert in_order(map(str, range(12))) == tuple(map(str, range(12)))
    assert in_order(["b", "010", "9", "a", "-1", "10"]) == ("-1", "9", "010", "10", "a", "b")


def test_numbers() -> None:
    assert [number_of(t) for t in ("7", "007", "+7", "7.0", "7.", "-1")] == [7, 7, 7, 7, 7, -1]
    for text in ("", "7.5", "1e3", "٣", "1_000", "0x1", "9" * 5000, "cat"):
        assert number_of(text) is None


def test_labels_of_json_and_text() -> None:
    assert [as_label(v) for v in (3, 3.0, " cat\n", "Ko\u0308ter")] == [3, 3, "cat", "K\u00f6ter"]
    assert [as_label(v) for v in (None, math.nan, "", " NaN ", "null")] == [None] * 5
    for wrong in (True, 2.5, [1], {"a": 1}):
        with pytest.raises(ValueError, match="neither a number nor a name"):
            as_label(wrong)
    with pytest.raises(ValueError, match="several lines"):
        as_label("a cat\non a mat")


def told(counts: dict[Label, int], num_unlabelled: int = 0) -> tuple[str, ...]:
    return deduced(counts, num_unlabelled=num_unlabelled, where="x", remedy="give another field")


def test_a_list_from_all_labels() -> None:
    assert told({0: 5, 2: 5}) == ("0", "1", "2")
    assert told({"b": 2, "a": 2}) == ("a", "b")
    assert told({"10": 4, "2": 4}) == ("2", "10")
    assert told({"3": 4, 1: 4}) == ("0", "1", "2", "3")  # JSON with 1 and "3"
    assert told(dict.fromkeys(range(19), 1)) == tuple(map(str, range(19)))
    assert told(dict.fromkeys(range(1000), 3)) == tuple(map(str, range(1000)))
    assert told(dict.fromkeys((0, 3, 90), 40)) == tuple(map(str, range(91)))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "has no labels; give the class list"),
        ({"cat": 3, 0: 3}, r"names of classes \('cat'\) and numbers \(0\) side by side; give --classes"),
        ({f"a photo of a cat, number {n}": 1 for n in range(60)}, "60 different labels .* captions, not classes"),
        ({f"the small cat {n}": 3 for n in range(60)}, "captions, not classes; give another field, or .*--classes"),
        ({f"{n:08x}": 1 for n in range(60)}, "ids, not classes"),
        (dict.fromkeys(range(60), 1), "ids, not classes"),
        ({30_000_000 + n: 1 for n in range(60)}, "ids, not classes"),
        ({4711: 20, 8150: 20, 100234: 20}, r"100235 classes, but 60 images have 3 different labels \(4711, "),
        ({0: 20, 1002340000: 20}, "would make 1002340001 classes"),
        ({4711: 500, 8150: 500}, "would make 8151 classes"),
        ({0: 20, -2: 20}, "-2 is no class number from 0"),
        ({"0.5": 20, "1": 20}, r"not whole numbers \(0\.5\)"),
    ],
)  # fmt: skip
def test_labels_that_are_no_classes(counts: dict[Label, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        told(counts)


def test_minus_one_and_one_alone_are_asked_about() -> None:
    with pytest.raises(ValueError, match=r"the only label is 1, and 20 images have none .*--classes"):
        told({1: 20}, num_unlabelled=20)
    assert told({1: 20}) == ("0", "1")
    assert told({0: 1, 1: 20}, num_unlabelled=20) == ("0", "1")
