"""Paired differences: two methods on the same pair of domains, with the same seed, labels and first weights.

Intervals are Student's t at 95 %. Seeds of one pair share its domains and are no independent trials of a method: where
there are several pairs, each counts once, by its mean over seeds, as one of a sample of pairs. That a gain differs from
pair to pair so widens the interval, as it should where the next pair is unknown.

Pairs of few domains have sources and targets in common, and so less to say than as many pairs of domains of their own:
where what a target makes of a gain varies as much as the rest, the 95 % intervals over the six pairs of three domains
hold the truth in 89 % of simulated cases, and in 87 % where sources do so too.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean of paired differences, or of anything else."""

    value: float
    num: int
    """Numbers it is taken over."""
    half_width: float | None
    """Of its 95 % interval; None for a single number, which has none."""

    @property
    def low(self) -> float | None:
        """Lower end of the interval."""
        return None if self.half_width is None else self.value - self.half_width

    @property
    def high(self) -> float | None:
        """Upper end of the interval."""
        return None if self.half_width is None else self.value + self.half_width


def mean_of(values: Sequence[float]) -> Mean:
    """Mean and its interval by Student's t.

    >>> mean = mean_of([1.0, 2.0, 3.0])
    >>> f"{mean.value:.3f} {mean.low:.3f} {mean.high:.3f}"
    '2.000 -0.484 4.484'
    """
    num = len(values)
    assert num
    mean = math.fsum(values) / num
    if num == 1:
        return Mean(mean, 1, None)
    variance = math.fsum((value - mean) ** 2 for value in values) / (num - 1)
    quantile = float(stdtrit(num - 1, (1 + CONFIDENCE) / 2))
    return Mean(mean, num, quantile * math.sqrt(variance / num))


def mean_over(groups: Sequence[Sequence[float]]) -> Mean:
    """Mean of the groups' means, with its interval over groups; where there is one, over its numbers.

    >>> mean_over([[1.0, 3.0], [4.0]]).value
    3.0
    >>> mean_over([[1.0, 3.0]]) == mean_of([1.0, 3.0])
    True
    """
    return mean_of(groups[0]) if len(groups) == 1 else mean_of([statistics.fmean(group) for group in groups])
