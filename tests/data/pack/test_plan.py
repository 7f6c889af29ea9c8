"""Assignment of images to shards: stratified, shuffled, balanced, and a function of input and seed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.example import Example
from fourds_dist.data.pack.entry import Spool
from fourds_dist.data.pack.plan import PackPlan, _Keys, make_plan

CLASSES = ("a", "b", "c")


def domain(examples: list[Example], classes: tuple[str, ...] = CLASSES) -> Domain:
    return Domain("d", classes, lambda: examples)


def some(number: int, size: int = 1000, **more: Any) -> list[Example]:
    """Sorted by class, as folders are."""
    return [
        Example(f"k{n}", bytes([n % 256]) * size, "jpg", CLASSES[n * 3 // number], **more)
        for n in range(number)
    ]


def plan_of(examples: list[Example], spool: Spool | None = None, **options: Any) -> PackPlan:
    given = {"shard_bytes": 1 << 20, "val_fraction": 0.1, "test_fraction": 0.2, "seed": 42}
    with Spool() as fresh:
        return make_plan(domain(examples), spool or fresh, on_progress=lambda *_: None, **(given | options))


def test_splits_are_stratified_and_given_splits_stay() -> None:
    plan = plan_of(some(300))
    assert plan.class_counts == {"train": (70,) * 3, "val": (10,) * 3, "test": (20,) * 3}
    plan = plan_of([*some(300, split="val"), Example("x", b"x", "png", "b", "test")])
    assert plan.class_counts == {"val": (100,) * 3, "test": (0, 1, 0)}
    assert plan.num_drawn == 0


def test_unlabelled_images_are_for_training() -> None:
    plan = plan_of([*some(30), *(Example(f"u{n}", b"u", "jpg", None) for n in range(50))])
    labels = {shard.split: Counter(entry.label for entry in shard.entries) for shard in plan.shards}
    assert labels["train"][-1] == 50
    assert -1 not in labels["val"] | labels["test"]
    assert plan.class_counts["train"] == (7, 7, 7)


def test_a_domain_without_any_label_has_all_splits() -> None:
    plan = plan_of([Example(f"u{n}", bytes([n]), "jpg", None) for n in range(100)])
    sizes = {shard.split: len(shard.entries) for shard in plan.shards}
    assert sizes == {"train": 70, "val": 10, "test": 20}
    assert not any(map(any, plan.class_counts.values()))


def test_every_image_is_somewhere_once_with_its_bytes() -> None:
    examples = some(200)
    with Spool() as spool:
        plan = plan_of(examples, spool, shard_bytes=30_000)
        read = {e.key: (e.read(spool), CLASSES[e.label]) for shard in plan.shards for e in shard.entries}
    assert read == {e.key: (e.image, e.label) for e in examples}
    assert sum(len(shard.entries) for shard in plan.shards) == 200


def test_a_shard_is_a_random_sample_of_its_split() -> None:
    plan = plan_of(some(3000), shard_bytes=250_000, val_fraction=0, test_fraction=0)
    assert len(plan.shards) == 31  # of 3,000 times 2,560 bytes
    for shard in plan.shards:
        counts = np.bincount([entry.label for entry in shard.entries], minlength=3)
        assert counts.min() > 15  # 33 on average, deviation 4.7; sorted input would give 0
    order = [int(entry.key[1:]) for shard in plan.shards for entry in shard.entries]
    assert abs(np.corrcoef(order, range(3000))[0, 1]) < 0.1


def test_the_seed_decides() -> None:
    order = [[e.key for s in plan_of(some(90), seed=seed).shards for e in s.entries] for seed in (1, 1, 2)]
    assert order[0] == order[1] != order[2]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=60), st.integers(1, 100_000))
def test_shards_are_as_even_as_images_allow(sizes: list[int], shard_bytes: int) -> None:
    examples = [Example(f"k{n}", bytes(size), "jpg", "a", "train") for n, size in enumerate(sizes)]
    plan = plan_of(examples, shard_bytes=shard_bytes)
    largest = max(entry.tar_bytes for shard in plan.shards for entry in shard.entries)
    totals = [sum(entry.tar_bytes for entry in shard.entries) for shard in plan.shards]
    assert [shard.name for shard in plan.shards] == [f"train-{n:05}.tar" for n in range(len(totals))]
    assert sum(len(shard.entries) for shard in plan.shards) == len(sizes)
    assert min(len(shard.entries) for shard in plan.shards) > 0
    assert max(totals) <= 1.5 * shard_bytes + largest


def test_keys_are_plain_and_unique() -> None:
    names = ["a b.v1", "a-b-v1", "A-B-V1", "../up/x", "köter", "ko\u0308ter", "__meta__", "...", "猫" * 300]
    plan = plan_of([Example(name, b"x", "jpg", "a", "train") for name in names])
    keys = {entry.key for shard in plan.shards for entry in shard.entries}
    assert keys == {"a-b-v1", "a-b-v1-2", "A-B-V1-3", "up-x", "köter", "köter-2", "meta", "image", "猫" * 120}


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "there are no images"),
        ([Example("k", b"x", "jpg", "bb")], "the class 'bb' is not in the list; the nearest is 'b'"),
        ([Example("k", b"x", "jpg", "a", "dev")], "unknown split 'dev'"),
        ([Example("k", b"", "jpg", "a")], "the image is empty"),
        ([Example("k", b"x", "cls", "a")], "'cls' is no image"),
    ],
)
def test_examples_that_cannot_be_packed(examples: list[Example], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_of(examples)


def test_impossible_fractions_and_sizes() -> None:
    with pytest.raises(ValueError, match="leave no training split"):
        plan_of(some(9), val_fraction=0.5, test_fraction=0.5)
    with pytest.raises(ValueError, match="cannot hold anything"):
        plan_of(some(9), shard_bytes=0)


def test_numbers_of_equal_keys_are_not_counted_anew() -> None:
    """Each key is tried once or twice, however many begin alike."""
    tried: list[str] = []

    class Counting(set[str]):
        def __contains__(self, key: object) -> bool:
            tried.append(str(key))
            return super().__contains__(key)

    keys = _Keys()
    keys._taken = Counting()
    made = [
        keys.new(Example("a" * 150 + str(n), b"x", "jpg", "a")).removeprefix("a" * 120) for n in range(500)
    ]
    assert made == ["", *(f"-{n}" for n in range(2, 501))]
    assert len(tried) <= 2 * 500


def plan_entries(examples: list[Example], **more: Any) -> dict[str, str]:
    """Key -> split, and the remarks under the empty key."""
    plan = plan_of(examples, **more)
    told = {entry.key: shard.split for shard in plan.shards for entry in shard.entries}
    return told | {"": "\n".join(plan.remarks)}


def test_equal_images_come_to_one_split() -> None:
    examples = [
        Example(f"{label}-{n}-{copy}", f"{label}{n}".encode(), "jpg", label)
        for label in "ab"
        for n in range(20)
        for copy in range(2)
    ]
    told = plan_entries(examples)
    for label in "ab":
        splits = Counter(told[f"{label}-{n}-0"] for n in range(20))
        assert splits == {"train": 14, "val": 2, "test": 4}
        assert all(told[f"{label}-{n}-0"] == told[f"{label}-{n}-1"] for n in range(20))
    assert told[""].startswith("80 images are equal byte for byte to others (40 are different)")


def test_equal_images_of_two_classes_or_given_splits_are_reported() -> None:
    examples = [Example(f"{label}{n}", b"%d" % n, "jpg", label) for label in "ab" for n in range(10)]
    told = plan_entries(examples)
    assert "equal images of several classes: 10 (first: a0 is a, b0 is b)" in told[""]
    assert all(told[f"a{n}"] == told[f"b{n}"] for n in range(10))
    given = [
        Example(f"{split}{n}", b"%d" % n, "jpg", "a", split) for split in ("train", "test") for n in range(3)
    ]
    told = plan_entries([*given, Example("other", b"x", "jpg", "a", "test")])
    assert "equal images in several given splits: 3 (first: train0 in train, test0 in test)" in told[""]


def test_groups_come_to_one_split_and_an_unlabelled_image_follows() -> None:
    examples = [
        Example(f"{label}-{n}", f"{label}{n}".encode(), "jpg", label, group=f"{label}{n // 10}")
        for label in "ab"
        for n in range(100)
    ]
    examples.append(Example("open", b"y", "jpg", None, group="a3"))
    told = plan_entries(examples)
    for label in "ab":
        assert Counter(told[f"{label}-{n}"] for n in range(100)) == {"train": 70, "val": 10, "test": 20}
        assert all(len({told[f"{label}-{10 * g + n}"] for n in range(10)}) == 1 for g in range(10))
    assert told["open"] == told["a-30"]
    assert told[""] == ""
    given = [Example(split, split.encode(), "jpg", "a", split, "g") for split in ("train", "test")]
    assert "groups in several given splits: 1 of 1 (first: g in test, train)" in plan_entries(given)[""]
