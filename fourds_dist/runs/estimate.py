"""An estimate of a network's accuracy on images without labels, as runs store it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

MIN_IMAGES = 20
"""Smallest number of images of each domain for an interval narrower than [0, 1]."""


@dataclass(frozen=True)
class Estimate:
    """An estimated accuracy with an interval, in [0, 1]; `training.criteria.estimated_accuracy` makes it.

    The interval has the errors of both samples of images and the difference of two estimators. An effect of the change
    of domains on both estimators alike is not in it.
    """

    value: float
    low: float
    high: float
    num_images: int
    """Images of the target, labels unused."""
    num_source_images: int
    """Labelled source images on which the estimate is calibrated."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the estimate of its fields in JSON.

        Raises:
            TypeError: other fields.
        """
        return cls(**values)

    @property
    def is_from_few(self) -> bool:
        """Whether there are too few images for an interval."""
        return min(self.num_images, self.num_source_images) < MIN_IMAGES

    def __str__(self) -> str:
        """Return the estimate as text.

        >>> str(Estimate(0.71, 0.66, 0.76, 300, 200))
        '~71.0% (66.0% to 76.0%)'
        """
        return f"~{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"

    @property
    def basis(self) -> str:
        """What the estimate is computed from, as the part of a sentence."""
        few = f", fewer than {MIN_IMAGES} of a domain, so the interval is [0, 1]" if self.is_from_few else ""
        return (
            f"from the confidence on {self.num_images} target images, calibrated on {self.num_source_images} labelled "
            f"validation images of the source{few}"
        )
