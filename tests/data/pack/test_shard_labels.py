"""Labels of shards are counted, and become positions in the class list of all shards."""

from __future__ import annotations

from collections import Counter

import pytest

from fourds_dist.data.format.class_list import ClassList
from fourds_dist.data.pack.label_field import LabelField
from fourds_dist.data.pack.shard_labels import ShardLabels, classes_of, renumbered
from tests.data.pack.tars import JPEG, index_of, tar_bytes

TEXT = LabelField("txt")


def tar_of(field: str, labels: list[str]) -> bytes:
    return tar_bytes([(f"k{n}.{x}", data) for n, label in enumerate(labels)
                      for x, data in (("jpg", JPEG), (field, label.encode()))])  # fmt: skip


def labels_of(field: str, labels: list[str]) -> ShardLabels:
    return ShardLabels.of(index_of(tar_of(field, labels), label=LabelField(field)))


def test_the_summary_of_an_index() -> None:
    found = labels_of("cls", ["4", "-1", "1", "4"])
    assert (found.num_samples, found.num_labelled, found.last) == (4, 3, "k0")
    assert (found.classes, found.told()) == ((), Counter({4: 2, 1: 1}))
    named = labels_of("txt", ["dog", "cat", "dog"])
    assert (named.classes, named.told(), named.last) == (("cat", "dog"), Counter(dog=2, cat=1), "k0")
    none = labels_of("cls", ["-1"])
    assert (none.by_label, none.last, none.num_labelled) == ({}, "", 0)


def test_images_beside_the_used_one_are_counted() -> None:
    members = [(f"{n}.{x}", b"%d" % n) for n in range(3) for x in ("cls", "jpg", "png")]
    found = ShardLabels.of(index_of(tar_bytes([*members, ("9.cls", b"0"), ("9.png", b"x")])))
    assert found.other_images == {"png": 3}


def test_positions_in_a_class_list() -> None:
    classes = ClassList(["cow", "cat", "dog"])
    named = labels_of("txt", ["dog", "cat", "dog"])
    assert named.positions(classes) == {0: 1, 1: 2}
    assert named.counts(classes) == Counter(dog=2, cat=1)
    assert named.needs_renumbering(classes)
    assert not named.needs_renumbering(ClassList(["cat", "dog"]))
    assert named.positions(ClassList(["cat", "eel"])) is None
    numbers = labels_of("cls", ["2", "0"])
    assert numbers.positions(classes) == {0: 0, 2: 2}
    assert not numbers.needs_renumbering(classes)
    assert labels_of("cls", ["3"]).positions(classes) is None


def test_an_index_is_renumbered_and_unlabelled_samples_stay_unlabelled() -> None:
    index = index_of(tar_of("txt", ["dog", "-1", "cat"]), label=TEXT)
    again = renumbered(index, ClassList(["dog", "cow", "cat"]))
    assert (again.labels.tolist(), again.classes) == ([0, -1, 2], ("dog", "cow", "cat"))
    assert index.labels.tolist() == [1, -1, 0]
    assert renumbered(index_of(tar_bytes([])), ClassList(["a"])).labels.tolist() == []


def test_the_class_list_of_several_shards() -> None:
    one, other = labels_of("txt", ["dog", "cat"]), labels_of("txt", ["eel", "cat"])
    assert classes_of("s", ["a.tar", "b.tar"], [one, other]) == ("cat", "dog", "eel")
    assert classes_of("s", ["a.tar"], [labels_of("cls", ["0", "2", "1"])]) == ("0", "1", "2")
    with pytest.raises(
        ValueError, match="no sample has a label; give the class list of the model by --classes"
    ):
        classes_of("s", ["a.tar"], [labels_of("cls", ["-1"])])
    with pytest.raises(
        ValueError, match=r"^b\.tar has class numbers, but other tars have class names \('cat'\)"
    ):
        classes_of("s", ["a.tar", "b.tar"], [one, labels_of("cls", ["0"])])
