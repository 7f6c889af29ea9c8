"""Mixup and cutmix: the partner of every image, and the share of each image in a batch.

The partner of an image is the image before it in its group, cyclically, so every image is a partner once. The groups
are those of `stream.order.groups_of_rank`: the pairs do not depend on the number of workers. With several orders in a
batch (two domains, labelled and unlabelled images), every order has its own groups.

Sources: mixup, Zhang et al., arXiv 1710.09412; cutmix, Yun et al., arXiv 1905.04899.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fourds_dist.data.augment.config import AugmentConfig


class Mix(NamedTuple):
    """How every image of a batch is mixed with its partner."""

    share: float
    """Share of the image itself, in [0, 1]; its partner has the rest. 1: the batch is not mixed."""

    box: tuple[int, int, int, int] | None = None
    """Cutmix: first and last + 1 row and column of the rectangle of the partner; None: mixup."""


def partners(group_sizes: list[int]) -> np.ndarray:
    """Return the index of every image's partner, for consecutive groups of images.

    >>> partners([2, 3]).tolist()
    [1, 0, 4, 2, 3]
    """
    begins = np.cumsum([0, *group_sizes[:-1]])
    return np.concatenate(
        [begin + np.roll(np.arange(size), 1) for begin, size in zip(begins, group_sizes, strict=True)]
    )


def draw_mix(config: AugmentConfig, crop_px: int, random: np.random.Generator) -> Mix:
    """Draw the mixture of a batch; mixup or cutmix is on.

    Args:
        crop_px: side of the images in pixels.
        random: generator of the step, the same on all ranks.
    """
    is_mixed, is_cutmix, row, column = random.random(4)
    if is_mixed >= config.mix_probability:
        return Mix(1.0)
    both = config.mixup_alpha > 0 and config.cutmix_alpha > 0
    cuts = is_cutmix < config.cutmix_probability if both else config.cutmix_alpha > 0
    alpha = config.cutmix_alpha if cuts else config.mixup_alpha
    share = float(random.beta(alpha, alpha))
    if not cuts:
        return Mix(share)
    half = int(0.5 * math.sqrt(1 - share) * crop_px)
    (top, bottom), (left, right) = (
        (max(0, centre - half), min(crop_px, centre + half))
        for centre in (int(row * crop_px), int(column * crop_px))
    )
    return Mix(1 - (bottom - top) * (right - left) / crop_px**2, (top, bottom, left, right))
