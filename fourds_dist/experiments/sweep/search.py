"""Search algorithms, which propose the next configuration: random draws, grids, and TPE."""

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
"""Invalid draws in a row after which a space is refused."""


class SearchAlgorithm(Protocol):
    """Proposes configurations, one after the other."""

    def propose(self, number: int) -> Params | None:
        """Return the configuration of that number; None: there are no more."""
        ...

    def learn(self, configuration: Configuration) -> None:
        """Take a configuration that is over, or that an earlier driver proposed."""
        ...


def make_proposals(plan: SweepPlan, known: Iterable[Configuration] = ()) -> SearchAlgorithm:
    """Make the search algorithm that the key `search` names, and pass it the configurations that are known."""
    proposals = OptunaSearch(plan) if plan.config.search == "optuna" else RandomSearch(plan)
    for configuration in known:
        proposals.learn(configuration)
    return proposals


class RandomSearch:
    """Independent draws, each a function of the seed of the sweep and its number alone; grids are enumerated."""

    def __init__(self, plan: SweepPlan) -> None:
        self._plan, self._grid = plan, plan.space.grid()
        self._is_all = len(plan.space.grid_keys) == len(plan.space.parameters)

    def propose(self, number: int) -> Params | None:
        """Return a valid point; an invalid point of a grid is returned too, and its trial fails with the reason."""
        if self._is_all and number >= len(self._grid):
            return None
        fixed = self._grid[number % len(self._grid)]
        rng = np.random.default_rng((self._plan.config.seed, number))
        return fixed if self._is_all else _first_valid(self._plan, lambda: self._plan.space.draw(rng, fixed))

    def learn(self, configuration: Configuration) -> None:
        """Do nothing: draws are independent."""


class OptunaSearch:
    """TPE of Optuna, which proposes points near good ones; running trials count as bad, so that proposals differ."""

    def __init__(self, plan: SweepPlan) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._plan = plan
        sampler = optuna.samplers.TPESampler(seed=plan.config.seed, multivariate=True, constant_liar=True)
        direction = "maximize" if plan.config.mode == "max" else "minimize"
        self._study = optuna.create_study(direction=direction, sampler=sampler)
        self._running: dict[int, int] = {}

    def propose(self, number: int) -> Params | None:
        """Return the next valid point."""

        def ask() -> Params:
            if number in self._running:  # the last point was invalid
                self._study.tell(self._running.pop(number), state=TrialState.FAIL)
            trial = self._study.ask()
            self._running[number] = trial.number
            return self._plan.space.ask(trial)

        return _first_valid(self._plan, ask)

    def learn(self, configuration: Configuration) -> None:
        """Pass the mean of a configuration to Optuna; a configuration whose seeds all failed counts as failed."""
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
    """A configuration as a trial of Optuna."""
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
    raise ConfigError(f"space: {MOST_DRAWS} draws in a row are invalid; the last: {problem}")
