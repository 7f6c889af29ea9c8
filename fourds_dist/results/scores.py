"""How good a classifier is and how sure we are of it, from its probabilities; plain numbers, no networks.

N images, K classes. Intervals are at 95 %: Wilson's for shares of right answers, the bootstrap's (percentiles over
resampled images) for what is no plain share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Interval = tuple[float, float]
Z_95 = 1.959964
NUM_BINS = 15
NUM_RESAMPLES = 1000


@dataclass(frozen=True)
class Scores:
    """Of one classifier on N labelled images.

    Args:
        labels: (N,) true classes.
        probabilities: (N, K) of each class, each row summing to 1.

    >>> scores = Scores(np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]))
    >>> f"{scores.top1:.3f}", scores.confusion.tolist()
    ('0.667', [[1, 0], [1, 1]])
    """

    labels: np.ndarray
    probabilities: np.ndarray

    def __post_init__(self) -> None:
        assert self.labels.ndim == 1
        assert self.probabilities.ndim == 2
        assert len(self.labels) == len(self.probabilities)
        if not len(self.labels):
            raise ValueError("there are no labelled images to score; give data with labels")

    @property
    def num_images(self) -> int:
        """N."""
        return len(self.labels)

    @cached_property
    def predicted(self) -> np.ndarray:
        """(N,) the likeliest class."""
        return self.probabilities.argmax(1)

    @cached_property
    def confidence(self) -> np.ndarray:
        """(N,) its probability."""
        return self.probabilities.max(1)

    @cached_property
    def right(self) -> np.ndarray:
        """(N,) whether it is the true one."""
        return self.predicted == self.labels

    @property
    def top1(self) -> float:
        """Share of images whose likeliest class is the true one."""
        return float(self.right.mean())

    @cached_property
    def in_top5(self) -> np.ndarray:
        """(N,) whether the true class is among the five likeliest; fewer than five classes are better."""
        own = np.take_along_axis(self.probabilities, self.labels[:, None], 1)
        return (self.probabilities > own).sum(1) < 5

    @cached_property
    def confusion(self) -> np.ndarray:
        """(K, K) images by true class (rows) and predicted class (columns)."""
        num_classes = self.probabilities.shape[1]
        flat = np.bincount(self.labels * num_classes + self.predicted, minlength=num_classes**2)
        return flat.reshape(num_classes, num_classes)

    @property
    def recall(self) -> np.ndarray:
        """(K,) share of each class's images that are recognised; NaN for a class without images."""
        with np.errstate(invalid="ignore"):
            return np.diag(self.confusion) / self.confusion.sum(1)

    @property
    def precision(self) -> np.ndarray:
        """(K,) share of right ones among the images called so; NaN for a class that is never predicted."""
        with np.errstate(invalid="ignore"):
            return np.diag(self.confusion) / self.confusion.sum(0)

    @cached_property
    def bins(self) -> list[tuple[float, float, int]]:
        """(mean confidence, accuracy, images) of the images in each of 15 equal bins of confidence, empty ones left
        out."""
        place = np.minimum((self.confidence * NUM_BINS).astype(int), NUM_BINS - 1)
        chosen = [place == bin_ for bin_ in range(NUM_BINS)]
        return [
            (float(self.confidence[c].mean()), float(self.right[c].mean()), int(c.sum()))
            for c in chosen
            if c.any()
        ]

    @property
    def ece(self) -> float:
        """Expected calibration error: mean distance of confidence and accuracy over 15 bins (arXiv 1706.04599)."""
        return calibration_error(self.confidence, self.right)

    def bootstrap(self, measure: Callable[[np.ndarray], float]) -> Interval:
        """Interval of a measure that is called with (N,) drawn image numbers."""
        random = np.random.default_rng((self.num_images, NUM_RESAMPLES))
        drawn = [measure(random.integers(0, self.num_images, self.num_images)) for _ in range(NUM_RESAMPLES)]
        low, high = np.quantile(drawn, (0.025, 0.975))
        return float(low), float(high)

    def as_dict(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """Everything as plain values for JSON; shares in [0, 1], null where a class has none."""
        counts, recall, precision = self.confusion.sum(1), self.recall, self.precision
        right_per_class = np.diag(self.confusion)
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
            "mean_per_class": {
                "value": float(np.nanmean(recall)),
                "interval": self.bootstrap(lambda drawn: mean_recall(self.labels[drawn], self.right[drawn])),
            },
            "per_class": [
                {
                    "class": name,
                    "num_images": int(counts[k]),
                    "recall": share(int(right_per_class[k]), int(counts[k])) if counts[k] else None,
                    "precision": None if math.isnan(precision[k]) else float(precision[k]),
                }
                for k, name in enumerate(classes)
            ],
            "confusion": self.confusion.tolist(),
        }


def softmax(logits: np.ndarray) -> np.ndarray:
    """(N, K) probabilities, in float64 so that rows sum to 1 closely."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def share(num_right: int, num: int) -> dict[str, Any]:
    """A share with its interval."""
    return {"value": num_right / num, "interval": wilson(num_right, num)}


def wilson(num_right: int, num: int) -> Interval:
    """Wilson's score interval of a share at 95 %.

    >>> [round(end, 3) for end in wilson(9, 10)]
    [0.596, 0.982]
    """
    p, z2 = num_right / num, Z_95**2
    middle = (p + z2 / (2 * num)) / (1 + z2 / num)
    half = Z_95 / (1 + z2 / num) * math.sqrt(p * (1 - p) / num + z2 / (4 * num**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Mean over images of |confidence - accuracy| of their bin."""
    place = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    gap = np.bincount(place, confidence, NUM_BINS) - np.bincount(place, right, NUM_BINS)
    return float(np.abs(gap).sum() / len(confidence))


def mean_recall(labels: np.ndarray, right: np.ndarray) -> float:
    """Accuracy averaged over the classes that occur, each counted alike."""
    counts = np.bincount(labels)
    return float((np.bincount(labels, right)[counts > 0] / counts[counts > 0]).mean())


def paired_gain(right: np.ndarray, baseline_right: np.ndarray) -> dict[str, Any]:
    """Gain in accuracy over a baseline on the same images, with the bootstrap's interval over images.

    The outcomes +1, 0 and -1 of an image are drawn from their counts, which is the same and takes no time.
    """
    difference = right.astype(int) - baseline_right.astype(int)
    counts = np.array([(difference == d).sum() for d in (-1, 0, 1)])
    drawn = np.random.default_rng((len(right), NUM_RESAMPLES)).multinomial(
        len(right), counts / counts.sum(), size=10 * NUM_RESAMPLES
    )
    low, high = np.quantile((drawn[:, 2] - drawn[:, 0]) / len(right), (0.025, 0.975))
    return {"value": float(difference.mean()), "interval": (float(low), float(high))}
