"""Classification metrics with 95 % confidence intervals, from predicted probabilities.

N images, K classes. Proportions have Wilson score intervals; other metrics have bootstrap intervals (percentiles over
resampled images).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fourds_dist.runs.class_counts import ClassCounts

Interval = tuple[float, float]
Z_95 = 1.959964
NUM_BINS = 15
NUM_RESAMPLES = 1000


@dataclass(frozen=True)
class ClassificationMetrics:
    """Metrics of one classifier on N labelled images.

    Args:
        labels: (N,) true classes.
        probabilities: (N, K) class probabilities; each row sums to 1.

    >>> scores = ClassificationMetrics(np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]))
    >>> f"{scores.right.mean():.3f}", scores.confusion.tolist()
    ('0.667', [[1, 0], [1, 1]])
    """

    labels: np.ndarray
    probabilities: np.ndarray

    def __post_init__(self) -> None:
        assert self.labels.ndim == 1
        assert self.probabilities.ndim == 2
        assert len(self.labels) == len(self.probabilities)
        if not len(self.labels):
            raise ValueError("no labelled images to evaluate on; give data with labels")

    @property
    def num_images(self) -> int:
        """Return N."""
        return len(self.labels)

    @cached_property
    def predicted(self) -> np.ndarray:
        """(N,) class with the highest probability."""
        return self.probabilities.argmax(1)

    @cached_property
    def confidence(self) -> np.ndarray:
        """(N,) probability of the predicted class."""
        return self.probabilities.max(1)

    @cached_property
    def right(self) -> np.ndarray:
        """(N,) whether the predicted class is the true class."""
        return self.predicted == self.labels

    @cached_property
    def in_top5(self) -> np.ndarray:
        """(N,) whether fewer than five classes have a higher probability than the true class; ties count as correct."""
        true = np.take_along_axis(self.probabilities, self.labels[:, None], 1)
        return (self.probabilities > true).sum(1) < 5

    @cached_property
    def confusion(self) -> np.ndarray:
        """(K, K) confusion matrix: images by true class (rows) and predicted class (columns)."""
        num_classes = self.probabilities.shape[1]
        flat = np.bincount(self.labels * num_classes + self.predicted, minlength=num_classes**2)
        return flat.reshape(num_classes, num_classes)

    @cached_property
    def counts(self) -> ClassCounts:
        """Counts of each class, from which recall, precision, F1, balanced accuracy and macro F1 follow."""
        return ClassCounts.of(self.labels, self.predicted, num_classes=self.probabilities.shape[1])

    @property
    def recall(self) -> np.ndarray:
        """(K,) recall of each class; NaN for a class without images."""
        return self.counts.recall

    @cached_property
    def bins(self) -> list[tuple[float, float, int]]:
        """Return (mean confidence, accuracy, number of images) of each non-empty bin of 15 equal confidence bins."""
        bin_of_image = np.minimum((self.confidence * NUM_BINS).astype(int), NUM_BINS - 1)
        masks = [bin_of_image == bin_ for bin_ in range(NUM_BINS)]
        return [
            (float(self.confidence[mask].mean()), float(self.right[mask].mean()), int(mask.sum()))
            for mask in masks
            if mask.any()
        ]

    @property
    def ece(self) -> float:
        """Expected calibration error over 15 bins (arXiv 1706.04599)."""
        return calibration_error(self.confidence, self.right)

    def bootstrap(self, measure: Callable[[np.ndarray], float]) -> Interval:
        """Bootstrap interval of a metric; `measure` gets (N,) indices of the resampled images."""
        random = np.random.default_rng((self.num_images, NUM_RESAMPLES))
        values = [measure(random.integers(0, self.num_images, self.num_images)) for _ in range(NUM_RESAMPLES)]
        low, high = np.quantile(values, (0.025, 0.975))
        return float(low), float(high)

    def as_dict(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """Return all metrics as plain values for JSON: proportions in [0, 1], None where a metric is undefined."""
        counts = self.counts
        return {
            "num_images": self.num_images,
            "top1": share(int(self.right.sum()), self.num_images),
            "top5": share(int(self.in_top5.sum()), self.num_images),
            "ece": {
                "value": self.ece,
                "interval": self.bootstrap(
                    lambda drawn: calibration_error(self.confidence[drawn], self.right[drawn])
                ),
            },
            "balanced_accuracy": {
                "value": counts.balanced_accuracy,
                "interval": self.bootstrap(lambda drawn: self._counts_of(drawn).balanced_accuracy),
            },
            "macro_f1": {
                "value": counts.macro_f1,
                "interval": self.bootstrap(lambda drawn: self._counts_of(drawn).macro_f1),
            },
            "per_class": [
                {
                    "class": name,
                    "num_images": int(counts.true[k]),
                    "recall": share(int(counts.correct[k]), int(counts.true[k])) if counts.true[k] else None,
                    "precision": _or_none(counts.precision[k]),
                    "f1": _or_none(counts.f1[k]),
                }
                for k, name in enumerate(classes)
            ],
            "confusion": self.confusion.tolist(),
        }

    def _counts_of(self, drawn: np.ndarray) -> ClassCounts:
        return ClassCounts.of(
            self.labels[drawn], self.predicted[drawn], num_classes=self.probabilities.shape[1]
        )


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def softmax(logits: np.ndarray) -> np.ndarray:
    """(N, K) probabilities in float64, so that rows sum to 1 closely."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def share(num_right: int, num: int) -> dict[str, Any]:
    """Return a proportion and its Wilson interval."""
    return {"value": num_right / num, "interval": wilson(num_right, num)}


def wilson(num_right: int, num: int) -> Interval:
    """Wilson score interval of a proportion at 95 %.

    >>> [round(end, 3) for end in wilson(9, 10)]
    [0.596, 0.982]
    """
    p, z2 = num_right / num, Z_95**2
    middle = (p + z2 / (2 * num)) / (1 + z2 / num)
    half = Z_95 / (1 + z2 / num) * math.sqrt(p * (1 - p) / num + z2 / (4 * num**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error: |mean confidence - accuracy| of each bin, averaged over images."""
    bin_of_image = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    gap = np.bincount(bin_of_image, confidence, NUM_BINS) - np.bincount(bin_of_image, right, NUM_BINS)
    return float(np.abs(gap).sum() / len(confidence))


def paired_gain(right: np.ndarray, baseline_right: np.ndarray) -> dict[str, Any]:
    """Return the gain in accuracy over a baseline on the same images, with its bootstrap interval over images.

    The bootstrap draws the counts of the differences +1, 0 and -1 from a multinomial distribution, which is equivalent
    to resampling images and faster.
    """
    difference = right.astype(int) - baseline_right.astype(int)
    counts = np.array([(difference == d).sum() for d in (-1, 0, 1)])
    drawn = np.random.default_rng((len(right), NUM_RESAMPLES)).multinomial(
        len(right), counts / counts.sum(), size=10 * NUM_RESAMPLES
    )
    low, high = np.quantile((drawn[:, 2] - drawn[:, 0]) / len(right), (0.025, 0.975))
    return {"value": float(difference.mean()), "interval": (float(low), float(high))}
