"""Families of icon sets by designer, and the split of each family.

A family holds the sets of one author, joined with the families whose drawings these sets include: older versions,
forks, and derived sets. Each family is in one split, the same in every domain, so that the designers of test drawings
are in no training split of any domain.
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
"""Families that the authors' names do not show, by prefix: forks and successors, and sets that share more near
duplicates than by chance."""

SPLITS = ("train", "val", "test")
_STARTS = 8


def families(sets: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return prefix -> family, named after the alphabetically first set of the family."""
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
    """Return family -> split, for drawings given as (family, domain, class).

    Family sizes differ by a factor of a thousand, so the assignment is found by local search from several random
    starts. The cost is the mean deviation of the image shares from the fractions, over domains and splits, plus the
    share of (domain, class) pairs that a split lacks. The best result is returned.
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
    results = [
        _descend(generator.choice(3, size=len(names), p=wanted_S), cost, generator) for _ in range(_STARTS)
    ]
    best = min(results, key=cost)
    return {family: SPLITS[best[i]] for i, family in enumerate(names)}


def _descend(
    split_F: np.ndarray, cost: Callable[[np.ndarray], float], generator: np.random.Generator
) -> np.ndarray:
    """Move one family at a time to the split of lowest cost, until no family moves in a whole round."""
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
