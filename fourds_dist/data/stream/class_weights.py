"""Weights of classes in cross-entropy against class imbalance, from the labels that a stage's batches show."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fourds_dist.data.format.index import UNLABELLED
from fourds_dist.data.stream.split import Split, labels_of


def class_frequencies(split: Split) -> np.ndarray:
    """Return (K,) the number of labelled images of each class in a pass over a split, per image of the pass."""
    labels = labels_of(split)
    if split.label_mask is not None:
        labels = np.where(split.label_mask, labels, UNLABELLED)
    shown = labels if split.chosen is None else labels[split.chosen]
    counts = np.bincount(shown[shown != UNLABELLED], minlength=len(split.classes))
    return counts / max(1, len(shown))


def balanced_weights(splits: Mapping[str, Split], shares: Mapping[str, float]) -> np.ndarray:
    """Return (K,) weights in inverse proportion to the frequency of each class, with the mean 1 over labelled images.

    With n labelled images, K classes that have images and n_k of a class, the weight is n / (K n_k). A class without
    images has the weight 1.

    Args:
        splits: training splits whose images are in every batch, by domain.
        shares: share of each domain in a batch; together 1.
    """
    frequencies = sum(
        (shares[name] * class_frequencies(split) for name, split in splits.items()), np.zeros(1)
    )
    present = frequencies > 0
    weights = np.ones(len(frequencies))
    weights[present] = frequencies.sum() / (present.sum() * frequencies[present])
    return weights
