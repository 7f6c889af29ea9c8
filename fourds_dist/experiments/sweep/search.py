"""Which configuration is tried next: drawn, gone through, or learnt from those that are over."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

from fourds_dist.config.section import ConfigError
from fourds_dist.experiments.sweep.plan import SweepPlan
from fourds_dist.experiments.sweep.space import Params
from fourds_dist.experiments.sweep.trial_store import Configuration

MOST_DRAWS = 200
"""Draws in a row of which no run can be made, before a space is given up."""


class SearchAlgorithm(Protocol):
    """Gives configurations, one after another."""

    def propose(self, number: int) -> Params | None:
        """The configuration of that number; None: there are no more."""
        ...

    def learn(self, configuration: Configuration) -> None:
        """Take note of a configuration: over, or proposed earlier and still to come."""
        ...


def make_proposals(plan: SweepPlan, known: Iterable[Configuration] = ()) -> SearchAlgorithm:
    """As the sweep's `search` says, with what is known already."""
    proposals = OptunaSearch(plan) if plan.config.search == "optuna" else RandomSearch(plan)
    for configuration in known:
        proposals.learn(configuration)
    return proposals


class RandomSearch:
    """Independent draws, each a function of the sweep's seed and its number alone; grids are gone through in turn."""

    def __init__(self, plan: SweepPlan) -> None:
        self._plan, self._grid = plan, plan.space.grid()
        self._is_all = len(plan.space.grid_keys) == len(plan.space.parameters)

    def propose(self, number: int) -> Params | None:
        """A point that a run can be made of; where a grid's cannot, it is passed on and fails by name."""
        if self._is_all and number >= len(self._grid):
            return None
        fixed = self._grid[number % len(self._grid)]
        rng = np.random.default_rng((self._plan.config.seed, number))
        return fixed if self._is_all else _first_valid(self._plan, lambda: self._plan.space.draw(rng, fixed))

    def learn(self, configuration: Configuration) -> None:
        """Nothing is to be learnt."""


class OptunaSearch:
    """Optuna's TPE, which proposes near what did well; trials under way count as doing badly, so that others differ."""

    def __init__(self, plan: SweepPlan) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._plan = plan
        sampler = optuna.samplers.TPESampler(seed=plan.config.seed, multivariate=True, constant_liar=True)
        direction = "maximize" if plan.config.mode == "max" else "minimize"
        self._study = optuna.create_study(direction=direction, sampler=sampler)
        self._running: dict[int, int] = {}

    def propose(self, number: int) -> Params | None:
        """The next point that a run can be made of."""

        def ask() -> Params:
            if number in self._running:  # the last one was none
                self._study.tell(self._running.pop(number), state=TrialState.FAIL)
            trial = self._study.ask()
            self._running[number] = trial.number
            return self._plan.space.ask(trial)

        return _first_valid(self._plan, ask)

    def learn(self, configuration: Configuration) -> None:
        """Tell Optuna a configuration's mean; one that failed with all its seeds as such."""
        number, mean = configuration.number, configuration.mean
        if number not in self._running:
            self._study.add_trial(as_optuna(self._plan, configuration, state=TrialState.RUNNING))
            self._running[number] = len(self._study.get_trials(deepcopy=False)) - 1
        if configuration.is_over:
            own = self._running.pop(number)
            if mean is None:
                self._study.tell(own, state=TrialState.FAIL)
            else:
                self._study.tell(own, mean)


def as_optuna(
    plan: SweepPlan, configuration: Configuration, *, state: TrialState = TrialState.COMPLETE
) -> optuna.trial.FrozenTrial:
    """A configuration as Optuna's trial."""
    params = configuration.params
    return create_trial(
        state=state,
        params=plan.space.as_optuna(params),
        distributions=plan.space.distributions(params),
        value=configuration.mean if state == TrialState.COMPLETE else None,
    )


def _first_valid(plan: SweepPlan, draw: Callable[[], Params]) -> Params:
    problem: ConfigError | None = None
    for _ in range(MOST_DRAWS):
        params = draw()
        try:
            plan.settings(params)
        except ConfigError as error:
            problem = error
        else:
            return params
    raise ConfigError(f"space: {MOST_DRAWS} draws in a row make no run that can be; the last: {problem}")
