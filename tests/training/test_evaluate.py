"""Accuracy, its mean over classes and the loss of one pass, checked against plain sums."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score

from fourds_dist.data import Batch
from fourds_dist.runs.accuracy import Accuracy
from fourds_dist.training.distributed.world import World
from fourds_dist.training.evaluate import PlainImages, evaluate

CPU = torch.device("cpu")
LABELS = torch.tensor([0, 0, 0, 0, 1, 3, -1])


def batch(labels: torch.Tensor) -> Batch:
    no = torch.zeros(len(labels), dtype=torch.bool)
    return Batch(torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8), labels, no, [""] * len(labels))


def test_all_measures_of_a_pass() -> None:
    torch.manual_seed(0)
    logits = torch.randn(7, 4)
    logits[:6] += 2 * F.one_hot(LABELS[:6].clamp(min=0), 4)
    logits[1], logits[5] = torch.tensor([0.0, 3, 0, 0]), torch.tensor([3.0, 0, 0, 0])  # wrong
    parts = iter(logits.split(4))
    found = evaluate(
        {"x": lambda images: next(parts)},
        [batch(LABELS[:4]), batch(LABELS[4:])],
        PlainImages(CPU, (0.5,) * 3, (0.5,) * 3),
        World(0, 1, CPU),
        num_classes=4,
    )["x"]
    right = (logits.argmax(1) == LABELS)[:6]
    assert (found.num_correct, found.num_samples) == (int(right.sum()), 6)
    assert found.loss == pytest.approx(F.cross_entropy(logits[:6], LABELS[:6]).item())
    recalls = [right[:4].float().mean().item(), float(right[4]), float(right[5])]
    assert found.num_classes_seen == 3
    assert found.mean_per_class == pytest.approx(sum(recalls) / 3)
    assert found.mean_per_class_error == pytest.approx((recalls[0] * (1 - recalls[0]) / 4) ** 0.5 / 3)
    assert found.measured("balanced_accuracy")[0] == found.mean_per_class
    macro_f1 = f1_score(LABELS[:6], logits[:6].argmax(1), average="macro")
    assert found.macro_f1 == found.measured("macro_f1")[0] == pytest.approx(macro_f1)
    assert found.by_class is not None
    assert [true for _, true, _ in found.by_class] == [4, 1, 0, 1]
    assert sum(predicted for _, _, predicted in found.by_class) == 6
    value, error = found.measured("accuracy")
    assert error == pytest.approx((value * (1 - value) / 6) ** 0.5)


def test_nothing_to_judge_by() -> None:
    found = evaluate(
        {"x": torch.flatten}, [], PlainImages(CPU, (0.5,) * 3, (0.5,) * 3), World(0, 1, CPU), num_classes=4
    )
    assert found["x"] == Accuracy(0, 0, 0.0, num_images=0)
    assert found["x"].value is None
    assert math.isnan(found["x"].measured("balanced_accuracy")[0])


def test_a_loss_that_is_not_finite_is_none() -> None:
    found = evaluate(
        {"x": lambda images: torch.full((4, 4), torch.nan)},
        [batch(LABELS[:4])],
        PlainImages(CPU, (0.5,) * 3, (0.5,) * 3),
        World(0, 1, CPU),
        num_classes=4,
    )["x"]
    assert found.loss is None
    assert found.loss_or_infinity == float("inf")


def test_logits_that_are_no_numbers_are_no_right_answers() -> None:
    inf, nan = torch.inf, torch.nan
    logits = torch.tensor(
        [
            [nan, nan, nan, nan],  # its largest is the first, and its class too
            [1.0, nan, 0, 0],
            [inf, 0, 0, 0],
            [1.0, -inf, -inf, -inf],  # a network may leave classes out
        ]
    )
    found = evaluate(
        {"x": lambda images: logits},
        [batch(torch.zeros(4, dtype=torch.int64))],
        PlainImages(CPU, (0.5,) * 3, (0.5,) * 3),
        World(0, 1, CPU),
        num_classes=4,
    )["x"]
    assert (found.num_correct, found.num_samples) == (1, 4)
