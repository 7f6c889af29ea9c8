"""Random generators of the data: one for every purpose, run and step."""

from __future__ import annotations

import numpy as np

ORDER, BLOCK, AUGMENT, RESIZED_CROP, POLICY, JITTER, ERASE, MIX = range(8)
"""Purpose of a generator; part of every seed, so that no two purposes share a sequence."""


def generator(*seed: int) -> np.random.Generator:
    """Return an independent generator for every tuple of non-negative integers."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
