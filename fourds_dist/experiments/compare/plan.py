"""A comparison that can be run: its cells and their configurations, checked before anything starts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from fourds_dist.config.loading import Draft, draft, flatten
from fourds_dist.config.section import ConfigError
from fourds_dist.experiments.compare.config import Changes, CompareConfig
from fourds_dist.experiments.compare.shared_sources import source_runs
from fourds_dist.io.storage import beside, join, translate_storage_errors
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.preflight import check
from fourds_dist.stages.run_identity import AnotherRunError, changes
from fourds_dist.stages.settings import Settings, with_absolute_paths
from fourds_dist.stages.stages import from_source


class Cell(NamedTuple):
    """One run of a comparison."""

    regime: str
    source: str
    target: str
    seed: int
    method: str

    @property
    def pair(self) -> str:
        """The two domains in words."""
        return f"{self.source} -> {self.target}"

    @property
    def name(self) -> str:
        """Of its run."""
        return f"{self.source}-to-{self.target}.{self.regime}.{self.method}.{self.seed}"

    def __str__(self) -> str:
        return f"{self.pair}, {self.regime}, seed {self.seed}, {self.method}"


@dataclass(frozen=True)
class ComparisonPlan:
    """A comparison.

    Args:
        base: the run that cells change, as it was given, with absolute paths.
        url: path or URL of the comparison's folder.
        given: every cell's configuration as the file gives it, with a source stage of its own.
        runs: every cell's configuration, taking teacher and student from `sources` where those are its.
        sources: the run whose source stage a cell begins from; a cell with a teacher of its own has none.
    """

    config: CompareConfig
    base: Settings
    url: str
    given: dict[Cell, Settings]
    runs: dict[Cell, Settings]
    sources: dict[Cell, Settings]

    def among(self, *, regimes: Sequence[str] | None, methods: Sequence[str] | None) -> ComparisonPlan:
        """The cells of some regimes and methods; None: of all. Their source stages stay those of the whole plan.

        Raises:
            ConfigError: naming a regime or method that the comparison does not have, and those it has.
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
    """The comparison that a file and `key=value` words give; keys of the run go without `changes`.

    Args:
        folder: what relative paths are relative to; None: the working folder.

    Raises:
        ConfigError: naming the key, where it was given, and the nearest valid one.
    """
    own = [word for word in overrides if word.partition("=")[0].split(".")[0] in CompareConfig.model_fields]
    config = draft(path, own).build(CompareConfig)
    base = draft(beside(str(path), config.config) if config.config else None)
    base = base.changed(_flat(config.changes), f"{path} (changes)")
    for word in overrides:
        if word not in own:
            _refuse_overruled(word, config)
            base = base.changed(_flat(draft(None, [word]).tree), f"override {word!r}")
    return make_plan(config, base, folder or Path.cwd())


def make_plan(config: CompareConfig, base: Draft, folder: Path) -> ComparisonPlan:
    """Put both together.

    Raises:
        ConfigError: keys or values that no run has.
    """
    settings = with_absolute_paths(base.build(Settings), folder)
    url = join(settings.run.dir, config.name)
    cells = [
        Cell(regime, source, target, seed, method)
        for regime, (source, target), seed, method in itertools.product(
            config.regimes, config.all_pairs, config.seeds, config.methods
        )
    ]
    given = {cell: with_absolute_paths(_settings(cell, config, base, url), folder) for cell in cells}
    if config.through == "processes":
        for cell, run in given.items():
            if run.launch.runner != "inline":
                raise ConfigError(
                    f"{cell}: through=processes needs launch.runner=inline, where each cell trains in one process"
                )
    sources = source_runs(given, f"{url}/sources")
    runs = {
        cell: from_source(run, sources[cell].run_url) if cell in sources else run
        for cell, run in given.items()
    }
    return ComparisonPlan(config, settings, url, given, runs, sources)


def refuse_others(plan: ComparisonPlan) -> None:
    """Refuse folders of cells that hold runs of other configurations: tables would compare what is not alike.

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
    """Cells by which all others are judged: of every method in every regime on the first pair, and of every pair with
    the first method."""
    first = next(iter(plan.runs))
    return [
        cell
        for cell in plan.runs
        if (cell.source, cell.target, cell.seed) == (first.source, first.target, first.seed)
        or (cell.regime, cell.method, cell.seed) == (first.regime, first.method, first.seed)
    ]


def check_runs(plan: ComparisonPlan) -> None:
    """Whether data and networks of the representative cells can be had.

    Raises:
        ValueError: naming the cell, the key and the remedy.
    """
    for cell in representatives(plan):
        try:
            check(plan.given[cell])
        except ValueError as error:
            raise ValueError(f"{cell}: {error}") from None


def _refuse_overruled(word: str, config: CompareConfig) -> None:
    """Refuse an override of a key that cells set for themselves: it would hold in some of them only, or in none."""
    for key, _ in flatten(draft(None, [word]).tree):
        if key in _OF_CELLS:
            raise ConfigError(f"override {word!r}: cells set {key} themselves; {_OF_CELLS[key]}")
        for what in ("regimes", "methods"):
            parts: dict[str, Changes] = getattr(config, what)
            setting = [f"{what}.{name}" for name, changes in parts.items() if key in _flat(changes)]
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
"""Keys of a run that tell cells apart -> what to give instead."""


def _settings(cell: Cell, config: CompareConfig, base: Draft, url: str) -> Settings:
    """A cell's run, with its own source stage."""
    own: Changes = {
        "prepare": None,
        "source.url": config.domains[cell.source],
        "target.url": config.domains[cell.target],
        "run.name": cell.name,
        "run.dir": f"{url}/cells",
        "run.seed": cell.seed,
        "tracking.group": config.name,
    }
    given = base.changed(_flat(config.regimes[cell.regime]), f"regimes.{cell.regime}")
    given = given.changed(_flat(config.methods[cell.method]), f"methods.{cell.method}")
    return given.changed(own, "the comparison").build(Settings)


def _flat(tree: Changes) -> Changes:
    return dict(flatten(tree)) if tree else {}
