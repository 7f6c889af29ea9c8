"""A sweep file and the run that it varies, read and checked together before anything starts."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fourds_dist.config.effects import NO_RESULT, affected, effect_on
from fourds_dist.config.loading import Draft, draft, flatten
from fourds_dist.config.section import ConfigError
from fourds_dist.experiments.sweep.config import SweepConfig
from fourds_dist.experiments.sweep.space import Params, Space, expanded, keys_of, label
from fourds_dist.io.storage import beside, join
from fourds_dist.stages.preflight import check
from fourds_dist.stages.settings import Settings, with_absolute_paths

LOOKED_INTO = (
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
"""Keys on whose values depends whether data and networks can be had at all."""


@dataclass(frozen=True)
class SweepPlan:
    """A sweep that can be run."""

    config: SweepConfig
    base: Draft
    """The run's configuration as given, with absolute paths."""
    run: Settings
    """The same, built."""
    space: Space

    def settings(
        self, params: Mapping[str, Any], *, seed: int | None = None, name: str | None = None
    ) -> Settings:
        """The run of one point.

        Raises:
            ConfigError: a combination of values that no run can have.
        """
        own: Params = {}
        if seed is not None:
            own["run.seed"] = seed
        if name is not None:
            own |= {"run.name": name, "run.dir": f"{self.url}/trials", "tracking.group": self.config.name}
        return self.base.changed(expanded(params), "the space").changed(own, "the sweep").build(Settings)

    @property
    def url(self) -> str:
        """Path or URL of the sweep's folder."""
        return join(self.run.run.dir, self.config.name)

    def max_epochs(self) -> int:
        """The longest that a trial may be."""
        varied = self.space.parameters.get("distill_stage.epochs")
        return max(map(int, varied.values)) if varied else self.run.distill_stage.epochs

    def num_trials(self) -> int | None:
        """Trials in all; None: as many as hours and epochs allow."""
        if self.config.budget.trials is not None:
            return self.config.budget.trials
        only_grids = len(self.space.grid_keys) == len(self.space.parameters)
        return len(self.space.grid()) * self.config.seeds if only_grids else None


def read_plan(path: str | Path, overrides: Sequence[str] = (), *, folder: Path | None = None) -> SweepPlan:
    """The plan that a sweep file and `key=value` words give; keys of the run go without `changes`.

    Args:
        folder: what relative paths in the run's configuration are relative to; None: the working folder.

    Raises:
        ConfigError: naming the key, where it was given, and the nearest valid one.
    """
    of_sweep = [word for word in overrides if not _is_run_key(word)]
    config = draft(path, of_sweep).build(SweepConfig)
    file = beside(str(path), config.config) if config.config else None
    base = draft(file).changed(_flat(config.changes), f"{path} (changes)")
    _, base = with_overrides(Draft({}, {}), base, [word for word in overrides if _is_run_key(word)])
    return make_plan(config, _with_absolute_paths(base, folder or Path.cwd()))


def with_overrides(config: Draft, base: Draft, overrides: Sequence[str]) -> tuple[Draft, Draft]:
    """A sweep and its run with `key=value` words, each for the one that has the key."""
    drafts = {False: config, True: base}
    for word in overrides:
        is_of_run = _is_run_key(word)
        drafts[is_of_run] = drafts[is_of_run].changed(_flat(draft(None, [word]).tree), f"override {word!r}")
    return drafts[False], drafts[True]


def make_plan(config: SweepConfig, base: Draft) -> SweepPlan:
    """Put both together.

    Raises:
        ConfigError: a space that does not fit the run.
    """
    settings = base.build(Settings)
    if settings.run.until != "distill":
        raise ConfigError(
            f"run.until={settings.run.until}: a sweep compares students and adapted teachers, which come of the last "
            "stage; take it out"
        )
    varied = [own for key in config.space for own in keys_of(key)]
    for key in varied:
        if key == "run.seed" or (key in affected(Settings) and effect_on(Settings, key) in NO_RESULT):
            raise ConfigError(f"space.{key}: this key is the sweep's own, or changes no result; take it out")
    conditions = [own for p in config.space.values() for key in p.when for own in keys_of(key)]
    for key in dict.fromkeys([*varied, *conditions]):
        base.changed({key: None}, "the space").refuse_unknown_keys(Settings)
    values = dict(flatten(settings.model_dump(mode="json")))
    plan = SweepPlan(config, base, settings, Space(config.space, lambda key: values.get(key)))
    _try_values(plan)
    return plan


def check_trials(plan: SweepPlan) -> None:
    """Whether data and networks of the base, and of every value that bears on them, can be had.

    Raises:
        ValueError: naming the key and what it cannot have.
    """
    check(plan.settings({}))
    for key, parameter in plan.space.parameters.items():
        for value in parameter.values if any(own.startswith(LOOKED_INTO) for own in keys_of(key)) else ():
            params = _point_with(plan, key, value)
            try:
                check(plan.settings(params))
            except ValueError as error:
                raise ConfigError(f"space.{key}: {label(value)} cannot be: {error}") from None


def _try_values(plan: SweepPlan) -> None:
    """Every value, and both ends of every range, makes a valid run with its conditions fulfilled."""
    for key, parameter in plan.space.parameters.items():
        for value in parameter.values:
            try:
                plan.settings(_point_with(plan, key, value))
            except ConfigError as error:
                raise ConfigError(f"space.{key}: {label(value)} cannot be: {error}") from None


def _point_with(plan: SweepPlan, key: str, value: Any) -> Params:
    """A value together with what its conditions ask for."""
    params: Params = {key: value}
    wanting = [key]
    while wanting:
        for other, wanted in plan.space.parameters[wanting.pop()].when.items():
            if other in plan.space.parameters and other not in params:
                params[other] = wanted[0] if isinstance(wanted, list) else wanted
                wanting.append(other)
    return params


def _with_absolute_paths(base: Draft, folder: Path) -> Draft:
    before = dict(flatten(base.build(Settings).model_dump(mode="json")))
    after = dict(flatten(with_absolute_paths(base.build(Settings), folder).model_dump(mode="json")))
    return base.changed({key: after[key] for key in after if after[key] != before[key]}, "the sweep")


def _flat(tree: Mapping[str, Any]) -> Params:
    return dict(flatten(tree)) if tree else {}


def _is_run_key(word: str) -> bool:
    """Whether a `key=value` word is about the run; a misspelt one goes where its section has the nearest name."""
    section = word.partition("=")[0].split(".")[0]
    names = [*SweepConfig.model_fields, *Settings.model_fields]
    nearest = difflib.get_close_matches(section, names, n=1)
    return (nearest[0] if nearest else section) in Settings.model_fields
