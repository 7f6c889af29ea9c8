"""The sweep file: what is varied, what is measured, how long, and with what.

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
from fourds_dist.experiments.sweep.space import SearchDimension, flattened
from fourds_dist.runs.layout import Network


class BudgetConfig(ConfigSection):
    """When a sweep has tried enough; the first that is spent ends it."""

    trials: int | None = Field(default=None, ge=1, le=1_000_000)
    """Trials in all, every seed of a configuration being one; null: a grid once, otherwise until hours or epochs are
    spent."""

    hours: float | None = Field(default=None, gt=0)
    """Hours of the clock; time in which the sweep did not run does not count."""

    epochs: int | None = Field(default=None, ge=1)
    """Epochs of distillation in all trials together."""


Metric = Literal["val/student", "val/teacher_adapted"]

NETWORKS: dict[Metric, Network] = {
    "val/student": Network.STUDENT,
    "val/teacher_adapted": Network.TEACHER_ADAPTED,
}
"""Metric -> the network whose validation accuracy it is."""


class SchedulerConfig(ConfigSection):
    """Which trials are stopped early."""

    name: Literal["asha", "hyperband", "median", "none"] = "asha"
    """`asha`: at rungs, only the best 1/reduction_factor go on, judged as they come. `hyperband`: in brackets that wait
    for all. `median`: stops what stays below the median of the others' averages. `none`: all run to the end."""

    grace_epochs: int = Field(default=1, ge=1)
    """Epochs that every trial gets (asha, median)."""

    reduction_factor: float = Field(default=3.0, gt=1)
    """One of so many goes on at each rung (asha, hyperband)."""

    min_trials: int = Field(default=3, ge=1)
    """Trials that a median is taken over, at least."""


class SweepConfig(ConfigSection):
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
    """What is compared: the accuracy on the target's validation split at the end of an epoch, the best one counting."""

    mode: Annotated[Literal["max", "min"], WEIGHTS] = "max"
    """Whether more or less of it is better."""

    search: Annotated[Literal["random", "optuna"], WEIGHTS] = "random"
    """`random`: drawn independently, grids gone through. `optuna`: TPE, which learns from the trials that are
    done."""

    seed: Annotated[int, WEIGHTS] = Field(default=0, ge=0)
    """Seed of what is drawn."""

    seeds: Annotated[int, WEIGHTS] = Field(default=1, ge=1, le=10_000)
    """Trials of each configuration, with run.seed, run.seed + 1, ...; compared by their mean."""

    scheduler: Annotated[SchedulerConfig, COURSE] = SchedulerConfig()
    """Early stopping."""

    budget: Annotated[BudgetConfig, COURSE] = BudgetConfig()
    """When it ends."""

    max_concurrent_trials: Annotated[int | None, COURSE] = Field(default=None, ge=1, le=10_000)
    """Trials at once; null: as many as the cluster has room for at the start. More than there is room for wait."""

    retries: Annotated[int, COURSE] = Field(default=1, ge=0)
    """How often a failed trial goes on from its checkpoint before it is left out; besides launch.max_failures, within
    it."""

    @property
    def network(self) -> Network:
        """The network whose validation accuracy `metric` is."""
        return NETWORKS[self.metric]

    @field_validator("space", mode="before")
    @classmethod
    def _flatten(cls, given: Any) -> Any:
        return dict(flattened(given)) if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _check(self) -> Self:
        budget, grids = self.budget, [key for key, p in self.space.items() if p.kind == "grid"]
        if not self.space:
            raise ValueError("space is empty: name the keys that are to vary")
        if budget.trials and budget.trials % self.seeds:
            raise ValueError(
                f"budget.trials: {budget.trials} is no multiple of seeds={self.seeds}; every seed is a trial"
            )
        if self.search != "random" and grids:
            raise ValueError(
                f"space.{grids[0]}: grids are gone through, which search={self.search} does not; make it a choice"
            )
        endless = budget.trials is None and len(grids) < len(self.space)
        if endless and not (budget.hours or budget.epochs):
            raise ValueError("budget.trials: not set, and values are drawn without end; say how many trials")
        return self
