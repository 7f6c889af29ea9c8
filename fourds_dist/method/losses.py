"""The losses on logits: cross-entropy that skips unlabelled images, and distillation (Eq. 14 to 19, 24)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

UNLABELLED = -1


def cross_entropy(logits_BK: Float[Tensor, "B K"], labels_B: Int[Tensor, " B"]) -> Float[Tensor, ""]:
    """Mean cross-entropy over the labelled images; 0, with a gradient of 0, where a batch has none (Eq. 14)."""
    total = F.cross_entropy(logits_BK, labels_B, ignore_index=UNLABELLED, reduction="sum")
    return total / (labels_B != UNLABELLED).sum().clamp(min=1)


def distillation(
    from_logits_BK: Float[Tensor, "B K"],
    to_logits_BK: Float[Tensor, "B K"],
    *,
    temperature: float,
    trust_B: Float[Tensor, " B"] | None = None,
) -> Float[Tensor, ""]:
    """temperature^2 * mean_B( trust * KL(from || to) ) of the softened distributions (Eq. 15); no gradient to `from`.

    Source: Hinton et al., arXiv 1503.02531; KL with reduction `batchmean`, as in the released code.

    Args:
        trust_B: weight of each image in [0, 1]; None counts every image fully.
    """
    soft_BK = F.softmax(from_logits_BK.detach() / temperature, dim=1)
    log_BK = F.log_softmax(to_logits_BK / temperature, dim=1)
    kl_B = F.kl_div(log_BK, soft_BK, reduction="none").sum(dim=1)
    if trust_B is not None:
        kl_B = kl_B * trust_B
    return temperature**2 * kl_B.mean()


def balance(num_classes: int, temperature: float) -> float:
    """Weight at which `distillation` from a confident teacher has half of a label's gradient (Eq. 19).

    At a student that gives every class 1/K, cross-entropy's gradient on the logits is 1/K - onehot, distillation's
    temperature * (1/K - p) with p the teacher's softened answer: the more classes, the softer. Here that of a teacher
    that gives one class 9/10 and the others alike: 0.75 for 10 classes at temperature 4, 2.2 for 65, 5.1 for 225.
    """
    if num_classes < 2:
        return 1.0
    others = num_classes - 1
    sureness = (9 * others) ** (1 / temperature)
    share = sureness / (sureness + others)
    return (1 - 1 / num_classes) / (2 * temperature * (share - 1 / num_classes))


def trust_where_right(logits_BK: Float[Tensor, "B K"], labels_B: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """The weight of each image in distillation by the probability that the distilled network is right (Eq. 16).

    The probability it gives the true class; on an unlabelled image, the probability of its own best guess. A teacher
    that is wrong about the target then stops dragging the student along.
    """
    p_BK = F.softmax(logits_BK.detach(), dim=1)
    p_true_B = p_BK.gather(1, labels_B.clamp(min=0)[:, None]).squeeze(1)
    return torch.where(labels_B == UNLABELLED, p_BK.amax(dim=1), p_true_B)


def trust_where_better(
    from_logits_BK: Float[Tensor, "B K"],
    to_logits_BK: Float[Tensor, "B K"],
    labels_B: Int[Tensor, " B"],
) -> Float[Tensor, " B"]:
    """`trust_where_right` of the distilled network where it exceeds the learner's own; 0 on the other images (Eq. 17).

    A learner that has come to know the target better than the network it learns from is left alone.
    """
    trust_B = trust_where_right(from_logits_BK, labels_B)
    return torch.where(trust_B > trust_where_right(to_logits_BK, labels_B), trust_B, 0.0)


def trust_where_surer(
    from_logits_BK: Float[Tensor, "B K"],
    to_logits_BK: Float[Tensor, "B K"],
    labels_B: Int[Tensor, " B"],
) -> Float[Tensor, " B"]:
    """`trust_where_right` on labelled images, `trust_where_better` on unlabelled ones (Eq. 18).

    What a learner was told it soon gives as certain, whatever it understands: being better there says little of it, and
    what the distilled network knows of the classes beside the right one is still worth learning.
    """
    better_B = trust_where_better(from_logits_BK, to_logits_BK, labels_B)
    return torch.where(labels_B == UNLABELLED, better_B, trust_where_right(from_logits_BK, labels_B))


def class_confusion(
    logits_BK: Float[Tensor, "B K"], counted_B: Bool[Tensor, " B"], *, temperature: float
) -> Float[Tensor, ""]:
    """Minimum class confusion: how often a batch's predictions waver between classes, in [0, 1] (Eq. 24).

    With p the softened predictions and w_i proportional to 1 + exp(-entropy_i), of mean 1 and without gradient:
    C = p^T diag(w) p, each row divided by its sum; the loss is the mean over rows of what is off the diagonal.

    Args:
        counted_B: the images that take part (usually the unlabelled ones); with none the loss is 0, its gradient too.
        temperature: of the softmax (paper: 2.5).
    """
    log_p_BK = F.log_softmax(logits_BK / temperature, dim=1)
    p_BK = log_p_BK.exp()
    with torch.no_grad():
        # With torch.special.entr here and trace below the step could not be recorded as a CUDA graph.
        entropy_B = -(p_BK * log_p_BK).sum(dim=1)
        w_B = (1 + torch.exp(-entropy_B)) * counted_B
        w_B = w_B * counted_B.sum() / w_B.sum().clamp(min=1e-8)
    confusion_KK = p_BK.T @ (w_B[:, None] * p_BK)
    confusion_KK = confusion_KK / confusion_KK.sum(dim=1, keepdim=True).clamp(min=1e-8)
    return (confusion_KK.sum() - confusion_KK.diagonal().sum()) / logits_BK.shape[1]
