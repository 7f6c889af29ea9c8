"""Labels of images that mixup or cutmix made of two images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

UNLABELLED = -1


class LabelMix(NamedTuple):
    """The second label of every image of a batch, and the shares of both.

    An image is share * image + (1 - share) * partner. Its own label is the main label: losses that take one label per
    image, such as method.extra_loss, use this label.
    """

    partner_labels_B: Int[Tensor, " B"]
    """Class indices of the partners; -1: unlabelled."""

    share_B: Float[Tensor, " B"]
    """Share of the image itself, in [0, 1]."""


def unlabelled(labels_B: Int[Tensor, " B"], mix: LabelMix | None) -> Bool[Tensor, " B"]:
    """Return which images have a part without a label."""
    if mix is None:
        return labels_B == UNLABELLED
    of_partner_B = (mix.partner_labels_B == UNLABELLED) & (mix.share_B < 1)
    return ((labels_B == UNLABELLED) & (mix.share_B > 0)) | of_partner_B


def label_overlap(
    p_BK: Float[Tensor, "B K"], labels_B: Int[Tensor, " B"], mix: LabelMix | None
) -> Float[Tensor, " B"]:
    """Return the overlap of probabilities with the labels: the sum over classes of min(probability, share).

    Without a mix this is the probability of the label. A prediction equal to the shares has overlap 1, as a certain and
    right prediction of an image that is not mixed. Images with an unlabelled part have no meaningful overlap.
    """
    p_own_B = p_BK.gather(1, labels_B.clamp(min=0)[:, None]).squeeze(1)
    if mix is None:
        return p_own_B
    p_partner_B = p_BK.gather(1, mix.partner_labels_B.clamp(min=0)[:, None]).squeeze(1)
    both_B = torch.minimum(p_own_B, mix.share_B) + torch.minimum(p_partner_B, 1 - mix.share_B)
    return torch.where(labels_B == mix.partner_labels_B, p_own_B, both_B)
