"""Scores against numbers worked out by hand or known from the literature."""

from __future__ import annotations

import numpy as np
import pytest

from fourds_dist.inference.metrics import (
    ClassificationMetrics,
    calibration_error,
    paired_gain,
    softmax,
    wilson,
)


def test_wilson_against_published_values() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I


def test_ece_by_hand() -> None:
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    right = np.array([True, True, True, False])
    assert calibration_error(confidence, right) == pytest.approx((2 * 0.05 + 2 * 0.05) / 4)


def test_a_calibrated_network_has_no_calibration_error_and_a_boastful_one_has() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, 50_000)
    right = random.random(50_000) < confidence
    assert calibration_error(confidence, right) < 0.01
    assert calibration_error(np.minimum(1, confidence + 0.2), right) > 0.1


def test_top5_counts_ties_for_the_network_and_confusion_has_truth_in_rows() -> None:
    probabilities = np.array([[0.3, 0.2, 0.15, 0.14, 0.13, 0.08], [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]])
    scores = ClassificationMetrics(np.array([5, 4]), probabilities)
    assert scores.in_top5.tolist() == [False, True]
    assert scores.confusion[5, 0] == 1
    assert scores.confusion[4, 0] == 1
    assert scores.confusion.sum() == 2


def test_as_dict_has_none_for_undefined_metrics() -> None:
    scores = ClassificationMetrics(
        np.array([0, 0, 1, 1]), np.array([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.6, 0.4, 0], [0.1, 0.9, 0]])
    )
    values = scores.as_dict(("a", "b", "c"))
    assert values["top1"]["value"] == 0.75
    assert [c["recall"] and c["recall"]["value"] for c in values["per_class"]] == [1.0, 0.5, None]
    assert [c["precision"] for c in values["per_class"]] == [pytest.approx(2 / 3), 1.0, None]
    low, high = values["balanced_accuracy"]["interval"]
    assert low < values["balanced_accuracy"]["value"] == 0.75 <= high


def test_paired_gain_is_sure_of_a_steady_difference_and_not_of_a_balanced_one() -> None:
    right, base = np.ones(200, dtype=bool), np.arange(200) % 10 > 0
    gain = paired_gain(right, base)
    assert gain["value"] == pytest.approx(0.1)
    assert 0.05 < gain["interval"][0] < 0.1 < gain["interval"][1] < 0.15
    swapped = paired_gain(np.arange(200) % 2 == 0, np.arange(200) % 2 == 1)
    assert swapped["value"] == 0
    assert swapped["interval"][0] < 0 < swapped["interval"][1]


def test_softmax_of_huge_logits() -> None:
    assert softmax(np.array([[1e4, 1e4]], dtype=np.float32)).tolist() == [[0.5, 0.5]]


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(ValueError, match="no labelled images"):
        ClassificationMetrics(np.array([], dtype=int), np.zeros((0, 3)))
