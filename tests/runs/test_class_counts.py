"""Measures from counts of each class, compared with scikit-learn, and their standard errors with resampling."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, recall_score

from fourds_dist.runs.class_counts import ClassCounts


def drawn(seed: int, num: int, num_classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Labels of unequal classes, the last of which has no image but predictions."""
    random = np.random.default_rng(seed)
    labels = random.choice(num_classes - 1, num, p=[0.7, 0.2, 0.07, 0.03])
    return labels, np.where(random.random(num) < 0.6, labels, random.integers(0, num_classes, num))


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("num", [4, 30, 500])
def test_measures_are_those_of_scikit_learn(num: int) -> None:
    labels, predicted = drawn(num, num)
    counts = ClassCounts.of(labels, predicted, num_classes=5)
    assert counts.num_correct / counts.num_images == accuracy_score(labels, predicted)
    assert counts.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert counts.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro"))
    seen = np.unique(labels)
    assert counts.recall[seen] == pytest.approx(recall_score(labels, predicted, average=None, labels=seen))
    assert np.isnan(counts.recall).sum() == 5 - len(seen)


def test_counts_add_up() -> None:
    labels, predicted = drawn(0, 100)
    parts = [ClassCounts.of(labels[s], predicted[s], num_classes=5) for s in (slice(0, 30), slice(30, None))]
    whole = ClassCounts(*(sum(getattr(p, n) for p in parts) for n in ("correct", "true", "predicted")))
    assert whole.macro_f1 == ClassCounts.of(labels, predicted, num_classes=5).macro_f1


def test_no_images() -> None:
    counts = ClassCounts.of(np.array([], int), np.array([], int), num_classes=3)
    assert np.isnan([counts.balanced_accuracy, counts.macro_f1]).all()
    assert (counts.num_images, counts.balanced_accuracy_error, counts.macro_f1_error) == (0, 0.0, 0.0)


def test_standard_errors_are_about_those_of_resampling() -> None:
    labels, predicted = drawn(1, 2000, num_classes=5)
    random = np.random.default_rng(2)
    samples = []
    for _ in range(200):
        rows = random.integers(0, 2000, 2000)
        counts = ClassCounts.of(labels[rows], predicted[rows], num_classes=5)
        samples.append((counts.balanced_accuracy, counts.macro_f1))
    counts = ClassCounts.of(labels, predicted, num_classes=5)
    found = np.std(samples, axis=0)
    assert counts.balanced_accuracy_error == pytest.approx(found[0], rel=0.25)
    assert counts.macro_f1_error == pytest.approx(found[1], rel=0.35)
