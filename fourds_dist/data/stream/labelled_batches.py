"""The orders that a domain's batches draw from: one of all images, or one of labelled and one of unlabelled images.

If labels are few, a batch drawn from all images holds hardly any labelled image. `labelled_fraction` gives every batch
a share of labelled images. Labelled images are shown more often then; the number of images in an epoch stays the same.
Both orders are functions of (seed, epoch) like any other, so a run is divided over workers and resumed as usual.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from fourds_dist.data.stream.split import Split


def labelled_batches(split: Split, batch_size: int) -> list[tuple[Split, int]]:
    """Return (split, samples of this split in every batch) for each order of a split.

    Labelled samples get `labelled_fraction` of the batch, rounded up, or their share of the data if that is larger. If
    the data have fewer labelled samples than a batch takes, a batch holds some of them repeatedly.

    Args:
        batch_size: samples of the split in every batch.

    Raises:
        ValueError: no labelled samples, or a batch of fewer than two samples.
    """
    if split.labelled is None or split.labelled.all():
        return [(split, batch_size)]
    num_labelled = int(split.labelled.sum())
    if not num_labelled:
        raise ValueError(
            f"{split.url} has no labelled {split.name} images, but labelled_fraction={split.labelled_fraction:g} needs "
            "some in every batch; set labelled_fraction=0, or give labels"
        )
    if batch_size < 2:
        raise ValueError(
            f"labelled_fraction needs at least two images of {split.url} in a batch, one labelled and one unlabelled; "
            "raise global_batch_size"
        )
    share = max(split.labelled_fraction, num_labelled / len(split.labelled))
    num_per_batch = min(batch_size - 1, math.ceil(round(share * batch_size, 6)))
    shown = split.positions(np.arange(len(split.labelled)))
    labelled = np.tile(shown[split.labelled], math.ceil(num_per_batch / num_labelled))
    return [
        (_part(split, "unlabelled", shown[~split.labelled]), batch_size - num_per_batch),
        (_part(split, "labelled", labelled), num_per_batch),
    ]


def _part(split: Split, name: str, chosen: np.ndarray) -> Split:
    fingerprint = f"{split.fingerprint}/{name}"
    return replace(split, fingerprint=fingerprint, chosen=chosen, labelled=None, labelled_fraction=0.0)
