"""Measures of a classifier from three counts of each class: top-1, balanced accuracy, macro F1, and those of the class.

Counts add up over batches and ranks, so that evaluation sums counts and computes measures once. K classes.

    recall_k = correct_k / true_k    precision_k = correct_k / predicted_k
    F1_k = 2 correct_k / (true_k + predicted_k)

Balanced accuracy is the mean recall of the classes that have images. Macro F1 is the mean F1 of the classes that have
images or are predicted, as in scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassCounts:
    """Counts of labelled images.

    Args:
        correct: (K,) images of each class that are predicted as it.
        true: (K,) images of each class.
        predicted: (K,) images that are predicted as each class.

    >>> counts = ClassCounts.of(np.array([0, 0, 1]), np.array([0, 1, 1]), num_classes=3)
    >>> f"{counts.balanced_accuracy:.3f} {counts.macro_f1:.3f} {counts.f1.tolist()}"
    '0.750 0.667 [0.6666666666666666, 0.6666666666666666, nan]'
    """

    correct: np.ndarray
    true: np.ndarray
    predicted: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, predicted: np.ndarray, *, num_classes: int) -> ClassCounts:
        """Return the counts of (N,) labels and (N,) predicted classes."""
        return cls(
            np.bincount(labels[labels == predicted], minlength=num_classes),
            np.bincount(labels, minlength=num_classes),
            np.bincount(predicted, minlength=num_classes),
        )

    @property
    def num_images(self) -> int:
        """Return the number of labelled images."""
        return round(float(self.true.sum()))

    @property
    def num_correct(self) -> int:
        """Return the number of correct predictions."""
        return round(float(self.correct.sum()))

    @property
    def num_classes_seen(self) -> int:
        """Return the number of classes that have images."""
        return int((self.true > 0).sum())

    @property
    def recall(self) -> np.ndarray:
        """(K,) recall of each class; NaN for a class without images."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.correct / self.true

    @property
    def precision(self) -> np.ndarray:
        """(K,) precision of each class; NaN for a class that is never predicted."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.correct / self.predicted

    @property
    def f1(self) -> np.ndarray:
        """(K,) F1 of each class; NaN for a class that has no images and is never predicted."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return 2 * self.correct / (self.true + self.predicted)

    @property
    def balanced_accuracy(self) -> float:
        """Return the mean recall of the classes that have images; NaN without images."""
        return _mean(self.recall)

    @property
    def balanced_accuracy_error(self) -> float:
        """Return the standard error of `balanced_accuracy`."""
        seen = self.true > 0
        recall = self.correct[seen] / self.true[seen]
        return float(np.sqrt((recall * (1 - recall) / self.true[seen]).sum()) / max(1, len(recall)))

    @property
    def macro_f1(self) -> float:
        """Return the mean F1 of the classes that have images or are predicted; NaN without images."""
        return _mean(self.f1)

    @property
    def macro_f1_error(self) -> float:
        """Return the approximate standard error of `macro_f1`: each class's hits and errors as Poisson counts."""
        hits = self.correct.astype(float)
        errors = self.true + self.predicted - 2 * hits
        total = 2 * hits + errors
        used = total > 0
        hits, errors, total = hits[used], errors[used], total[used]
        variance = 4 * hits * errors * (hits + errors) / total**4
        return float(np.sqrt(variance.sum()) / max(1, len(total)))


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
