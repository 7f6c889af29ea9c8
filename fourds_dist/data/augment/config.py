"""Augmentation of training images on the device: `data.augment.*` of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fourds_dist.config.effects import WEIGHTS
from fourds_dist.config.section import ConfigSection

Factor = Annotated[float, Field(ge=0, le=10)]
Probability = Annotated[float, Field(ge=0, le=1)]
Alpha = Annotated[float, Field(ge=0, le=100)]
SMALLEST_ALPHA = 1e-3
"""Smaller values, whose shares are 0 or 1 in float64, are refused."""


class AugmentConfig(ConfigSection):
    """Augmentation of training images after crop and flip, on the device, in this order. Default: none."""

    brightness: Annotated[Factor, WEIGHTS] = 0.0
    """Colour jitter: multiply the brightness by a number in [1 - x, 1 + x], at least 0. 0: off. Brightness, contrast,
    saturation and hue are applied in random order."""

    contrast: Annotated[Factor, WEIGHTS] = 0.0
    """Colour jitter: scale the distance to the image's mean grey by a number in [1 - x, 1 + x], at least 0. 0: off."""

    saturation: Annotated[Factor, WEIGHTS] = 0.0
    """Colour jitter: scale the distance to the pixel's grey by a number in [1 - x, 1 + x], at least 0. 0: off."""

    hue: Annotated[float, WEIGHTS] = Field(default=0.0, ge=0, le=0.5)
    """Colour jitter: shift the hue by a number in [-x, x] of the colour circle. 0: off."""

    policy: Annotated[Literal["none", "trivial_augment", "rand_augment"], WEIGHTS] = "none"
    """`trivial_augment`: one random operation of random magnitude per image (torchvision's TrivialAugmentWide).
    `rand_augment`: rand_augment_ops random operations of one magnitude (torchvision's RandAugment)."""

    rand_augment_ops: Annotated[int, WEIGHTS] = Field(default=2, ge=1, le=16)
    """Operations of `rand_augment` on each image."""

    rand_augment_magnitude: Annotated[int, WEIGHTS] = Field(default=9, ge=0, le=30)
    """Magnitude of the operations of `rand_augment`; 30 is the strongest."""

    erasing_probability: Annotated[Probability, WEIGHTS] = 0.0
    """Share of the images in which one random rectangle gets the colour data.mean, 0 after normalisation."""

    erasing_scale: Annotated[tuple[Probability, Probability], WEIGHTS] = (0.02, 0.33)
    """Smallest and largest area of an erased rectangle, as a fraction of the crop."""

    erasing_ratio: Annotated[
        tuple[Annotated[float, Field(ge=0.01, le=100)], Annotated[float, Field(ge=0.01, le=100)]], WEIGHTS
    ] = (0.3, 3.3)
    """Smallest and largest height / width of an erased rectangle."""

    mixup_alpha: Annotated[Alpha, WEIGHTS] = 0.0
    """Mixup: every image becomes share * image + (1 - share) * partner, and so do the labels of its cross-entropies.
    The share of a batch is drawn from Beta(alpha, alpha). 0: off."""

    cutmix_alpha: Annotated[Alpha, WEIGHTS] = 0.0
    """Cutmix: a rectangle of every image is that of its partner; its area, the same in a batch, is drawn from
    Beta(alpha, alpha) and determines the shares of the labels. 0: off."""

    mix_probability: Annotated[Probability, WEIGHTS] = 1.0
    """Share of the batches that mixup or cutmix changes."""

    cutmix_probability: Annotated[Probability, WEIGHTS] = 0.5
    """Share of cutmix among these batches if mixup_alpha and cutmix_alpha are both above 0."""

    @model_validator(mode="after")
    def _check(self) -> AugmentConfig:
        for key in ("erasing_scale", "erasing_ratio"):
            if (value := getattr(self, key))[0] > value[1]:
                raise ValueError(f"{key} ({list(value)}) takes two numbers, the lower one first")
        for key in ("mixup_alpha", "cutmix_alpha"):
            if 0 < (value := getattr(self, key)) < SMALLEST_ALPHA:
                raise ValueError(
                    f"{key} ({value:g}) is below {SMALLEST_ALPHA:g}; set 0 to switch the mixing off"
                )
        return self

    @property
    def jitters(self) -> dict[str, float]:
        """The operations of colour jitter that are on, and their strength."""
        strengths = {name: getattr(self, name) for name in ("brightness", "contrast", "saturation", "hue")}
        return {name: strength for name, strength in strengths.items() if strength > 0}

    @property
    def mixes(self) -> bool:
        """Whether mixup or cutmix is on."""
        return max(self.mixup_alpha, self.cutmix_alpha) > 0 and self.mix_probability > 0

    @property
    def changes_images(self) -> bool:
        """Whether any augmentation is on."""
        return bool(self.jitters) or self.policy != "none" or self.erasing_probability > 0 or self.mixes
