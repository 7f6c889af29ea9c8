"""Which identity belongs to which split, decided once and shared by every domain that shows it.

An identity is whatever must not be seen in training when it is tested: a handwritten digit, a designer's set.
Splits are drawn over identities, class by class, so that domains built from the same identities hold the same
ones out.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


def stratified(
    labels: Sequence[Hashable], *, val_fraction: float, test_fraction: float, seed: int
) -> list[str]:
    """The split ('train', 'val' or 'test') of each identity, given the class of each.

    Every class gives round(fraction * count) of its identities to test and to val; `seed` decides which.
    """
    if min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
        raise ValueError(f"val {val_fraction} and test {test_fraction} leave no training split; both must be "
                         "0 or more and together below 1")  # fmt: skip
    members: dict[Hashable, list[int]] = {}
    for identity, label in enumerate(labels):
        members.setdefault(label, []).append(identity)
    split = ["train"] * len(labels)
    for rank, identities in enumerate(members.values()):
        order = np.random.default_rng((seed, rank)).permutation(identities)
        num_test = round(test_fraction * len(order))
        num_val = round(val_fraction * len(order))
        for identity in order[:num_test]:
            split[identity] = "test"
        for identity in order[num_test : num_test + num_val]:
            split[identity] = "val"
    return split
