"""Losses on logits: cross-entropy, distillation, pseudo-labels, class confusion and information maximisation
(Eq. 14 to 19, 24, 31, 32)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fourds_dist.method.label_mix import UNLABELLED, LabelMix, label_overlap, unlabelled


def cross_entropy(
    logits_BK: Float[Tensor, "B K"],
    labels_B: Int[Tensor, " B"],
    mix: LabelMix | None = None,
    weights_K: Float[Tensor, " K"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy over the labelled images (Eq. 14); 0 with zero gradient if a batch has none.

    Of a mixed image, each labelled part counts with its share; the sum is divided by the sum of these shares, at least
    1. If all images are labelled, this is the mean of share * CE(own label) + (1 - share) * CE(partner's label).

    Args:
        weights_K: weight of each class; the sum over images is divided by their number, not by the sum of weights, so
            that the loss does not depend on how images are divided into batches. None: 1 for every class.
    """
    weights = None if weights_K is None else weights_K.to(logits_BK.dtype)
    if mix is not None:
        labels_2B = torch.cat([labels_B, mix.partner_labels_B])
        share_2B = torch.cat([mix.share_B, 1 - mix.share_B]) * (labels_2B != UNLABELLED)
        log_BK = F.log_softmax(logits_BK, dim=1)
        of_label = labels_2B.clamp(min=0)
        nll_2B = -torch.cat([log_BK, log_BK]).gather(1, of_label[:, None]).squeeze(1)
        if weights is not None:
            nll_2B = nll_2B * weights[of_label]
        return (share_2B * nll_2B).sum() / share_2B.sum().clamp(min=1)
    total = F.cross_entropy(logits_BK, labels_B, weight=weights, ignore_index=UNLABELLED, reduction="sum")
    return total / (labels_B != UNLABELLED).sum().clamp(min=1)


def kd_loss(
    from_logits_BK: Float[Tensor, "B K"],
    to_logits_BK: Float[Tensor, "B K"],
    *,
    temperature: float,
    weight_B: Float[Tensor, " B"] | None = None,
) -> Float[Tensor, ""]:
    """Return temperature^2 * mean_B(weight * KL(from || to)) of the softened distributions (Eq. 15).

    No gradient reaches `from`. Source: Hinton et al., arXiv 1503.02531; KL with reduction `batchmean`, as in the
    released code.

    Args:
        weight_B: weight of each image in [0, 1]; None: 1 for every image.
    """
    soft_BK = F.softmax(from_logits_BK.detach() / temperature, dim=1)
    log_BK = F.log_softmax(to_logits_BK / temperature, dim=1)
    kl_B = F.kl_div(log_BK, soft_BK, reduction="none").sum(dim=1)
    if weight_B is not None:
        kl_B = kl_B * weight_B
    return temperature**2 * kl_B.mean()


def kd_normalisation(num_classes: int, temperature: float) -> float:
    """Return the weight at which `kd_loss` from a confident teacher has half the gradient of cross-entropy (Eq. 19).

    For a student with probability 1/K for every class, the gradient on the logits is 1/K - onehot for cross-entropy and
    temperature * (1/K - p) for distillation, with p the softened output of the teacher, which is flatter for more
    classes. The teacher assumed here has probability 9/10 for one class and equal ones for the others. The weight at
    temperature 4 is 0.75 for 10 classes, 2.2 for 65 and 5.1 for 225.
    """
    if num_classes < 2:
        return 1.0
    others = num_classes - 1
    odds = (9 * others) ** (1 / temperature)
    probability = odds / (odds + others)
    return (1 - 1 / num_classes) / (2 * temperature * (probability - 1 / num_classes))


def teacher_confidence(
    logits_BK: Float[Tensor, "B K"], labels_B: Int[Tensor, " B"], mix: LabelMix | None = None
) -> Float[Tensor, " B"]:
    """Return the distillation weight of each image by the teacher's confidence (Eq. 16).

    The weight is the teacher's probability of the true class, or its largest probability for an unlabelled image. A
    teacher that is wrong about an image then has little effect on the student. For a mixed image the probability of the
    true class is the overlap with both labels (`label_overlap`); with an unlabelled part the image is unlabelled.
    """
    p_BK = F.softmax(logits_BK.detach(), dim=1)
    return torch.where(unlabelled(labels_B, mix), p_BK.amax(dim=1), label_overlap(p_BK, labels_B, mix))


def confidence_where_teacher_better(
    from_logits_BK: Float[Tensor, "B K"],
    to_logits_BK: Float[Tensor, "B K"],
    labels_B: Int[Tensor, " B"],
    mix: LabelMix | None = None,
) -> Float[Tensor, " B"]:
    """Return `teacher_confidence` where the teacher's confidence exceeds the student's, else 0 (Eq. 17).

    Images on which the student is better than the teacher are not distilled.
    """
    weight_B = teacher_confidence(from_logits_BK, labels_B, mix)
    return torch.where(weight_B > teacher_confidence(to_logits_BK, labels_B, mix), weight_B, 0.0)


