"""Accuracy of a network on a split, as runs store it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from fourds_dist.runs.class_counts import ClassCounts

Measure = Literal["accuracy", "balanced_accuracy", "macro_f1"]
"""Measure by which the best epoch is selected."""
FORMER_MEASURES: dict[str, Measure] = {"mean_per_class": "balanced_accuracy"}
"""Name in earlier versions -> measure."""
MEASURE_NAMES: dict[Measure, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
}
"""Measure -> its name in tables."""
MOST_CLASSES = 30
"""Largest number of classes for which results are stored and shown by class."""


def _present_measure(value: Any) -> Any:
    return FORMER_MEASURES.get(value, value) if isinstance(value, str) else value


GivenMeasure = Annotated[Measure, BeforeValidator(_present_measure)]
"""A measure in a configuration, which may have its former name."""


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy and other measures of one network on one split.

    Fields with the default None are None in tables of earlier versions, which lack them, and without labelled samples.
    """

    num_correct: int
    num_samples: int
    """Labelled samples evaluated by all workers."""
    images_per_s: float
    """Images per second and worker of the forward pass alone, without loading data."""
    loss: float | None = None
    """Mean cross-entropy of the labelled samples; None where it is not finite."""
    mean_per_class: float | None = None
    """Balanced accuracy: unweighted mean of the accuracies of the classes that have samples, in [0, 1]."""
    mean_per_class_error: float | None = None
    """Standard error of `mean_per_class`."""
    num_classes_seen: int | None = None
    """Number of classes that have samples."""
    macro_f1: float | None = None
    """Unweighted mean of the F1 scores of the classes that have samples or are predicted, in [0, 1]."""
    macro_f1_error: float | None = None
    """Standard error of `macro_f1`."""
    by_class: tuple[tuple[int, int, int], ...] | None = None
    """(correct, samples, predicted) of each class; None with more than MOST_CLASSES classes."""

    @classmethod
    def of(cls, counts: ClassCounts, *, images_per_s: float, loss: float) -> Accuracy:
        """Return all measures that follow from counts.

        Args:
            loss: sum of the cross-entropies.
        """
        if not counts.num_images:
            return cls(counts.num_correct, 0, images_per_s)
        columns = (counts.correct, counts.true, counts.predicted)
        rows = zip(*(map(int, column.tolist()) for column in columns), strict=True)
        return cls(
            counts.num_correct,
            counts.num_images,
            images_per_s,
            loss=loss / counts.num_images if math.isfinite(loss) else None,
            mean_per_class=counts.balanced_accuracy,
            mean_per_class_error=counts.balanced_accuracy_error,
            num_classes_seen=counts.num_classes_seen,
            macro_f1=counts.macro_f1,
            macro_f1_error=counts.macro_f1_error,
            by_class=tuple(rows) if len(counts.true) <= MOST_CLASSES else None,  # pyright: ignore[reportArgumentType]
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Accuracy:
        """Return the accuracy of its fields in JSON.

        Raises:
            TypeError: other fields.
        """
        by_class = values.get("by_class")
        return cls(**{**values, "by_class": None if by_class is None else tuple(map(tuple, by_class))})

    @property
    def value(self) -> float:
        """Share of correct predictions in [0, 1]; 0 for an empty split."""
        return self.num_correct / max(1, self.num_samples)

    @property
    def loss_or_infinity(self) -> float:
        """The loss for comparing epochs; infinite where the loss is None, so that every finite loss is lower."""
        return math.inf if self.loss is None else self.loss

    def measured(self, by: Measure) -> tuple[float, float]:
        """Return a measure and its standard error; those of accuracy where the measure is None."""
        if by == "balanced_accuracy" and self.mean_per_class is not None:
            return self.mean_per_class, self.mean_per_class_error or 0.0
        if by == "macro_f1" and self.macro_f1 is not None:
            return self.macro_f1, self.macro_f1_error or 0.0
        return self.value, math.sqrt(self.value * (1 - self.value) / max(1, self.num_samples))
