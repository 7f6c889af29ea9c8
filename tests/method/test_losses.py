"""Losses on logits against their definitions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fourds_dist.method.losses import (
    class_confusion,
    confidence_where_teacher_better,
    confidence_where_teacher_better_unlabelled,
    cross_entropy,
    information_maximisation,
    kd_loss,
    kd_normalisation,
    pseudo_label_loss,
    teacher_confidence,
)


def logits(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_cross_entropy_is_the_mean_over_labelled_images() -> None:
    z, y = logits(5, 3), torch.tensor([0, -1, 2, -1, 1])
    torch.testing.assert_close(cross_entropy(z, y), F.cross_entropy(z[[0, 2, 4]], y[[0, 2, 4]]))


def test_a_batch_without_labels_gives_zero_loss_and_zero_gradient() -> None:
    z = logits(4, 3).requires_grad_()
    loss = cross_entropy(z, torch.full((4,), -1))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(z.grad, torch.zeros_like(z))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("num_classes", [2, 10, 345])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_balanced_a_sure_teacher_pulls_half_as_hard_as_a_label(num_classes: int, temperature: float) -> None:
    ignorant = torch.zeros(1, num_classes, dtype=torch.float64, requires_grad=True)
    p = torch.full((1, num_classes), 0.1 / (num_classes - 1), dtype=torch.float64)
    p[0, 1] = 0.9
    told = kd_normalisation(num_classes, temperature) * kd_loss(p.log(), ignorant, temperature=temperature)
    (by_teacher,) = torch.autograd.grad(told, ignorant)
    (by_label,) = torch.autograd.grad(cross_entropy(ignorant, torch.tensor([1])), ignorant)
    torch.testing.assert_close(by_teacher, by_label / 2)


def test_distillation_is_kl_of_softened_distributions() -> None:
    a, b = logits(4, 3), logits(4, 5)[:, :3]
    p = F.softmax(a / 4, dim=1)
    by_hand = 16 * (p * (p.log() - F.log_softmax(b / 4, dim=1))).sum() / 4
    torch.testing.assert_close(kd_loss(a, b, temperature=4.0), by_hand)


def test_kd_loss_has_gradients_of_the_student_only_and_uses_sample_weights() -> None:
    a, b = logits(4, 3).requires_grad_(), logits(4, 5)[:, :3].clone().requires_grad_()
    kd_loss(a, b, temperature=2.0, weight_B=torch.tensor([1.0, 0, 0, 0.5], dtype=torch.float64)).backward()
    assert a.grad is None
    assert b.grad is not None
    assert b.grad[1:3].abs().max() == 0
    assert b.grad[[0, 3]].abs().min() > 0


def test_trust_is_the_probability_of_the_true_class_or_of_the_best_guess() -> None:
    z = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    p = torch.softmax(z, dim=1)
    torch.testing.assert_close(teacher_confidence(z, torch.tensor([1, -1])), torch.stack([p[0, 1], p[1, 0]]))


def test_class_confusion_is_the_papers_loss_over_the_counted_images() -> None:
    z, counted = logits(6, 4), torch.tensor([True, False, True, True, True, False])
    p = F.softmax(z[counted] / 2.5, dim=1)
    entropy = -(p * p.log()).sum(dim=1)
    w = 1 + torch.exp(-entropy)
    w = w / w.sum() * 4
    confusion = torch.einsum("bi,b,bj->ij", p, w, p)
    confusion = confusion / confusion.sum(dim=1, keepdim=True)
    by_hand = (confusion.sum() - confusion.diagonal().sum()) / 4
    torch.testing.assert_close(class_confusion(z, counted, temperature=2.5), by_hand)


def test_class_confusion_is_low_for_sure_predictions_and_zero_without_images() -> None:
    sure, unsure = 20 * torch.eye(3).repeat(2, 1), torch.zeros(6, 3)
    everyone = torch.ones(6, dtype=torch.bool)
    assert class_confusion(sure, everyone, temperature=1.0) < 1e-3
    torch.testing.assert_close(class_confusion(unsure, everyone, temperature=1.0), torch.tensor(2 / 3))
    z = logits(6, 3).requires_grad_()
    loss = class_confusion(z, ~everyone, temperature=2.5)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(z.grad, torch.zeros_like(z))  # pyright: ignore[reportArgumentType]


def test_the_sample_weight_is_zero_where_the_student_is_better() -> None:
    teacher = torch.tensor([[2.0, 0.0], [2.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    student = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 0.5], [0.0, 5.0]])
    labels = torch.tensor([0, 0, -1, -1])
    p = torch.softmax(teacher, dim=1)[:, 0]
    expected = torch.stack([p[0], torch.tensor(0.0), p[2], torch.tensor(0.0)])
    torch.testing.assert_close(confidence_where_teacher_better(teacher, student, labels), expected)


def test_a_learner_that_is_surer_counts_on_unlabelled_images_alone() -> None:
    teacher = torch.tensor([[2.0, 0.0], [2.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    student = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 0.5], [0.0, 5.0]])
    labels = torch.tensor([0, 1, -1, -1])
    p = torch.softmax(teacher, dim=1)
    expected = torch.stack([p[0, 0], p[1, 1], p[2, 0], torch.tensor(0.0)])
    torch.testing.assert_close(confidence_where_teacher_better_unlabelled(teacher, student, labels), expected)


def test_weights_of_classes_in_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 0, 1, 2, -1])
    weights = torch.tensor([0.5, 1.0, 2.0])
    each = F.cross_entropy(logits[:4], labels[:4], reduction="none")
    expected = (each * weights[labels[:4]].double()).sum() / 4
    torch.testing.assert_close(cross_entropy(logits, labels, weights_K=weights), expected)
    torch.testing.assert_close(
        cross_entropy(logits, labels, weights_K=torch.ones(3)), cross_entropy(logits, labels)
    )


def test_pseudo_labels_are_confident_and_balanced() -> None:
    from_logits = torch.tensor(
        [[9.0, 0, 0], [9.0, 0, 0], [0, 9.0, 0], [1.0, 0, 0], [0, 0, 9.0]], requires_grad=True
    )
    to_logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    counted = torch.tensor([True, True, True, True, False])
    ce = F.cross_entropy(to_logits, torch.tensor([0, 0, 1, 0, 2]), reduction="none")
    # Two images of class 0 and one of class 1: weights 1/2, 1/2, 1, scaled to mean 1.
    expected = (0.75 * ce[0] + 0.75 * ce[1] + 1.5 * ce[2]) / 4
    found = pseudo_label_loss(from_logits, to_logits, counted, threshold=0.95)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert from_logits.grad is None
    none = pseudo_label_loss(from_logits, to_logits, torch.zeros(5, dtype=torch.bool), threshold=0.95)
    assert none == 0


def test_information_maximisation_is_the_mean_entropy_minus_the_entropy_of_the_mean() -> None:
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counted = torch.tensor([True, True, False, True, False, True])
    p = z[counted].softmax(1)
    mean = p.mean(0)
    by_hand = -(p * p.log()).sum(1).mean() + (mean * mean.log()).sum()
    torch.testing.assert_close(information_maximisation(z, counted), by_hand)


def test_information_maximisation_is_lowest_for_sure_predictions_of_all_classes() -> None:
    sure, everyone = 50 * torch.eye(4), torch.ones(4, dtype=torch.bool)
    torch.testing.assert_close(information_maximisation(sure, everyone), -torch.tensor(4.0).log())
    for useless in (sure[:1].expand(4, 4), torch.zeros(4, 4)):  # one class for all, or no class for any
        torch.testing.assert_close(information_maximisation(useless, everyone), torch.tensor(0.0))
    z = torch.full((4, 4), 1e4).triu().requires_grad_()  # probabilities of exactly 0
    information_maximisation(z, everyone).backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()
    loss = information_maximisation(z, ~everyone)
    assert loss == 0
    assert not torch.autograd.grad(loss, z)[0].any()
