"""The random parameters of a batch's augmentation: a pure function of (seed, step, position in the global batch).

The host draws them with the batch's crops, so that they do not depend on the number of workers, and a resumed run draws
them again. The spaces of operations and magnitudes are those of torchvision's TrivialAugmentWide and RandAugment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fourds_dist.data.augment.config import AugmentConfig
from fourds_dist.data.augment.mixing import Mix
from fourds_dist.data.augment.operations import NUM_PARAMETERS, Operation
from fourds_dist.data.decode.crop_box import NUM_TRIES
from fourds_dist.data.seeds import ERASE, JITTER, POLICY

MOST_LEVEL = 30
"""Levels of a magnitude count from 0."""

Uniform = Callable[[int, int], np.ndarray]
"""Function of (purpose of a generator, number n) to (B, n) uniform numbers in [0, 1), one row per image."""


@dataclass(frozen=True)
class ImageDraws:
    """Draws of each image, on the host.

    Args:
        operations: (B, R) numbers of the operations of each round.
        parameters: (B, R, NUM_PARAMETERS) parameters of these operations.
        erased: (B, 4) top, left, height and width of the erased rectangle, in pixels; an area of 0: none.
        partners: (B,) index of the image's partner in the batch.
    """

    operations: np.ndarray
    parameters: np.ndarray
    erased: np.ndarray
    partners: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[ImageDraws]) -> ImageDraws:
        """Return the draws of a batch of several parts, whose partners are counted within their part."""
        begins = np.cumsum([0, *(len(part.partners) for part in parts[:-1])])
        return cls(
            np.concatenate([part.operations for part in parts]),
            np.concatenate([part.parameters for part in parts]),
            np.concatenate([part.erased for part in parts]),
            np.concatenate([part.partners + begin for part, begin in zip(parts, begins, strict=True)]),
        )


@dataclass(frozen=True)
class Round:
    """One operation on each image, with the images in the order of their operations.

    Args:
        groups: operation and number of images of each group, in this order; further images stay unchanged.
        indices: (B,) index in the batch of each image.
        parameters: (B, NUM_PARAMETERS) parameters of each image.
    """

    groups: tuple[tuple[Operation, int], ...]
    indices: Int[Tensor, " B"]
    parameters: Float[Tensor, "B P"]


@dataclass(frozen=True)
class Draws:
    """Draws of a batch as tensors, which travel with the batch to its device.

    Args:
        rounds: operations on the images, one after the other.
        erased: see `ImageDraws`; None: no erasing.
        partners: see `ImageDraws`; None: no mixing.
        mix: how images and partners are mixed.
    """

    rounds: tuple[Round, ...]
    erased: Int[Tensor, "B 4"] | None
    partners: Int[Tensor, " B"] | None
    mix: Mix | None

    @classmethod
    def of(cls, images: ImageDraws, config: AugmentConfig, mix: Mix | None) -> Draws:
        """Return the draws of the images of a batch as tensors."""
        num_rounds = images.operations.shape[1]
        return cls(
            tuple(_round(images.operations[:, r], images.parameters[:, r]) for r in range(num_rounds)),
            torch.from_numpy(images.erased) if config.erasing_probability > 0 else None,
            None if mix is None else torch.from_numpy(images.partners),
            mix,
        )

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Draws:
        """Return the draws with `function` of each tensor."""
        rounds = tuple(
            replace(r, indices=function(r.indices), parameters=function(r.parameters)) for r in self.rounds
        )
        erased, partners = (None if x is None else function(x) for x in (self.erased, self.partners))
        return Draws(rounds, erased, partners, self.mix)


def draw_images(config: AugmentConfig, crop_px: int, uniform: Uniform, partners: np.ndarray) -> ImageDraws:
    """Draw the operations and erased rectangles of images.

    Args:
        crop_px: side of the images in pixels.
        partners: see `ImageDraws`.
    """
    num_images = len(partners)
    rounds = [*_jitter_rounds(config, uniform), *_policy_rounds(config, crop_px, uniform)]
    operations = np.zeros((num_images, len(rounds)), np.int64)
    parameters = np.zeros((num_images, len(rounds), NUM_PARAMETERS), np.float32)
    for r, (drawn, values) in enumerate(rounds):
        operations[:, r], parameters[:, r] = drawn, values
    return ImageDraws(operations, parameters, _erased(config, crop_px, uniform, num_images), partners)


def _round(operations: np.ndarray, parameters: np.ndarray) -> Round:
    """Sort the images of a round by operation; `Operation.NOTHING`, the largest number, comes last."""
    indices = np.argsort(operations, kind="stable")
    numbers, counts = np.unique(operations, return_counts=True)
    groups = tuple(
        (Operation(number), count)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)
        if number != Operation.NOTHING
    )
    return Round(groups, torch.from_numpy(indices), torch.from_numpy(parameters[indices]))


def _jitter_rounds(config: AugmentConfig, uniform: Uniform) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (operations, parameters) of colour jitter: each image has its own order and factors."""
    jitters = config.jitters
    if not jitters:
        return []
    random = uniform(JITTER, 2 * len(jitters))
    order = np.argsort(random[:, : len(jitters)], axis=1)
    parameters = np.zeros((*order.shape, NUM_PARAMETERS))
    for j, (name, strength) in enumerate(jitters.items()):
        low = -strength if name == "hue" else max(0.0, 1 - strength)
        high = strength if name == "hue" else 1 + strength
        parameters[:, j, 0] = low + (high - low) * random[:, len(jitters) + j]
    numbers = np.array([Operation[name.upper()] for name in jitters])
    rows = np.arange(len(random))
    return [(numbers[place], parameters[rows, place]) for place in order.T]


