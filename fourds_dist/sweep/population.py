"""Population based training (arXiv 1711.09846): bad trials take over the weights of good ones, and vary their values.

Ray Tune decides who takes over from whom, and how values change. The checkpoints are our runs' own: a trial is told
whose to take over (`CROSSING_KEY`), copies the newest into its folder when it starts again, and goes on from there.
"""

from __future__ import annotations

import random
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import PopulationBasedTraining
from ray.tune.schedulers.pbt import _PBTTrialState

from fourds_dist.sweep.plan import Plan
from fourds_dist.sweep.space import Parameter

CROSSING_KEY = "takes_over"
"""Key of a trial's configuration: [how many times it has taken over, from whom, after which epoch]."""


class Population(PopulationBasedTraining):
    """Ray Tune's scheduler over checkpoints that Tune does not hold."""

    def __init__(self, plan: Plan, *, time_attr: str, metric: str, mode: str) -> None:
        rule = plan.config.population
        self._epochs = plan.max_epochs()
        self._clock = time_attr
        super().__init__(
            time_attr=time_attr,
            metric=metric,
            mode=mode,
            perturbation_interval=rule.every_epochs,
            quantile_fraction=rule.quantile,
            resample_probability=rule.resample,
            hyperparam_mutations={key: _mutation(p) for key, p in plan.space.parameters.items()},
            custom_explore_fn=lambda config: _within(plan, config),
            log_config=False,
            require_attrs=False,
        )

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Ray refuses any searcher here; ours only names the trials and draws their first values."""
        del tune_controller
        self._trial_state[trial] = _PBTTrialState(trial)  # pyright: ignore[reportArgumentType]

    def _checkpoint_or_exploit(
        self, trial: TuneTrial, tune_controller: Any, upper_quantile: list[Any], lower_quantile: list[Any]
    ) -> None:
        state: Any = self._trial_state[trial]
        if trial not in lower_quantile or state.last_result[self._clock] >= self._epochs:
            return
        donor = random.choice(upper_quantile)
        told: Any = self._trial_state[donor]
        config, _ = self._get_new_config(trial, donor)
        count = (trial.config.get(CROSSING_KEY) or [0])[0] + 1
        config |= {key: trial.config[key] for key in ("trial", "seed")}
        config[CROSSING_KEY] = [count, donor.config["trial"], told.last_result[self._clock]]
        tune_controller.pause_trial(trial, should_checkpoint=False)
        trial.set_config(config)
        self._num_perturbations += 1
        state.last_perturbation_time = told.last_perturbation_time
        state.last_train_time = told.last_train_time


def _mutation(parameter: Parameter) -> Any:
    match parameter.kind:
        case "uniform":
            return tune.uniform(*parameter.values)
        case "loguniform":
            return tune.loguniform(*parameter.values)
        case "randint":
            low, high = parameter.values
            return tune.randint(low, high + 1)
        case _:
            return list(parameter.values)


def _within(plan: Plan, config: dict[str, Any]) -> dict[str, Any]:
    """A multiplied value may leave its range; it stays at the end then."""
    for key, parameter in plan.space.parameters.items():
        if key in config and parameter.kind in ("uniform", "loguniform", "randint"):
            low, high = parameter.values
            config[key] = min(max(config[key], low), high)
    return config
