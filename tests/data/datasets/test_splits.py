"""Drawing splits over identities and groups of them."""

from __future__ import annotations

from collections import Counter

import pytest

from fourds_dist.data.datasets.splits import stratified


@pytest.mark.parametrize(
    ("labels", "groups", "counts"),
    [
        (
            [n // 100 for n in range(200)],
            [n // 10 for n in range(200)],
            {"train": 140, "val": 20, "test": 40},
        ),
        ([n // 20 for n in range(40)], [n % 20 for n in range(40)], {"train": 28, "val": 4, "test": 8}),
        (
            [n // 50 for n in range(100)],
            [min(n, 97) for n in range(100)],
            {"train": 70, "val": 10, "test": 20},
        ),
        ([0] * 100, [0] * 90 + [1] * 5 + [2] * 5, {"train": 90, "val": 5, "test": 5}),
    ],
)
def test_groups_stay_together_and_counts_are_met(
    labels: list[int], groups: list[int], counts: dict[str, int]
) -> None:
    splits = stratified(labels, val_fraction=0.1, test_fraction=0.2, seed=3, groups=groups)
    assert Counter(splits) == counts
    assert len(set(zip(groups, splits, strict=True))) == len(set(groups))
    assert splits == stratified(labels, val_fraction=0.1, test_fraction=0.2, seed=3, groups=groups)


def test_identities_of_their_own_are_drawn_as_without_groups() -> None:
    labels = [n % 3 for n in range(90)]
    alone = stratified(labels, val_fraction=0.1, test_fraction=0.2, seed=1)
    assert stratified(labels, val_fraction=0.1, test_fraction=0.2, seed=1, groups=range(90)) == alone


def test_a_split_of_no_share_gets_no_group() -> None:
    splits = stratified(
        [0] * 40, val_fraction=0.2, test_fraction=0, seed=1, groups=[n // 4 for n in range(40)]
    )
    assert Counter(splits) == {"train": 32, "val": 8}
