"""Exact and near duplicates among drawings, and which of them stay.

Two drawings are near duplicates when the root mean square difference of their thumbnails (ink box, 16 x 16
greys in 0..1, see `render.thumbnail`) is at most NEAR, and the same drawing when it is at most SAME. Looked
at in pairs, 0.08 is where two designers' drawings begin to differ in more than stroke width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

NEAR = 0.08
SAME = 0.01

_BLOCK = 1024  # Rows compared at once: memory stays at block x count floats.


def duplicates(thumbnails: np.ndarray, labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Which drawings to leave out, as two boolean masks: (ambiguous, duplicate).

    Ambiguous are drawings that occur under two classes: no label is right for them, so all copies go. Of near
    duplicates within a class the first stays, over all domains: each drawing is kept unless a kept one is
    near.
    """
    labels_N = np.asarray(labels)
    ambiguous_N = np.zeros(len(labels_N), bool)
    earlier: list[list[int]] = [[] for _ in labels_N]
    for first, second, distance in _pairs(thumbnails, NEAR):
        other_class = labels_N[first] != labels_N[second]
        clash = other_class & (distance <= SAME)
        ambiguous_N[first[clash]] = ambiguous_N[second[clash]] = True
        for i, j in zip(first[~other_class], second[~other_class], strict=True):
            earlier[j].append(i)
    duplicate_N = np.zeros(len(labels_N), bool)
    for index, near in enumerate(earlier):
        kept = ~(ambiguous_N[near] | duplicate_N[near])
        duplicate_N[index] = not ambiguous_N[index] and bool(kept.any())
    return ambiguous_N, duplicate_N


def _pairs(thumbnails: np.ndarray, limit: float) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Blocks of (i, j, distance) over all i < j that are at most `limit` apart."""
    flat_NP = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    norm_N = (flat_NP**2).sum(1)
    for start in range(0, len(flat_NP), _BLOCK):
        block_BP = flat_NP[start : start + _BLOCK]
        square_BN = norm_N[start : start + _BLOCK, None] + norm_N[start:] - 2 * block_BP @ flat_NP[start:].T
        distance_BN = np.sqrt(np.maximum(square_BN, 0) / flat_NP.shape[1])
        first, second = np.nonzero(distance_BN <= limit)
        above = second > first
        first, second = first[above], second[above]
        yield first + start, second + start, distance_BN[first, second]
