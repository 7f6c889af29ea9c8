"""The plan of a comparison: its cells and their configurations, checked before anything starts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from fourds_dist.config.loading import Draft, draft
from fourds_dist.config.section import ConfigError
from fourds_dist.config.trees import flatten
from fourds_dist.experiments.base_run import flat, is_run_key, of_one_student, read_experiment
from fourds_dist.experiments.compare.config import Changes, CompareConfig, pair_name
from fourds_dist.experiments.compare.early_stopping import EarlyStop, EarlyStopping, JudgedCell, read_stop
from fourds_dist.experiments.shared_teacher import shared_sources
from fourds_dist.io.storage import join, translate_storage_errors
from fourds_dist.launch.image_inputs import ImageInputs, place_of
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.network_inputs import with_network_inputs
from fourds_dist.stages.preflight import check
from fourds_dist.stages.run_identity import AnotherRunError, changes
from fourds_dist.stages.settings import Settings, with_absolute_paths
from fourds_dist.stages.stages import from_source
from fourds_dist.stages.target_labels import has_labels


class Cell(NamedTuple):
    """One run of a comparison."""

    regime: str
    source: str
    target: str
    seed: int
    method: str

    @property
    def pair(self) -> str:
        """The two domains as text."""
        return f"{self.source} -> {self.target}"

    @property
    def name(self) -> str:
        """Name of the run."""
        return f"{pair_name(self.source, self.target)}.{self.regime}.{self.method}.{self.seed}"

    def __str__(self) -> str:
        return f"{self.pair}, {self.regime}, seed {self.seed}, {self.method}"


@dataclass(frozen=True)
class ComparisonPlan:
    """A comparison.

    Args:
        base: the run that cells change, as given, with absolute paths.
        url: path or URL of the folder of the comparison.
        given: the configuration of every cell as the file gives it, with a source stage of its own.
        runs: the configuration of every cell, with teacher and student from `sources` where the cell has a source.
        sources: the run whose source stage a cell starts from; a cell with a given teacher has none.
    """

    config: CompareConfig
    base: Settings
    url: str
    given: dict[Cell, Settings]
    runs: dict[Cell, Settings]
    sources: dict[Cell, Settings]

    def stop_of(self, cell: Cell) -> EarlyStop | None:
        """The record of a cell that was stopped early; None: the cell is done or has to run."""
        return read_stop(self.runs[cell], self.config.early_stopping)

    def early_stopping(self) -> EarlyStopping | None:
        """The rule that stops cells early, with the epochs of no cell yet; None: no cell is stopped."""
        if self.config.early_stopping is None:
            return None
        cells = {}
        for cell, run in self.given.items():
            num_epochs = run.distill_stage.epochs
            group = (cell.regime, cell.source, cell.target, cell.seed, num_epochs)
            cells[run.run_url] = JudgedCell(cell.method, group, num_epochs)
        return EarlyStopping(self.config.early_stopping, cells)

    def among(self, *, regimes: Sequence[str] | None, methods: Sequence[str] | None) -> ComparisonPlan:
        """The cells of some regimes and methods, with the source stages of the whole plan; None: all of them.

        Raises:
            ConfigError: naming an unknown regime or method, and all known ones.
        """
        for what, asked, known in (
            ("regime", regimes, self.config.regimes),
            ("method", methods, self.config.methods),
        ):
            if unknown := [name for name in asked or () if name not in known]:
                raise ConfigError(f"there is no {what} {unknown[0]!r}; there are {', '.join(known)}")
        runs = {
            cell: run
            for cell, run in self.runs.items()
            if cell.regime in (regimes or self.config.regimes)
            and cell.method in (methods or self.config.methods)
        }
        sources = {cell: source for cell, source in self.sources.items() if cell in runs}
        return replace(self, runs=runs, sources=sources)


def read_plan(
    path: str | Path, overrides: Sequence[str] = (), *, folder: Path | None = None
) -> ComparisonPlan:
    """Read the plan that a file and `key=value` words give; keys of the run stand without `changes`.

    Args:
        folder: what relative paths are relative to; None: the working folder.

    Raises:
        ConfigError: naming the key, where it was given, and the nearest valid one.
    """
    config, base = read_experiment(path, overrides, CompareConfig)
    for word in overrides:
        if is_run_key(word, CompareConfig):
            _refuse_overruled(word, config)
    return make_plan(config, base, folder or Path.cwd())


def make_plan(config: CompareConfig, base: Draft, folder: Path) -> ComparisonPlan:
    """Make the plan of a comparison and its base run.

    Raises:
        ConfigError: unknown keys, or invalid values.
    """
    settings = with_absolute_paths(of_one_student(base), folder)
    url = join(settings.run.dir, config.name)
    cells = [
        Cell(regime, source, target, seed, method)
        for regime, (source, target), seed, method in itertools.product(
            config.regimes, config.all_pairs, config.seeds, config.methods
        )
    ]
    inputs = ImageInputs(place_of(settings))
    given = {
        cell: inputs.packed(with_absolute_paths(_settings(cell, config, base, url), folder))[0]
        for cell in cells
    }
    if config.through == "processes":
        for cell, run in given.items():
            if run.launch.runner != "inline":
                raise ConfigError(
                    f"{cell}: through=processes needs launch.runner=inline, where each cell trains in one process"
                )
    sources = shared_sources(given, f"{url}/sources")
    runs = {
        cell: from_source(run, sources[cell].run_url) if cell in sources else run
        for cell, run in given.items()
    }
    return ComparisonPlan(config, settings, url, given, runs, sources)


def refuse_others(plan: ComparisonPlan) -> None:
    """Refuse folders of cells that hold runs of other configurations, whose results cannot be compared.

    Raises:
        ConfigError: naming the cell, what differs and the remedy.
    """
    for cell, run in plan.runs.items():
        try:
            with translate_storage_errors(run.run_url):
                changes(RunFolder(run.run_url), run, strict=True)
        except AnotherRunError as error:
            raise ConfigError(
                f"{cell}: {error.what}; repeat its values to go on with the comparison, or give it another name"
            ) from None
        except ConfigError as error:
            raise ConfigError(f"{cell}: {error}") from None


def representatives(plan: ComparisonPlan) -> list[Cell]:
    """Cells that stand for all others in checks: every method in every regime on the first pair, and every pair with
    the first method."""
    first = next(iter(plan.runs))
    return [
        cell
        for cell in plan.runs
        if (cell.source, cell.target, cell.seed) == (first.source, first.target, first.seed)
        or (cell.regime, cell.method, cell.seed) == (first.regime, first.method, first.seed)
    ]


def check_runs(plan: ComparisonPlan) -> None:
    """Check that data and networks of the representative cells are available.

    Raises:
        ValueError: naming the cell, the key and the remedy.
    """
    for cell in representatives(plan):
        try:
            check(with_network_inputs(plan.given[cell]))
            if plan.config.early_stopping is not None and not has_labels(plan.given[cell].target, "val"):
                raise ValueError(
                    "early_stopping compares accuracies of methods, and the target has no validation labels that may "
                    "be used; set early_stopping=null"
                )
        except ValueError as error:
            raise ValueError(f"{cell}: {error}") from None


def _refuse_overruled(word: str, config: CompareConfig) -> None:
    """Refuse an override of a key that cells set: the override would hold in some of the cells only, or in none."""
    for key, _ in flatten(draft(None, [word]).tree):
        if key in _OF_CELLS:
            raise ConfigError(f"override {word!r}: cells set {key} themselves; {_OF_CELLS[key]}")
        for what in ("regimes", "methods"):
            parts: dict[str, Changes] = getattr(config, what)
            setting = [f"{what}.{name}" for name, changes in parts.items() if key in flat(changes)]
            if setting:
                raise ConfigError(
                    f"override {word!r}: {', '.join(setting)} would keep {key} as {'they' if setting[1:] else 'it'} set"
                    f"{'' if setting[1:] else 's'} it; say it of each, as in {setting[0]}.{key}=..., or in the file"
                )


_OF_CELLS = {
    "source.url": "give domains and pairs",
    "target.url": "give domains and pairs",
    "run.seed": "give seeds=[...]",
    "run.name": "give name",
    "tracking.group": "it is the comparison's name",
}
"""Keys of a run that differ between cells -> what to give instead."""


def _settings(cell: Cell, config: CompareConfig, base: Draft, url: str) -> Settings:
    """The run of a cell, with a source stage of its own."""
    own: Changes = {
        "prepare": None,
        "source.url": config.domains[cell.source],
        "source.packed_from": None,
        "target.url": config.domains[cell.target],
        "target.packed_from": None,
        "run.name": cell.name,
        "run.dir": f"{url}/cells",
        "run.seed": cell.seed,
        "tracking.group": config.name,
    }
    given = base.changed(flat(config.regimes[cell.regime]), f"regimes.{cell.regime}")
    given = given.changed(flat(config.methods[cell.method]), f"methods.{cell.method}")
    return of_one_student(given.changed(own, "the comparison"))
