"""The accuracy at full length, from the accuracies of short trainings of one method.

With z = logit(accuracy) and t = log2(fraction of the full length), a training twice as long adds a slope to z, and each
further doubling adds DECAY times the one before. The slope is the mean of the measured one and SLOPE, weighted by
precision. The constants are fitted to the learning curves of our comparisons (EXPERIMENTS.md of `method`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from fourds_dist.experiments.advise.observation import Observation
from fourds_dist.runs.estimate import Estimate

SLOPE, SLOPE_SD = 0.35, 0.3
"""Gain of logit(accuracy) by twice the length, over methods and data sets: mean and standard deviation."""
DECAY = 0.8
BASE_SD = 0.15
"""Standard deviation of logit(accuracy) of a training of the same length: another seed, and the choice of the best of
several epochs and methods."""
DOUBLING_SD = 0.12
"""The same that each further doubling adds."""
CONFIDENCE = 0.90
CLIP = 0.002
"""Accuracies are kept this far from 0 and 1."""


def forecast(seen: Sequence[Observation]) -> Estimate | None:
    """Return the expected accuracy at full length with its CONFIDENCE interval; None without an observation.

    Args:
        seen: trainings of one method, the longest last.
    """
    if not seen:
        return None
    last, t = seen[-1], [math.log2(max(each.fraction, 1e-9)) for each in seen]
    z = [_logit(each.accuracy) for each in seen]
    errors = [_logit_error(each) for each in seen]
    slope, slope_sd = SLOPE, SLOPE_SD
    if len(seen) > 1 and t[-1] > t[0]:
        measured = (z[-1] - z[0]) / (t[-1] - t[0])
        error = math.hypot(errors[0], errors[-1], math.sqrt(2) * BASE_SD) / (t[-1] - t[0])
        weights = (1 / SLOPE_SD**2, 1 / error**2)
        slope = (weights[0] * SLOPE + weights[1] * measured) / sum(weights)
        slope_sd = 1 / math.sqrt(sum(weights))
    doublings = max(0.0, -t[-1])
    steps = (1 - DECAY**doublings) / (1 - DECAY)  # the sum of DECAY^0 .. for whole numbers of doublings
    sd = math.hypot(errors[-1], BASE_SD, slope_sd * steps, DOUBLING_SD * doublings)
    centre = z[-1] + max(slope, 0.0) * steps
    width = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * sd
    num = round(last.accuracy * (1 - last.accuracy) / last.sd**2) if last.sd > 0 else 0
    return Estimate(_share(centre), _share(centre - width), _share(centre + width), num, 0)


def _logit(accuracy: float) -> float:
    clipped = min(max(accuracy, CLIP), 1 - CLIP)
    return math.log(clipped / (1 - clipped))


def _logit_error(seen: Observation) -> float:
    """Return the error of the logit: half of the change of the logit from one standard deviation below to one above."""
    return (_logit(seen.accuracy + seen.sd) - _logit(seen.accuracy - seen.sd)) / 2


def _share(z: float) -> float:
    return 1 / (1 + math.exp(-z))
