"""The plan of a sweep: its file and the run that it varies, checked together before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fourds_dist.config.effects import NO_RESULT, affected, effect_on
from fourds_dist.config.loading import Draft
from fourds_dist.config.section import ConfigError
from fourds_dist.config.trees import flatten
from fourds_dist.experiments.base_run import (
    of_one_student,
    read_experiment,
    with_absolute_base_paths,
    with_packed_urls,
)
from fourds_dist.experiments.executor import Through
from fourds_dist.experiments.sweep.config import SweepConfig
from fourds_dist.experiments.sweep.space import Params, Space, expanded, keys_of, label
from fourds_dist.io.storage import join
from fourds_dist.runs.accuracy import LABEL_FREE, Measure
from fourds_dist.stages.network_inputs import with_network_inputs
from fourds_dist.stages.preflight import check
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.target_labels import criterion

CHECKED_KEYS = (
    "teacher.",
    "student.",
    "source.",
    "target.",
    "data.",
    "source_stage.",
    "adapt.method",
    "adapt_stage.global_batch_size",
    "distill_stage.global_batch_size",
)
"""Keys whose values decide whether data and networks are available."""


@dataclass(frozen=True)
class SweepPlan:
    """A sweep that was checked."""

    config: SweepConfig
    base: Draft
    """The configuration of the run as given, with absolute paths."""
    run: Settings
    """The run, built from `base`."""
    space: Space

    def settings(
        self, params: Mapping[str, Any], *, seed: int | None = None, name: str | None = None
    ) -> Settings:
        """Build the run of one point.

        Raises:
            ConfigError: values that are invalid together.
        """
        own: Params = {}
        if seed is not None:
            own["run.seed"] = seed
        if name is not None:
            own |= {"run.name": name, "run.dir": f"{self.url}/trials", "tracking.group": self.config.name}
        return of_one_student(self.base.changed(expanded(params), "the space").changed(own, "the sweep"))

    @cached_property
    def measure(self) -> Measure:
        """What the metric's values are: accuracies, or the label-free measure that selects the epoch."""
        try:
            by = criterion("distill", self.run) if self.run.target.url is not None else "accuracy"
        except (ValueError, OSError):  # the data cannot be read
            return "accuracy"
        return by if by in LABEL_FREE else "accuracy"

    @property
    def url(self) -> str:
        """Path or URL of the folder of the sweep."""
        return join(self.run.run.dir, self.config.name)

    @property
    def teachers_url(self) -> str:
        """Path or URL of the folder of the source stages that trials share."""
        return join(self.url, "teachers")

    def num_epochs(self, params: Mapping[str, Any]) -> int:
        """Epochs of distillation of one point, also of a point that no run can have."""
        return int(expanded(params).get("distill_stage.epochs", self.run.distill_stage.epochs))

    def max_epochs(self) -> int:
        """The largest number of epochs of a trial."""
        for key, parameter in self.space.parameters.items():
            if "distill_stage.epochs" in keys_of(key):
                return max(map(int, parameter.values))
        return self.run.distill_stage.epochs

    def num_trials(self) -> int | None:
        """Number of trials; None: as many as hours and epochs allow."""
        if self.config.budget.trials is not None:
            return self.config.budget.trials
        only_grids = len(self.space.grid_keys) == len(self.space.parameters)
        return len(self.space.grid()) * self.config.seeds if only_grids else None


def read_plan(path: str | Path, overrides: Sequence[str] = (), *, folder: Path | None = None) -> SweepPlan:
    """Read the plan that a sweep file and `key=value` words give; keys of the run stand without `changes`.

    Args:
        folder: what relative paths in the configuration of the run are relative to; None: the working folder.

    Raises:
        ConfigError: naming the key, where it was given, and the nearest valid one.
    """
    config, base = read_experiment(path, overrides, SweepConfig)
    base = with_absolute_base_paths(base, folder or Path.cwd(), "the sweep")
    return make_plan(config, with_packed_urls(base, "the sweep"))


def make_plan(config: SweepConfig, base: Draft) -> SweepPlan:
    """Make the plan of a sweep and its base run.

    Raises:
        ConfigError: a space that does not fit the run.
    """
    settings = of_one_student(base)
    if settings.run.until != "distill":
        raise ConfigError(
            f"run.until={settings.run.until}: a sweep compares students and adapted teachers, which come of the last "
            "stage; take it out"
        )
    if config.through != "ray":
        _refuse_workers(config.through, settings)
    varied = [own for key in config.space for own in keys_of(key)]
    for key in varied:
        if key == "run.seed" or (key in affected(Settings) and effect_on(Settings, key) in NO_RESULT):
            raise ConfigError(f"space.{key}: this key is the sweep's own, or changes no result; take it out")
    conditions = [own for p in config.space.values() for key in p.when for own in keys_of(key)]
    for key in dict.fromkeys([*varied, *conditions]):
        base.changed({key: None}, "the space").refuse_unknown_keys(Settings)
    values = dict(flatten(settings.model_dump(mode="json")))
    plan = SweepPlan(config, base, settings, Space(config.space, lambda key: values.get(key)))
    _check_values(plan)
    return plan


def _refuse_workers(through: Through, settings: Settings) -> None:
    """Refuse trials of several processes where each trial trains in one."""
    launch = settings.launch
    wanted = [] if launch.runner == "inline" else ["launch.runner=inline"]
    wanted += ["launch.workers=1"] if launch.max_workers > 1 else []
    if wanted:
        raise ConfigError(
            f"through={through}: each trial trains in one process, without workers of Ray; give {' '.join(wanted)}"
        )


def check_trials(plan: SweepPlan) -> None:
    """Check that data and networks are available, for the base and for every value of the space that affects them.

    Raises:
        ValueError: naming the key and the value that is refused.
    """
    check(with_network_inputs(plan.settings({})))
    for key, parameter in plan.space.parameters.items():
        for value in parameter.values if any(own.startswith(CHECKED_KEYS) for own in keys_of(key)) else ():
            params = _point_with(plan, key, value)
            try:
                check(with_network_inputs(plan.settings(params)))
            except ValueError as error:
                raise ConfigError(f"space.{key}: {label(value)} cannot be: {error}") from None


def _check_values(plan: SweepPlan) -> None:
    """Check that every value, and both ends of every range, makes a valid run where its conditions hold."""
    for key, parameter in plan.space.parameters.items():
        for value in parameter.values:
            try:
                plan.settings(_point_with(plan, key, value))
            except ConfigError as error:
                raise ConfigError(f"space.{key}: {label(value)} cannot be: {error}") from None


def _point_with(plan: SweepPlan, key: str, value: Any) -> Params:
    """A value together with values that its conditions require."""
    params: Params = {key: value}
    wanting = [key]
    while wanting:
        for other, wanted in plan.space.parameters[wanting.pop()].when.items():
            if other in plan.space.parameters and other not in params:
                params[other] = wanted[0] if isinstance(wanted, list) else wanted
                wanting.append(other)
    return params
