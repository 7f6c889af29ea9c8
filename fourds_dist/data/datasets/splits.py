"""Draw splits over identities, class by class.

An identity is what must not be in both training and test images: a handwritten digit, a designer's set. Domains with
the same identities have the same splits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np


def check_fractions(val_fraction: float, test_fraction: float) -> None:
    """Refuse fractions that are negative or leave no training split.

    Raises:
        ValueError: the fractions are invalid; the message names both.
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
    """Return the split ('train', 'val' or 'test') of each identity.

    In every class, round(fraction * count) of the identities are in test and in val, drawn with `seed`.

    Args:
        labels: class of each identity.
        groups: group of each identity; identities of one group are in one split, and the counts of each class are met
            as closely as the groups allow. None: no groups.
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
    """Fill in the splits of all identities in groups of two or more.

    Groups are assigned in order of size, largest first, each to the split that lacks the largest share of its target
    counts in the group's classes.
    """
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
