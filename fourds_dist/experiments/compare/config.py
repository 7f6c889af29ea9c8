"""The file of a comparison: methods, pairs of domains, seeds and regimes of labels.

    name: digits
    config: ../quickstart.yaml
    domains: { digits: shards/quickstart/digits, photos: shards/quickstart/digits-photos }
    seeds: [0, 1, 2]
    regimes: { few: { target.labels_per_class: 10 }, all: {} }
    methods:
      4ds: { method.preset: 4ds }
      cross_entropy: { method.preset: cross_entropy }

`python -m fourds_dist.compare --help` lists every key.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from fourds_dist.config.section import ConfigSection
from fourds_dist.experiments.config import ExperimentConfig
from fourds_dist.experiments.executor import Through

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

Changes = dict[str, Any]
"""Keys of a run, dotted or nested, and their values."""


MOST_CELLS = 100_000


def pair_name(source: str, target: str) -> str:
    """The part of a folder's name that tells the pair of domains."""
    return f"{source}-to-{target}"


class EarlyStoppingConfig(ConfigSection):
    """When a cell is clearly worse than the best method of the same pair, seed and regime."""

    after_epochs: int = Field(default=5, ge=1)
    """Epochs of distillation that every cell gets."""

    margin_points: float = Field(default=10.0, gt=0, le=100)
    """Points of validation accuracy by which a cell has to be worse, and by twice the standard error of the
    difference too. Best accuracies up to the same epoch are compared."""


class CompareConfig(ExperimentConfig):
    """A comparison."""

    name: str = Field(default="comparison", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the comparison, and of its folder under run.dir."""

    config: str | None = None
    """YAML file of the run that every cell changes, relative to the comparison's file; null: the defaults."""

    changes: Changes = Field(default_factory=dict)
    """Keys of that run with other values, the same in all cells. On the command line they go without `changes`."""

    domains: dict[str, str]
    """Name -> path or URL of its shards."""

    pairs: Literal["all"] | tuple[tuple[str, str], ...] = "all"
    """[source, target] by the names of domains; `all`: every ordered pair of two."""

    seeds: tuple[int, ...] = (0,)
    """run.seed of each repetition: first weights, order of images, and which labels are given where they are few.
    Methods are compared within a pair and a seed."""

    regimes: dict[str, Changes] = Field(default_factory=lambda: {"all": {}})
    """Name -> keys of the run: which labels are given, where the student starts. Each regime has a table of its own."""

    methods: dict[str, Changes]
    """Name -> keys of the run, the same for all pairs and regimes."""

    baselines: tuple[str, ...] | None = None
    """Methods with which each other method is compared; null: the first method is compared with all others."""

    parallel: int | None = Field(default=None, ge=1, le=10_000)
    """Cells at once; null: as many as the cluster or this machine has room for."""

    through: Through = "ray"
    """`ray`: every cell is a task of the running cluster or of a local one. With launch.runner=inline it trains in its
    task, which holds launch.cpus_per_worker and launch.gpus_per_worker (shares of a GPU too); with
    launch.runner=ray the task launches launch.workers. `processes`: as many processes of this machine as it has room
    for by the same keys, which train one cell after the other, without Ray; faster where cells are short. `here`: one
    cell after the other in this process."""

    early_stopping: EarlyStoppingConfig | None = None
    """Cells that are clearly worse than the best method of the same pair, seed and regime stop early; null: none do.
    Tables list stopped cells; no mean and no paired difference contains them."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key in ("domains", "regimes", "methods"):
            for name in getattr(self, key):
                if not NAME.fullmatch(name):
                    raise ValueError(
                        f"{key}: {name!r} becomes part of a folder's name; use letters, digits, - and _"
                    )
            if not getattr(self, key):
                raise ValueError(f"{key} is empty")
        for pair in self.pairs if self.pairs != "all" else ():
            if unknown := [name for name in pair if name not in self.domains]:
                raise ValueError(
                    f"pairs: there is no domain {unknown[0]!r}; there are {', '.join(self.domains)}"
                )
            if pair[0] == pair[1]:
                raise ValueError(f"pairs: {list(pair)} is one domain twice")
        if unknown := [name for name in self.baselines or () if name not in self.methods]:
            raise ValueError(
                f"baselines: there is no method {unknown[0]!r}; there are {', '.join(self.methods)}"
            )
        if self.baselines is not None and not self.compared:
            raise ValueError(
                "baselines: every method is one; leave out those that are to be compared with them"
            )
        for key, values in (("seeds", self.seeds), ("pairs", self.all_pairs)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{key}: give at least one, and none twice")
        if len(set(self.baselines or ())) < len(self.baselines or ()):
            raise ValueError(f"baselines: {list(self.baselines or ())} names a method twice")
        by_name: dict[str, tuple[str, str]] = {}
        for pair in self.all_pairs:
            if (other := by_name.setdefault(pair_name(*pair), pair)) != pair:
                raise ValueError(
                    f"domains: {' -> '.join(other)} and {' -> '.join(pair)} would share the folder name "
                    f"{pair_name(*pair)!r}; rename {pair[0]!r}, or leave out one of these pairs"
                )
        lists = (self.regimes, self.all_pairs, self.seeds, self.methods)
        if (num := math.prod(map(len, lists))) > MOST_CELLS:
            raise ValueError(
                f"regimes x pairs x seeds x methods are {num} cells, and at most {MOST_CELLS} are allowed"
            )
        if self.through == "here" and (self.parallel or 1) > 1:
            raise ValueError(
                f"parallel={self.parallel} needs through=ray or processes; `here` runs one cell after the other"
            )
        return self

    @property
    def all_pairs(self) -> tuple[tuple[str, str], ...]:
        """(source, target) of every pair."""
        if self.pairs != "all":
            return self.pairs
        return tuple((a, b) for a in self.domains for b in self.domains if a != b)

    @property
    def all_baselines(self) -> tuple[str, ...]:
        """Methods with which others are compared."""
        return tuple(self.methods)[1:] if self.baselines is None else self.baselines

    @property
    def compared(self) -> tuple[str, ...]:
        """Methods that are compared with the baselines."""
        return tuple(name for name in self.methods if name not in self.all_baselines)
