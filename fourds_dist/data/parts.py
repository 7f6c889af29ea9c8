"""The orders that a domain's batches draw from: one, or labelled and unlabelled images each in an order of their own.

With few labels a batch drawn from all images holds hardly a labelled one. `labelled_fraction` gives every batch its
share of them: the labelled images come round more often, and an epoch stays one pass over as many images as before.
Both orders are functions of (seed, epoch) like any other, so that nothing changes in how a run is divided or resumed.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from fourds_dist.data.split import Split


def parts_of(split: Split, batch_size: int) -> list[tuple[Split, int]]:
    """(what a batch draws from, how many samples of it), of a split that gives `batch_size` samples to every batch.

    Labelled samples get `labelled_fraction` of the batch, rounded up, or their share of the data where that is more;
    where they are too few for a batch, they are in it repeatedly.

    Raises:
        ValueError: no labelled samples, or a batch of fewer than two samples.
    """
    if split.labelled is None or split.labelled.all():
        return [(split, batch_size)]
    num_labelled = int(split.labelled.sum())
    if not num_labelled:
        raise ValueError(
            f"{split.url} has no labelled {split.name} images, and labelled_fraction={split.labelled_fraction:g} asks "
            "for some in every batch; take it out, or give labels"
        )
    if batch_size < 2:
        raise ValueError(
            f"labelled_fraction needs at least two images of {split.url} in a batch, a labelled and an unlabelled one; "
            "raise global_batch_size"
        )
    share = max(split.labelled_fraction, num_labelled / len(split.labelled))
    wanted = min(batch_size - 1, math.ceil(round(share * batch_size, 6)))
    shown = split.positions(np.arange(len(split.labelled)))
    labelled = np.tile(shown[split.labelled], math.ceil(wanted / num_labelled))
    return [
        (_part(split, "unlabelled", shown[~split.labelled]), batch_size - wanted),
        (_part(split, "labelled", labelled), wanted),
    ]


def _part(split: Split, name: str, chosen: np.ndarray) -> Split:
    fingerprint = f"{split.fingerprint}/{name}"
    return replace(split, fingerprint=fingerprint, chosen=chosen, labelled=None, labelled_fraction=0.0)
