"""Weights of classes: from the labels that batches show, with the mean 1 over labelled images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.utils.class_weight import compute_class_weight

from fourds_dist.data import Split, StreamConfig, open_split
from fourds_dist.data.stream.class_weights import balanced_weights, class_frequencies
from tests.data.shards import write_dataset

LABELS = [0] * 6 + [1] * 3 + [2] + [-1] * 2


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return write_dataset(tmp_path / "x", [5, 7], labels=LABELS)


def opened(folder: str, **values: object) -> Split:
    return open_split(StreamConfig.model_validate({"url": folder, **values}), "train")


def test_weights_are_those_of_scikit_learn(folder: str) -> None:
    labels = np.array(LABELS[:10])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    weights = balanced_weights({"target": opened(folder)}, {"target": 1.0})
    assert weights == pytest.approx(expected)
    assert weights[labels].mean() == pytest.approx(1)


def test_labels_that_are_not_used_do_not_count(folder: str) -> None:
    few = opened(folder, labels_per_class=1)
    assert class_frequencies(few) == pytest.approx(np.full(3, 1 / 12))
    assert balanced_weights({"target": few}, {"target": 1.0}) == pytest.approx(np.ones(3))
    dropped = opened(folder, unlabelled="drop")
    assert class_frequencies(dropped) == pytest.approx([0.6, 0.3, 0.1])


def test_two_domains_in_a_batch_count_by_their_shares(folder: str, tmp_path: Path) -> None:
    other = opened(write_dataset(tmp_path / "y", [4], labels=[0, 1, 1, 1]))
    frequencies = 0.75 * class_frequencies(opened(folder)) + 0.25 * class_frequencies(other)
    weights = balanced_weights({"target": opened(folder), "source": other}, {"target": 0.75, "source": 0.25})
    assert weights * frequencies == pytest.approx(np.full(3, frequencies.sum() / 3))
    # A class without images has a weight that is a number.
    assert balanced_weights({"source": other}, {"source": 1.0})[2] == 1


def test_one_correction_at_a_time() -> None:
    with pytest.raises(ValidationError, match=r"class_weights=balanced and class_balance=1 both correct"):
        StreamConfig(url="x", class_weights="balanced", class_balance=1.0)
