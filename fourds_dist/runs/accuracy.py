"""Accuracy of a network on a split, as runs store it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Measure = Literal["accuracy", "mean_per_class"]
"""Measure by which the best epoch is selected."""


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy of one network on one split.

    The last four fields are None in tables of earlier versions, which lack them.
    """

    num_correct: int
    num_samples: int
    """Labelled samples evaluated by all workers."""
    images_per_s: float
    """Images per second and worker of the forward pass alone, without loading data."""
    loss: float | None = None
    """Mean cross-entropy of the labelled samples; None where it is not finite."""
    mean_per_class: float | None = None
    """Unweighted mean of the accuracies of the classes that have samples, in [0, 1]."""
    mean_per_class_error: float | None = None
    """Standard error of `mean_per_class`."""
    num_classes_seen: int | None = None
    """Number of classes that have samples."""

    @property
    def value(self) -> float:
        """Share of correct predictions in [0, 1]; 0 for an empty split."""
        return self.num_correct / max(1, self.num_samples)

    @property
    def loss_or_infinity(self) -> float:
        """The loss for comparing epochs; infinite where the loss is None, so that every finite loss is lower."""
        return math.inf if self.loss is None else self.loss

    def measured(self, by: Measure) -> tuple[float, float]:
        """Return a measure and its standard error; those of accuracy where `mean_per_class` is None."""
        if by == "mean_per_class" and self.mean_per_class is not None:
            return self.mean_per_class, self.mean_per_class_error or 0.0
        return self.value, math.sqrt(self.value * (1 - self.value) / max(1, self.num_samples))
