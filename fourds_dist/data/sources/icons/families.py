"""Designers: which sets are of one hand, and on which side of the split each hand is.

A set's family is its author's, joined with the families whose drawings it takes over: older versions, forks,
and sets built on another's. A family is whole in one split, the same in every domain, so that test drawings
are of designers whom no training split of any domain has seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

KIN = (
    ("fa", "fa-solid", "fa6-solid", "fa7-solid", "la", "icons8", "fontisto"),
    ("heroicons", "heroicons-outline", "heroicons-solid", "sidekickicons", "tabler"),
    ("feather", "lucide", "lucide-lab", "keyline-icons", "meteor-icons", "vadivam", "iconamoon"),
    ("material-symbols", "ic", "mdi", "zmdi", "memory", "line-md", "noto", "noto-v1"),
    ("ion", "famicons"),
    ("solar", "reicon"),
    ("mi", "mono-icons"),
    ("boxicons", "bx", "bxs"),
    ("uil", "uim", "uit", "uis"),
    ("pepicons", "pepicons-pop", "pepicons-print", "pepicons-pencil"),
    ("emojione", "emojione-v1", "emojione-monotone"),
    ("fluent", "fluent-mdl2", "fluent-emoji", "fluent-emoji-flat", "fluent-emoji-high-contrast", "codicon"),
)
"""Families by prefix where the author's name does not tell: forks and successors, and sets which, beyond
chance, hold
near duplicates of each other's drawings."""

SPLITS = ("train", "val", "test")
_STARTS = 8


def families(sets: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Prefix -> family, named after the alphabetically first of its sets."""
    parent = {prefix: prefix for prefix in sets}

    def root(prefix: str) -> str:
        while parent[prefix] != prefix:
            prefix = parent[prefix]
        return prefix

    by_author: dict[str, list[str]] = defaultdict(list)
    for prefix, info in sets.items():
        by_author[(info.get("author") or {}).get("name") or prefix].append(prefix)
    for kin in (*by_author.values(), *KIN):
        first, *others = sorted({root(prefix) for prefix in kin if prefix in parent}) or [""]
        for other in others:
            parent[other] = first
    return {prefix: root(prefix) for prefix in sets}


def assign(
    cells: Iterable[tuple[str, str, str]], *, val_fraction: float, test_fraction: float, seed: int
) -> dict[str, str]:
    """Family -> split, for drawings given as (family, domain, class).

    Families differ in size by a factor of a thousand, so that shares are met only by searching: from a few
    random assignments, families move one at a time while that brings the shares of images, domain by domain,
    closer to the fractions asked for, or gives a split a (domain, class) pair that it lacks; the best end
    wins.
    """
    cells = list(cells)
    names = sorted({family for family, _, _ in cells})
    pairs = sorted({(domain, label) for _, domain, label in cells})
    row = {family: i for i, family in enumerate(names)}
    column = {pair: i for i, pair in enumerate(pairs)}
    count_FP = np.zeros((len(names), len(pairs)))
    for family, domain, label in cells:
        count_FP[row[family], column[domain, label]] += 1
    domains = sorted({domain for domain, _ in pairs})
    in_domain_PD = np.array([[domain == of for of in domains] for domain, _ in pairs], float)
    wanted_S = np.array([1 - val_fraction - test_fraction, val_fraction, test_fraction])

    def cost(split_F: np.ndarray) -> float:
        count_SP = (split_F == np.arange(3)[:, None]) @ count_FP
        count_SD = count_SP @ in_domain_PD
        off = np.abs(count_SD / count_SD.sum(0) - wanted_S[:, None]).mean()
        lacking = (count_SP[wanted_S > 0] == 0).mean()
        return float(off + lacking)

    generator = np.random.default_rng(seed)
    ends = [
        _descend(generator.choice(3, size=len(names), p=wanted_S), cost, generator) for _ in range(_STARTS)
    ]
    best = min(ends, key=cost)
    return {family: SPLITS[best[i]] for i, family in enumerate(names)}


def _descend(
    split_F: np.ndarray, cost: Callable[[np.ndarray], float], generator: np.random.Generator
) -> np.ndarray:
    """Moves one family at a time to the split that costs least, until a whole round moves none."""
    lowest, moved = cost(split_F), True
    while moved:
        moved = False
        for family in generator.permutation(len(split_F)):
            for split in range(3):
                trial = split_F.copy()
                trial[family] = split
                if (reached := cost(trial)) < lowest - 1e-12:
                    split_F, lowest, moved = trial, reached, True
    return split_F
