"""The sweep file: which keys vary, what is measured, the budget, the search and the scheduler.

    name: adapters
    config: ../quickstart.yaml
    changes: { distill_stage: { epochs: 6 } }
    space:
      method.adapter_reduction: { choice: [2, 4, 8] }
      distill_stage.optim.adapter_lr: { loguniform: [1.0e-4, 1.0e-2] }
    budget: { trials: 24 }
    scheduler: { name: asha }

`python -m fourds_dist.tune --help` lists every key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from fourds_dist.config.effects import COURSE, PLACE, WEIGHTS
from fourds_dist.config.section import ConfigSection
from fourds_dist.experiments.config import ExperimentConfig
from fourds_dist.experiments.executor import Through
from fourds_dist.experiments.sweep.space import SearchDimension, flattened, keys_of
from fourds_dist.runs.layout import Network


class BudgetConfig(ConfigSection):
    """The budget of a sweep; the sweep ends when one of these is spent."""

    trials: int | None = Field(default=None, ge=1, le=1_000_000)
    """Trials in all, where each seed of a configuration is a trial; null: a grid once, otherwise until hours or epochs
    are spent."""

    hours: float | None = Field(default=None, gt=0)
    """Hours for which the sweep runs; time between a stop and its resumption does not count."""

    epochs: int | None = Field(default=None, ge=1)
    """Epochs of distillation in all trials together."""


Metric = Literal["val/student", "val/teacher_adapted"]

NETWORKS: dict[Metric, Network] = {
    "val/student": Network.STUDENT,
    "val/teacher_adapted": Network.TEACHER_ADAPTED,
}
"""Metric -> the network of which the metric is the validation accuracy."""


class SchedulerConfig(ConfigSection):
    """Which trials are stopped early."""

    name: Literal["asha", "hyperband", "median", "none"] = "asha"
    """`asha`: at each rung, a trial continues if it is among the best 1/reduction_factor so far. `hyperband`: brackets
    wait for all of their trials. `median`: stops trials below the median of the averages of the others. `none`: all
    trials run to the end."""

    grace_epochs: int = Field(default=1, ge=1)
    """Epochs before a trial may be stopped (asha, median)."""

    reduction_factor: float = Field(default=3.0, gt=1)
    """One of so many trials continues at each rung (asha, hyperband)."""

    min_trials: int = Field(default=3, ge=1)
    """The fewest trials for a median."""


class SweepConfig(ExperimentConfig):
    """A sweep."""

    name: Annotated[str, PLACE] = Field(default="sweep", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the sweep, of its folder under run.dir, and of its group in W&B."""

    config: Annotated[str | None, PLACE] = None
    """YAML file of the run that every trial changes, relative to the sweep's file; null: the defaults."""

    changes: Annotated[dict[str, Any], PLACE] = Field(default_factory=dict)
    """Keys of that run with other values, dotted or nested, the same in all trials: its length, launch.workers and
    launch.cpus_per_worker, data. On the command line they go without `changes`."""

    space: Annotated[dict[str, SearchDimension], WEIGHTS]
    """Key, dotted or nested, -> one of `choice: [...]`, `grid: [...]`, `uniform: [low, high]`, `loguniform`, `randint`;
    with `when: {other.key: value}` it varies only there."""

    metric: Annotated[Metric, WEIGHTS] = "val/student"
    """What is compared: the accuracy on the validation split of the target, of the best epoch. Without labels there, or
    with a label-free run.select_by, the value of that criterion."""

    mode: Annotated[Literal["max", "min"], WEIGHTS] = "max"
    """Whether higher or lower values of the metric are better."""

    search: Annotated[Literal["random", "optuna"], WEIGHTS] = "random"
    """`random`: independent draws; grids are enumerated. `optuna`: TPE, which learns from finished trials."""

    seed: Annotated[int, WEIGHTS] = Field(default=0, ge=0)
    """Seed of the draws."""

    seeds: Annotated[int, WEIGHTS] = Field(default=1, ge=1, le=10_000)
    """Trials of each configuration, with run.seed, run.seed + 1, ...; compared by their mean."""

    scheduler: Annotated[SchedulerConfig, COURSE] = SchedulerConfig()
    """Early stopping."""

    budget: Annotated[BudgetConfig, COURSE] = BudgetConfig()
    """When the sweep ends."""

    max_concurrent_trials: Annotated[int | None, COURSE] = Field(default=None, ge=1, le=10_000)
    """Trials at once; null: as many as the cluster or this machine has room for at the start. More than there is room
    for wait."""

    through: Annotated[Through, COURSE] = "ray"
    """`ray`: Ray Tune, in the running cluster or a local one; each trial launches launch.workers. `processes`: as many
    processes of this machine as it has room for by launch.cpus_per_worker and launch.gpus_per_worker, which train one
    trial after the other, without Ray; faster where trials are short. `here`: one trial after the other in this
    process. Both need launch.runner=inline."""

    retries: Annotated[int, COURSE] = Field(default=1, ge=0)
    """How often a failed trial is resumed from its checkpoint before it is left out; launch.max_failures counts
    failures within a trial apart."""

    @property
    def network(self) -> Network:
        """The network of which `metric` is the validation accuracy."""
        return NETWORKS[self.metric]

    @field_validator("space", mode="before")
    @classmethod
    def _flatten(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        space = dict(flattened(given))  # of a key that is given dotted and nested, the override comes last
        owners: dict[str, str] = {}
        for key in (key for key, dimension in space.items() if not dimension.get("when")):
            for own in keys_of(key):
                if (other := owners.setdefault(own, key)) != key:
                    raise ValueError(f"{own} varies by {other!r} and by {key!r}; take it out of one of them")
        return space

    @model_validator(mode="after")
    def _check(self) -> Self:
        budget, grids = self.budget, [key for key, p in self.space.items() if p.kind == "grid"]
        if not self.space:
            raise ValueError("space is empty: name the keys that are to vary")
        if budget.trials and budget.trials % self.seeds:
            raise ValueError(
                f"budget.trials: {budget.trials} is no multiple of seeds={self.seeds}; every seed is a trial"
            )
        if self.through == "here" and (self.max_concurrent_trials or 1) > 1:
            raise ValueError(
                f"max_concurrent_trials: {self.max_concurrent_trials} needs through=ray or processes; `here` runs one "
                "trial after the other"
            )
        if self.through != "ray" and self.scheduler.name == "hyperband":
            raise ValueError(
                f"scheduler.name: hyperband pauses trials, which through={self.through} does not; take asha or median"
            )
        if self.search != "random" and grids:
            raise ValueError(
                f"space.{grids[0]}: search={self.search} does not enumerate grids; make it a choice"
            )
        endless = budget.trials is None and len(grids) < len(self.space)
        if endless and not (budget.hours or budget.epochs):
            raise ValueError("budget.trials: not set, and draws have no end; give a number of trials")
        return self
