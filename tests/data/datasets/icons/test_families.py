"""Designers stay whole, related sets together, and shares come near what was asked for."""

from collections import Counter

import numpy as np

from fourds_dist.data.datasets.icons.families import assign, families


def test_sets_of_one_author_and_known_relatives_are_one_family():
    authors = {
        "fa-solid": "Dave",
        "fa6-solid": "Dave",
        "la": "Icons8",
        "icons8": "Icons8",
        "lone": None,
        "b": "B",
    }
    family = families(
        {prefix: {"author": {"name": name} if name else None} for prefix, name in authors.items()}
    )
    assert family["fa-solid"] == family["fa6-solid"] == family["la"] == family["icons8"]
    assert len({family["fa-solid"], family["lone"], family["b"]}) == 3


def test_shares_and_coverage():
    generator = np.random.default_rng(0)
    cells = [
        (f"family{f}", domain, label)
        for f in range(30)
        for domain in ("line", "solid")
        for label in "abcd"
        for _ in range(generator.integers(1, 12))
    ]
    split_of = assign(cells, val_fraction=0.1, test_fraction=0.2, seed=0)
    assert split_of == assign(reversed(cells), val_fraction=0.1, test_fraction=0.2, seed=0)
    for domain in ("line", "solid"):
        share = Counter(split_of[family] for family, of, _ in cells if of == domain)
        assert abs(share["test"] / share.total() - 0.2) < 0.03
        assert abs(share["val"] / share.total() - 0.1) < 0.03
    seen = {(split_of[family], domain, label) for family, domain, label in cells}
    assert len(seen) == 3 * 2 * 4
