"""Which identity belongs to which split, decided once and shared by every domain that shows it.

An identity is whatever must not be seen in training when it is tested: a handwritten digit, a designer's set.
Splits are drawn over identities, class by class, so that domains built from the same identities hold the same
ones out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np


def check_fractions(val_fraction: float, test_fraction: float) -> None:
    """Refuse shares that leave no training split, or are none.

    Raises:
        ValueError: naming both.
    """
    if not (val_fraction >= 0 and test_fraction >= 0 and val_fraction + test_fraction < 1):
        raise ValueError(f"val {val_fraction} and test {test_fraction} leave no training split; both must be "
                         "0 or more and together below 1")  # fmt: skip


def stratified(
    labels: Sequence[Hashable],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    groups: Sequence[Hashable] | None = None,
) -> list[str]:
    """The split ('train', 'val' or 'test') of each identity, given the class of each.

    Every class gives round(fraction * count) of its identities to test and to val; `seed` decides which.

    Args:
        groups: the group of each identity; those of one group come to one split, and the counts of each class are met
            as nearly as groups allow. None: each is by itself.
    """
    check_fractions(val_fraction, test_fraction)
    members: dict[Hashable, list[int]] = {}
    for identity, label in enumerate(labels):
        members.setdefault(label, []).append(identity)
    targets = {
        label: {"test": round(test_fraction * len(each)), "val": round(val_fraction * len(each))}
        for label, each in members.items()
    }
    for label, target in targets.items():
        target["train"] = len(members[label]) - sum(target.values())
    split = [""] * len(labels)
    if groups is not None:
        _draw_groups(labels, groups, targets, seed, split)
    for rank, (label, identities) in enumerate(members.items()):
        given = Counter(split[identity] for identity in identities)
        rest = iter(
            identity
            for identity in map(int, np.random.default_rng((seed, rank)).permutation(identities))
            if not split[identity]
        )
        for name in ("test", "val"):
            for _, identity in zip(range(targets[label][name] - given[name]), rest, strict=False):
                split[identity] = name
        for identity in rest:
            split[identity] = "train"
    return split


def _draw_groups(
    labels: Sequence[Hashable],
    groups: Sequence[Hashable],
    targets: dict[Hashable, dict[str, int]],
    seed: int,
    split: list[str],
) -> None:
    """Fill in the split of all identities in groups of two and more: large groups first, each to the split that lacks
    the largest share of what it is to have of the group's classes."""
    by_group: dict[Hashable, list[int]] = {}
    for identity, group in enumerate(groups):
        by_group.setdefault(group, []).append(identity)
    large = [identities for identities in by_group.values() if len(identities) > 1]
    order = np.random.default_rng((seed, len(targets))).permutation(len(large))
    given: dict[tuple[str, Hashable], int] = Counter()
    for identities in sorted((large[n] for n in order), key=len, reverse=True):
        counts = Counter(labels[identity] for identity in identities)

        def lack(name: str, counts: Counter[Hashable] = counts) -> tuple[float, int]:
            shares = [
                (1 - given[name, label] / targets[label][name]) * count / sum(targets[label].values())
                for label, count in counts.items()
                if targets[label][name]
            ]
            wanted = sum(targets[label][name] for label in counts)
            return (sum(shares) if len(shares) == len(counts) else float("-inf"), wanted)

        name = max(("train", "test", "val"), key=lack)
        for identity in identities:
            split[identity] = name
        for label, count in counts.items():
            given[name, label] += count
