"""Draws of augmentation for batches of synthetic images."""

from __future__ import annotations

from functools import partial

import numpy as np

from fourds_dist.data.augment.config import AugmentConfig
from fourds_dist.data.augment.draws import Draws, draw_images
from fourds_dist.data.augment.mixing import draw_mix, partners
from fourds_dist.data.seeds import MIX, generator

NUM_DRAWS = 16


def synthetic_draws(config: AugmentConfig, batch: int, image_size: int) -> list[Draws | None]:
    """Return the draws of NUM_DRAWS steps; with no augmentation, of one step, without draws."""
    if not config.changes_images:
        return [None]
    result: list[Draws | None] = []
    for step in range(NUM_DRAWS):
        uniform = partial(_uniform, step, batch)
        images = draw_images(config, image_size, uniform, partners([batch]))
        mix = draw_mix(config, image_size, generator(MIX, step)) if config.mixes else None
        result.append(Draws.of(images, config, mix))
    return result


def _uniform(step: int, batch: int, purpose: int, num: int) -> np.ndarray:
    return generator(purpose, step).random((batch, num))
