"""Shortened trainings: a fraction of the images that the full training shows, in fewer epochs, then of fewer images."""

from __future__ import annotations

from dataclasses import dataclass

LEAST_EPOCHS = 2
"""Epochs below which images are left out instead, as a schedule of one epoch is no schedule."""
LEAST_STEPS = 20
"""Steps of the shortest training; shorter ones do not tell methods apart."""


@dataclass(frozen=True)
class Length:
    """The length of a training stage.

    Args:
        epochs: passes over the images.
        images: training images of a pass.
        fraction: images that are shown, as a fraction of the full training.
    """

    epochs: int
    images: int
    fraction: float

    @property
    def shown(self) -> int:
        """Images shown in all epochs."""
        return self.epochs * self.images

    def __str__(self) -> str:
        return f"{self.epochs} epoch{'s' if self.epochs > 1 else ''} of {self.images} images"


@dataclass(frozen=True)
class FullLength:
    """The full training of a stage.

    Args:
        epochs: passes over the images.
        images: training images.
        batch: images of a step.
    """

    epochs: int
    images: int
    batch: int

    @property
    def shown(self) -> int:
        """Images shown in all epochs."""
        return self.epochs * self.images

    @property
    def least_fraction(self) -> float:
        """The fraction of the shortest training."""
        return min(1.0, LEAST_STEPS * self.batch / self.shown)

    def shortened(self, fraction: float) -> Length:
        """Return a training of about a fraction of the images, at least LEAST_STEPS steps and at most the full one.

        >>> FullLength(epochs=15, images=10_000, batch=64).shortened(0.25)
        Length(epochs=4, images=9375, fraction=0.25)
        >>> FullLength(epochs=15, images=1_000_000, batch=64).shortened(0.001)
        Length(epochs=2, images=7500, fraction=0.001)
        """
        fraction = min(1.0, max(fraction, self.least_fraction))
        epochs = min(self.epochs, max(LEAST_EPOCHS, round(fraction * self.epochs)))
        images = min(self.images, max(self.batch, round(fraction * self.shown / epochs)))
        return Length(epochs, images, epochs * images / self.shown)

    def steps(self, num: int) -> Length:
        """Return a training of one epoch of so many steps, or of all images."""
        images = min(self.images, num * self.batch)
        return Length(1, images, images / self.shown)
