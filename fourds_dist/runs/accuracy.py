"""Accuracy of a network on a split, as runs store it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator

from fourds_dist.runs.class_counts import ClassCounts

LabelFree = Literal["source_accuracy", "entropy", "infomax", "snd", "bnm", "agreement", "confidence"]
"""Measure that needs no label of the target; `training.criteria` defines each."""
LABEL_FREE: tuple[LabelFree, ...] = get_args(LabelFree)
Measure = Literal["accuracy", "balanced_accuracy", "macro_f1", LabelFree]
"""Measure by which the best epoch is selected; higher is better for all."""
FORMER_MEASURES: dict[str, Measure] = {"mean_per_class": "balanced_accuracy"}
"""Name in earlier versions -> measure."""
MEASURE_NAMES: dict[Measure, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "source_accuracy": "source accuracy",
    "entropy": "negative entropy",
    "infomax": "mutual information",
    "snd": "soft neighbourhood density",
    "bnm": "relative nuclear norm",
    "agreement": "agreement with the teacher",
    "confidence": "estimated accuracy",
}
"""Measure -> its name in tables."""
NOT_SHARES: frozenset[Measure] = frozenset({"entropy", "infomax", "snd", "bnm"})
"""Measures that are no share of images."""
MOST_CLASSES = 30
"""Largest number of classes for which results are stored and shown by class."""


def _present_measure(value: Any) -> Any:
    return FORMER_MEASURES.get(value, value) if isinstance(value, str) else value


GivenMeasure = Annotated[Literal["auto", Measure], BeforeValidator(_present_measure)]
"""A measure in a configuration, which may have its former name; `auto`: accuracy, or without labels another one."""


def measure_text(measure: Measure, value: float | None) -> str:
    """Return the value of a measure as text: shares in percent, other values with three decimals.

    >>> measure_text("accuracy", 0.713), measure_text("entropy", -0.51), measure_text("snd", None)
    ('71.3%', '-0.510', '-')
    """
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.3f}" if measure in NOT_SHARES else f"{value:.1%}"


def percent(value: float | None) -> str:
    """Return a share of images in percent; "-" for None and NaN."""
    return measure_text("accuracy", value)


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
    num_images: int | None = None
    """Images evaluated by all workers, labelled or not."""
    criteria: dict[str, float] | None = None
    """Label-free measures (`LabelFree`) by name, without those that are not finite; None: none were computed."""

    @classmethod
    def of(
        cls, counts: ClassCounts, *, images_per_s: float, loss: float, num_images: int | None = None
    ) -> Accuracy:
        """Return all measures that follow from counts.

        Args:
            loss: sum of the cross-entropies.
            num_images: images, labelled or not; None: unknown.
        """
        if not counts.num_images:
            return cls(counts.num_correct, 0, images_per_s, num_images=num_images)
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
            num_images=num_images,
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
    def value(self) -> float | None:
        """Share of correct predictions in [0, 1]; None without labelled samples."""
        return self.num_correct / self.num_samples if self.num_samples else None

    @property
    def num_evaluated(self) -> int:
        """Images evaluated; in tables of earlier versions, the labelled ones."""
        return self.num_samples if self.num_images is None else self.num_images

    @property
    def loss_or_infinity(self) -> float:
        """The loss for comparing epochs; infinite where the loss is None, so that every finite loss is lower."""
        return math.inf if self.loss is None else self.loss

    def measured(self, by: Measure) -> tuple[float, float]:
        """Return a measure and its standard error; those of accuracy where a measure of labels is None.

        The value is NaN without labels, and for a label-free measure that was not computed or is not finite. Label-free
        measures have the standard error 0: their highest value decides.
        """
        if by in LABEL_FREE:
            return (self.criteria or {}).get(by, math.nan), 0.0
        if by == "balanced_accuracy" and self.mean_per_class is not None:
            return self.mean_per_class, self.mean_per_class_error or 0.0
        if by == "macro_f1" and self.macro_f1 is not None:
            return self.macro_f1, self.macro_f1_error or 0.0
        value = self.value
        return (
            (math.nan, 0.0) if value is None else (value, math.sqrt(value * (1 - value) / self.num_samples))
        )
