"""Counts and distances of two domains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fourds_dist.data import StreamConfig
from fourds_dist.experiments.advise.candidates import Regime
from fourds_dist.experiments.advise.domains import amplitude_distance, count, domain_accuracy, phase_distance
from tests.data.shards import write_dataset

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.uniform(0, 1, (64, 8, 8))
SPECTRA = np.fft.rfft2(IMAGES)


def test_a_contrast_changes_the_amplitude_alone() -> None:
    double = np.fft.rfft2(2 * IMAGES)
    assert amplitude_distance(SPECTRA, double) == pytest.approx(20 * np.log10(2), rel=1e-3)
    assert phase_distance(SPECTRA, double) == pytest.approx(0, abs=1e-9)


def test_a_negative_has_the_opposite_phase() -> None:
    negative = np.fft.rfft2(1 - IMAGES)
    assert phase_distance(SPECTRA, negative) == pytest.approx(2)
    assert amplitude_distance(SPECTRA[:, 1:], negative[:, 1:]) == pytest.approx(0, abs=1e-6)


def test_a_domain_is_no_distance_from_itself() -> None:
    assert (amplitude_distance(SPECTRA, SPECTRA), phase_distance(SPECTRA, SPECTRA)) == (0, pytest.approx(0))
    assert phase_distance(np.zeros((2, 4, 4), complex), np.zeros((2, 4, 4), complex)) == 0


def test_a_classifier_tells_domains_apart_if_they_differ() -> None:
    source, other, far = (RANDOM.normal(shift, 1, (100, 16)) for shift in (0, 0, 3))
    assert domain_accuracy(source, far) > 0.98
    assert 0.35 < domain_accuracy(source, other) < 0.65
    assert domain_accuracy(source[:1], far) == 0.5


@pytest.mark.parametrize(
    ("choice", "labels", "regime"),
    [
        ({}, 24, Regime.ALL),
        ({"labels_per_class": 2}, 6, Regime.FEW),
        ({"labels_per_class": 0}, 0, Regime.NONE),
        ({"train_images": 12}, 12, Regime.ALL),
        ({"labels_per_class": 2, "unlabelled": "drop"}, 6, Regime.ALL),
    ],
)
def test_the_labels_that_training_uses(tmp_path: Path, choice: dict, labels: int, regime: Regime) -> None:
    url = write_dataset(tmp_path / "set", [24])
    found = count(StreamConfig(url=url, **choice), 0)
    assert (found.labels, found.regime) == (labels, regime)
    assert found.val_labels == 24


def test_hidden_validation_labels_do_not_count(tmp_path: Path) -> None:
    url = write_dataset(tmp_path / "set", [24], labels=[0] * 4 + [-1] * 20)
    assert count(StreamConfig(url=url, validation_labels="ignore"), 0).val_labels == 0
    found = count(StreamConfig(url=url, val_images=10, test_images=3), 0)
    assert (found.train, found.val, found.test, found.regime) == (24, 10, 3, Regime.FEW)
    assert (found.smallest, found.largest) == (0, 4)
