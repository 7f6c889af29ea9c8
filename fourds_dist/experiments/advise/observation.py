"""What a short training of a method shows."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Observation:
    """A short training of a candidate.

    Args:
        accuracy: on the validation split, from 0 to 1, or an estimate of it.
        sd: standard deviation of its error by the sampling of images.
        fraction: length of the training, as a fraction of the full one.
    """

    accuracy: float
    sd: float
    fraction: float

    @classmethod
    def counted(cls, accuracy: float, num: int, fraction: float) -> Observation:
        """Return the accuracy on `num` labelled images; its error is above 0 also if all of them are right.

        >>> seen = Observation.counted(1.0, 98, 0.5)
        >>> round(seen.sd, 4)
        0.01
        """
        smooth = (accuracy * num + 1) / (num + 2)
        return cls(accuracy, math.sqrt(smooth * (1 - smooth) / num), fraction)