def _policy_rounds(
    config: AugmentConfig, crop_px: int, uniform: Uniform
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (operations, parameters) of TrivialAugment or RandAugment."""
    if config.policy == "none":
        return []
    is_trivial = config.policy == "trivial_augment"
    num_rounds = 1 if is_trivial else config.rand_augment_ops
    random = uniform(POLICY, 3 * num_rounds).reshape(-1, num_rounds, 3)
    rounds = []
    for r in range(num_rounds):
        choice, level, sign = random[:, r].T
        if is_trivial:
            level = np.floor(level * (MOST_LEVEL + 1)) / MOST_LEVEL
            space = _space(level, np.where(sign < 0.5, -1.0, 1.0), crop_px, 0.99, 32.0, 135.0, 0.99, 6)
        else:
            level = np.full(len(choice), config.rand_augment_magnitude / MOST_LEVEL)
            pixels = 150 / 331 * crop_px
            space = _space(level, np.where(sign < 0.5, -1.0, 1.0), crop_px, 0.3, pixels, 30.0, 0.9, 4)
        chosen = np.minimum((choice * len(space)).astype(int), len(space) - 1)
        numbers = np.array([operation for operation, _ in space])
        values = np.stack([values for _, values in space])
        rounds.append((numbers[chosen], values[chosen, np.arange(len(chosen))]))
    return rounds


def _space(
    level: np.ndarray,
    sign: np.ndarray,
    side: int,
    shear: float,
    pixels: float,
    degrees: float,
    strength: float,
    bits: int,
) -> list[tuple[Operation, np.ndarray]]:
    """Return every operation of a policy with its parameters for each image.

    Args:
        level: (B,) magnitudes in [0, 1].
        sign: (B,) -1 or 1, for the operations with two directions.
        side: side of the images in pixels.
        shear, pixels, degrees, strength, bits: shear, translation, rotation, change of a factor, and number of bits
            that posterizing removes, at magnitude 1.
    """
    zero, one = np.zeros_like(level), np.ones_like(level)
    slope, moved, angle = (
        sign * level * shear,
        np.trunc(sign * level * pixels),
        np.radians(sign * level * degrees),
    )
    cos, sin, half = np.cos(angle), np.sin(angle), slope * side / 2
    factor = 1 + sign * level * strength
    mask = 256 - 2.0 ** np.round(level * bits)
    matrices = (
        (one, slope, half, zero, one, zero),
        (one, zero, zero, slope, one, half),
        (one, zero, -moved, zero, one, zero),
        (one, zero, zero, zero, one, -moved),
        (cos, -sin, zero, sin, cos, zero),
    )
    scalars = {
        Operation.BRIGHTNESS: factor,
        Operation.SATURATION: factor,
        Operation.CONTRAST: factor,
        Operation.SHARPNESS: factor,
        Operation.POSTERIZE: mask,
        Operation.SOLARIZE: 255 * (1 - level),
        Operation.AUTOCONTRAST: zero,
        Operation.EQUALIZE: zero,
        Operation.NOTHING: zero,
    }
    return [
        *((Operation.AFFINE, np.stack(matrix, axis=1)) for matrix in matrices),
        *((operation, np.stack([value] + [zero] * 5, axis=1)) for operation, value in scalars.items()),
    ]


def _erased(config: AugmentConfig, crop_px: int, uniform: Uniform, num_images: int) -> np.ndarray:
    """Return (B, 4) erased rectangles, as torchvision's RandomErasing draws them."""
    if config.erasing_probability == 0:
        return np.zeros((num_images, 4), np.int64)
    random = uniform(ERASE, 3 + 2 * NUM_TRIES)
    low, high = config.erasing_scale
    areas = (low + (high - low) * random[:, 3::2]) * crop_px**2
    low, high = np.log(config.erasing_ratio)
    ratios = np.exp(low + (high - low) * random[:, 4::2])
    tall, wide = np.round(np.sqrt(areas * ratios)), np.round(np.sqrt(areas / ratios))
    fits = (tall < crop_px) & (wide < crop_px)
    rows, first = np.arange(num_images), fits.argmax(axis=1)
    tall, wide = tall[rows, first], wide[rows, first]
    top, left = (np.floor((crop_px - size + 1) * random[:, k]) for k, size in ((1, tall), (2, wide)))
    chosen = (random[:, 0] < config.erasing_probability) & fits.any(axis=1)
    return (np.stack([top, left, tall, wide], axis=1) * chosen[:, None]).astype(np.int64)