def confidence_where_teacher_better_unlabelled(
    from_logits_BK: Float[Tensor, "B K"],
    to_logits_BK: Float[Tensor, "B K"],
    labels_B: Int[Tensor, " B"],
    mix: LabelMix | None = None,
) -> Float[Tensor, " B"]:
    """Return `teacher_confidence` on labelled images, `confidence_where_teacher_better` on unlabelled ones (Eq. 18).

    Students fit given labels quickly, so their confidence on labelled images is no evidence. The teacher's
    probabilities of the other classes remain useful there.
    """
    better_B = confidence_where_teacher_better(from_logits_BK, to_logits_BK, labels_B, mix)
    confidence_B = teacher_confidence(from_logits_BK, labels_B, mix)
    return torch.where(unlabelled(labels_B, mix), better_B, confidence_B)


def pseudo_label_loss(
    from_logits_BK: Float[Tensor, "B K"],
    to_logits_BK: Float[Tensor, "B K"],
    counted_B: Bool[Tensor, " B"],
    *,
    threshold: float,
) -> Float[Tensor, ""]:
    """Return the cross-entropy with the confident classes of another network, balanced over classes (Eq. 31).

    Images count whose largest probability by `from` is at least `threshold` (FixMatch, arXiv 2001.07685). An image of a
    class has the weight 1 / (images of this class that count), scaled to mean 1, so that frequent pseudo-labels do not
    outweigh others. The sum is divided by the number of counted images, confident or not: the loss is small while few
    are confident. No gradient reaches `from`.

    Args:
        counted_B: mask of the images to use, the unlabelled ones; without any, loss and gradient are 0.
    """
    p_BK = F.softmax(from_logits_BK.detach(), dim=1)
    confidence_B, class_B = p_BK.max(dim=1)
    is_used_B = (confidence_B >= threshold) & counted_B
    used_BK = F.one_hot(class_B, p_BK.shape[1]) * is_used_B[:, None]
    weight_B = is_used_B / used_BK.sum(dim=0).clamp(min=1)[class_B]
    weight_B = weight_B * is_used_B.sum() / weight_B.sum().clamp(min=1e-8)
    loss_B = F.cross_entropy(to_logits_BK, class_B, reduction="none")
    return (weight_B * loss_B).sum() / counted_B.sum().clamp(min=1)


def class_confusion(
    logits_BK: Float[Tensor, "B K"], counted_B: Bool[Tensor, " B"], *, temperature: float
) -> Float[Tensor, ""]:
    """Return the minimum class confusion loss: the confusion between classes in a batch, in [0, 1] (Eq. 24).

    p are the softened predictions; w_i is proportional to 1 + exp(-entropy_i), has mean 1 and no gradient.
    C = p^T diag(w) p, each row divided by its sum. The loss is the mean over rows of the off-diagonal sum.

    Args:
        counted_B: mask of the images to use (usually the unlabelled ones); without any, loss and gradient are 0.
        temperature: temperature of the softmax (paper: 2.5).
    """
    log_p_BK = F.log_softmax(logits_BK / temperature, dim=1)
    p_BK = log_p_BK.exp()
    with torch.no_grad():
        # torch.special.entr here and torch.trace below would prevent the capture of a step as a CUDA graph.
        entropy_B = -(p_BK * log_p_BK).sum(dim=1)
        w_B = (1 + torch.exp(-entropy_B)) * counted_B
        w_B = w_B * counted_B.sum() / w_B.sum().clamp(min=1e-8)
    confusion_KK = p_BK.T @ (w_B[:, None] * p_BK)
    confusion_KK = confusion_KK / confusion_KK.sum(dim=1, keepdim=True).clamp(min=1e-8)
    return (confusion_KK.sum() - confusion_KK.diagonal().sum()) / logits_BK.shape[1]


def information_maximisation(
    logits_BK: Float[Tensor, "B K"], counted_B: Bool[Tensor, " B"]
) -> Float[Tensor, ""]:
    """Return the mean entropy of the predictions minus the entropy of their mean, in [-log K, 0] (Eq. 32).

    This is the negative mutual information of images and predicted classes: predictions that are confident and differ
    between images have a small loss. One class for all images has the largest loss, 0, as uniform predictions have.
    Source: Shi and Sha, arXiv 1206.6438; Liang et al. (SHOT), arXiv 2002.08546.

    Args:
        counted_B: mask of the images to use, the unlabelled ones; without any, loss and gradient are 0.
    """
    log_p_BK = F.log_softmax(logits_BK, dim=1)
    p_BK = log_p_BK.exp()
    share_B = counted_B / counted_B.sum().clamp(min=1)
    entropy_B = -(p_BK * log_p_BK).sum(dim=1)
    mean_K = (share_B[:, None] * p_BK).sum(dim=0)
    # log of at least 1e-8: a class without any probability adds 0, with a finite gradient.
    return (share_B * entropy_B).sum() + (mean_K * mean_K.clamp(min=1e-8).log()).sum()
