"""Find exact and near duplicates among drawings, and choose the drawings to leave out.

Two drawings are near duplicates if the root mean square difference of their thumbnails (ink box, 16 x 16 greys in 0..1,
see `render.thumbnail`) is at most NEAR, and the same drawing if the difference is at most SAME. By inspection of pairs,
drawings of two designers differ in more than stroke width above 0.08.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

NEAR = 0.08
SAME = 0.01

_BLOCK = 1024  # Rows compared at once: memory is block x count floats.


def duplicates(thumbnails: np.ndarray, labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return two boolean masks of drawings to leave out: (ambiguous, duplicate).

    Ambiguous drawings occur under two classes; all copies are left out, since no label is right. A drawing is a
    duplicate if it is near an earlier drawing of its class, in any domain, that is not left out.
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
        retained = ~(ambiguous_N[near] | duplicate_N[near])
        duplicate_N[index] = not ambiguous_N[index] and bool(retained.any())
    return ambiguous_N, duplicate_N


def _pairs(thumbnails: np.ndarray, limit: float) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield blocks of (i, j, distance) of all pairs i < j with a distance of at most `limit`."""
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
