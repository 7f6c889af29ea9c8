"""Successive halving over methods, from short trainings to longer ones; half of the methods leave after each round.

What is known of a method's accuracy at full length is a normal distribution: the prior of `candidates`, updated by the
accuracy of a short training. The error of that accuracy has the sampling of the validation images, the seed, and a
change of the difference to other methods that grows with what the training is still to gain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fourds_dist.experiments.advise.candidates import Candidate, Prior
from fourds_dist.experiments.advise.forecast import forecast
from fourds_dist.experiments.advise.observation import Observation

RANK_SHARE = 0.3
"""Standard deviation of the change of a difference between two methods until the full length, as a share of what the
accuracy is still to gain: short trainings at chance say nothing about the order."""
SEED_SD_POINTS = 0.7
"""Standard deviation of an accuracy over seeds."""
LEAST_PRIOR_SD_POINTS = 1.5


@dataclass(frozen=True)
class Belief:
    """What is known of a candidate's accuracy at full length, minus the mean of all candidates, in points."""

    points: float
    sd: float


def beliefs(candidates: Mapping[str, Prior], observed: Mapping[str, Observation]) -> dict[str, Belief]:
    """Return what is known of the differences between candidates, from priors and their longest trainings.

    Candidates without an observation keep their prior. The priors are of differences alone, so the level of all
    accuracies is the mean of the observations minus their priors, weighted by precision.

    >>> priors = {"a": Prior(0, 3), "b": Prior(-2, 3)}
    >>> found = beliefs(priors, {"a": Observation(0.5, 0.02, 0.5), "b": Observation(0.6, 0.02, 0.5)})
    >>> found["b"].points > found["a"].points
    True
    """
    errors = {name: error_points(seen) for name, seen in observed.items()}
    sds = {name: max(prior.sd, LEAST_PRIOR_SD_POINTS) for name, prior in candidates.items()}
    weights = {name: 1 / (errors[name] ** 2 + sds[name] ** 2) for name in observed}
    total = sum(weights.values())
    level = (
        sum(w * (100 * observed[n].accuracy - candidates[n].points) for n, w in weights.items()) / total
        if total
        else 0.0
    )
    found = {}
    for name, prior in candidates.items():
        precision, mean = 1 / sds[name] ** 2, prior.points / sds[name] ** 2
        if name in observed:
            precision += 1 / errors[name] ** 2
            mean += (100 * observed[name].accuracy - level) / errors[name] ** 2
        found[name] = Belief(mean / precision, 1 / math.sqrt(precision))
    return found


def error_points(seen: Observation) -> float:
    """Return the standard deviation of an observation about the accuracy at full length, up to a level of all."""
    expected = forecast([seen])
    left = 0.0 if expected is None else 100 * abs(expected.value - seen.accuracy)
    return math.hypot(100 * seen.sd, SEED_SD_POINTS, RANK_SHARE * left)


def ranked(found: Mapping[str, Belief], among: Sequence[str]) -> list[str]:
    """Return names by decreasing expected accuracy."""
    return sorted(among, key=lambda name: -found[name].points)


def sizes(num: int) -> list[int]:
    """Return the number of candidates of each round.

    >>> [sizes(num) for num in (1, 2, 3, 5, 8)]
    [[1], [2], [3, 2], [5, 3, 2], [8, 4, 2]]
    """
    found = [num]
    while found[-1] > 2:
        found.append(max(2, math.ceil(found[-1] / 2)))
    return found


@dataclass(frozen=True)
class RacePlan:
    """Rounds of a race.

    Args:
        fractions: length of the trainings of each round, as a fraction of the full one.
        seconds: predicted time of all rounds.
    """

    fractions: tuple[float, ...]
    seconds: float


def plan_race(
    candidates: Sequence[Candidate],
    seconds: float,
    cost: Callable[[Candidate, float], float],
    *,
    least_fraction: float,
) -> RacePlan:
    """Return the longest rounds that fit in some seconds; lengths double from round to round.

    Later rounds are counted with the mean cost of all candidates, as the survivors are not known.

    Args:
        cost: seconds of a training of a candidate at a fraction of the full length.
        least_fraction: of the first round.
    """
    rounds = sizes(len(candidates))

    def plan(first: float) -> RacePlan:
        fractions = tuple(min(1.0, first * 2**number) for number in range(len(rounds)))
        total = sum(
            num * sum(cost(each, fraction) for each in candidates) / len(candidates)
            for num, fraction in zip(rounds, fractions, strict=True)
        )
        return RacePlan(fractions, total)

    best = plan(least_fraction)
    low, high = math.log(least_fraction), 0.0
    for _ in range(40):
        middle = (low + high) / 2
        tried = plan(math.exp(middle))
        if tried.seconds <= seconds:
            best, low = tried, middle
        else:
            high = middle
    if (whole := plan(1.0)).seconds <= seconds:
        best = whole
    return best
