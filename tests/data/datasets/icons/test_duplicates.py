"""Near duplicates: one of each stays, and drawings with two labels go."""

import numpy as np

from fourds_dist.data.datasets.icons import duplicates as module
from fourds_dist.data.datasets.icons.duplicates import NEAR, duplicates


def test_the_first_of_near_duplicates_stays_and_ambiguous_drawings_go(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 3)  # Several blocks, the last one partial.
    generator = np.random.default_rng(0)
    house, bell, disc = generator.random((3, 16, 16))
    thumbnails = np.stack([house, bell, house + NEAR / 2, disc, disc, house + 2 * NEAR, bell, disc])
    labels = ["home", "bell", "home", "circle", "compass", "home", "bell", "circle"]
    ambiguous, duplicate = duplicates(thumbnails, labels)
    assert np.flatnonzero(ambiguous).tolist() == [3, 4, 7]
    assert np.flatnonzero(duplicate).tolist() == [2, 6]


def test_a_chain_keeps_its_far_end():
    """a ~ b ~ c, but a and c differ: b goes, and c, near nothing that stayed, stays."""
    plain = np.zeros((16, 16))
    _, duplicate = duplicates(np.stack([plain, plain + 0.7 * NEAR, plain + 1.4 * NEAR]), ["x"] * 3)
    assert duplicate.tolist() == [False, True, False]
