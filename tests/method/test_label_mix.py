"""Two labels per image: losses and distillation weights of mixed images."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fourds_dist.method import AdaptConfig, AdaptTeacher, SourceClassifiers
from fourds_dist.method.label_mix import LabelMix, label_overlap, unlabelled
from fourds_dist.method.losses import (
    confidence_where_teacher_better_unlabelled,
    cross_entropy,
    teacher_confidence,
)
from tests.training.tiny import NUM_CLASSES, SIDE, tiny_four_ds, tiny_network

LABELS = torch.tensor([0, 1, -1, 3])


def logits(seed: int = 0) -> torch.Tensor:
    return torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mix(share: float, partners: list[int]) -> LabelMix:
    return LabelMix(torch.tensor(partners), torch.full((4,), share, dtype=torch.float64))


def test_the_cross_entropy_of_labelled_pairs_is_the_mean_of_both() -> None:
    z, y, other = logits(), torch.tensor([0, 1, 2, 3]), torch.tensor([3, 0, 2, 1])
    found = cross_entropy(z, y, LabelMix(other, torch.full((4,), 0.3, dtype=torch.float64)))
    torch.testing.assert_close(found, 0.3 * F.cross_entropy(z, y) + 0.7 * F.cross_entropy(z, other))
    soft = 0.3 * F.one_hot(y, 5) + 0.7 * F.one_hot(other, 5)
    torch.testing.assert_close(found, F.cross_entropy(z, soft))


def test_labelled_parts_count_by_their_shares() -> None:
    z = logits()
    found = cross_entropy(z, LABELS, mix(0.75, [3, 0, 1, -1]))
    nll = -F.log_softmax(z, 1)
    parts = [(0.75, nll[0, 0]), (0.25, nll[0, 3]), (0.75, nll[1, 1]), (0.25, nll[1, 0])]
    parts += [(0.25, nll[2, 1]), (0.75, nll[3, 3])]
    torch.testing.assert_close(found, sum(w * x for w, x in parts) / sum(w for w, _ in parts))


def test_few_labelled_parts_are_not_scaled_up_and_none_give_0() -> None:
    z = logits().requires_grad_()
    none = torch.full((4,), -1)
    small = cross_entropy(z, none, mix(0.9, [2, -1, -1, -1]))
    torch.testing.assert_close(small, -0.1 * F.log_softmax(z, 1)[0, 2])
    cross_entropy(z, none, mix(0.9, [-1] * 4)).backward()
    assert z.grad is not None
    assert not z.grad.any()


def test_a_share_of_1_is_no_mixing() -> None:
    z, whole = logits(), mix(1.0, [3, -1, 1, -1])
    torch.testing.assert_close(cross_entropy(z, LABELS, whole), cross_entropy(z, LABELS))
    assert torch.equal(unlabelled(LABELS, whole), LABELS == -1)
    torch.testing.assert_close(teacher_confidence(z, LABELS, whole), teacher_confidence(z, LABELS))
    for weight in (confidence_where_teacher_better_unlabelled,):
        torch.testing.assert_close(weight(z, logits(1), LABELS, whole), weight(z, logits(1), LABELS))


def test_the_overlap_is_1_for_the_mixture_and_the_probability_for_one_class() -> None:
    p = torch.tensor([[0.3, 0.7, 0.0], [0.3, 0.7, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    labels = torch.tensor([0, 1, 0, 0])
    shares = LabelMix(torch.tensor([1, 1, 1, 1]), torch.tensor([0.3, 0.3, 0.3, 0.3]))
    torch.testing.assert_close(label_overlap(p, labels, shares), torch.tensor([1.0, 0.7, 0.8, 0.0]))
    torch.testing.assert_close(label_overlap(p, labels, None), torch.tensor([0.3, 0.7, 0.5, 0.0]))


def test_an_image_with_an_unlabelled_part_is_weighted_as_an_unlabelled_one() -> None:
    z, halves = logits(), mix(0.5, [3, -1, 1, 0])
    assert unlabelled(LABELS, halves).tolist() == [False, True, True, False]
    weights = teacher_confidence(z, LABELS, halves)
    largest = F.softmax(z, 1).amax(1)
    assert (weights == largest).tolist()[1:3] == [True, True]


@pytest.mark.parametrize("preset", ["4ds", "4ds_released", "cross_entropy", "distillation", "fitnets"])
def test_every_method_learns_from_mixed_images(preset: str) -> None:
    torch.manual_seed(0)
    task = tiny_four_ds(preset=preset, dropout=0.0).train()
    images = torch.randn(4, 3, SIDE, SIDE)
    plain = task(images, LABELS)
    whole = task(images, LABELS, LabelMix(LABELS.roll(1), torch.ones(4)))
    torch.testing.assert_close(whole.losses, plain.losses)
    mixed = task(images, LABELS, LabelMix(LABELS.roll(1), torch.full((4,), 0.4)))
    assert not torch.equal(mixed.losses["student_ce"], plain.losses["student_ce"])
    mixed.loss.backward()


def test_the_other_stages_learn_from_mixed_images() -> None:
    images, halves = torch.randn(4, 3, SIDE, SIDE), LabelMix(LABELS.roll(1), torch.full((4,), 0.5))
    network = tiny_network(4).eval()
    z = network(images)
    assert z.shape == (4, NUM_CLASSES)
    found = SourceClassifiers({"teacher": network}).eval()(images, LABELS, halves)
    torch.testing.assert_close(found.loss, cross_entropy(z, LABELS, halves))
    adapted = AdaptTeacher(network, AdaptConfig(method="mcc")).eval()(images, LABELS, halves)
    torch.testing.assert_close(adapted.losses["teacher_ce"], cross_entropy(z, LABELS, halves))
    assert adapted.losses["teacher_mcc"] > 0


def test_class_weights_apply_to_the_label_of_each_part() -> None:
    z, weights = logits(), torch.tensor([2.0, 1.0, 1.0, 0.5, 1.0], dtype=torch.float64)
    found = cross_entropy(z, LABELS, mix(0.75, [3, 0, 1, -1]), weights)
    nll = -F.log_softmax(z, 1)
    parts = [(0.75, 2.0, nll[0, 0]), (0.25, 0.5, nll[0, 3]), (0.75, 1.0, nll[1, 1]), (0.25, 2.0, nll[1, 0])]
    parts += [(0.25, 1.0, nll[2, 1]), (0.75, 0.5, nll[3, 3])]
    torch.testing.assert_close(found, sum(s * w * x for s, w, x in parts) / sum(s for s, _, _ in parts))
    whole = mix(1.0, [3, -1, 1, -1])
    torch.testing.assert_close(
        cross_entropy(z, LABELS, whole, weights), cross_entropy(z, LABELS, None, weights)
    )
