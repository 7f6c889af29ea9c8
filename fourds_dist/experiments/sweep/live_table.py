"""The progress of a sweep: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fourds_dist.experiments.sweep.plan import SweepPlan
from fourds_dist.experiments.sweep.space import Params, label
from fourds_dist.experiments.sweep.trial_store import Configuration, Trial, TrialStore
from fourds_dist.io.terminal import words
from fourds_dist.runs.accuracy import NOT_SHARES, Measure, measure_text, percent
from fourds_dist.runs.events import EpochEnded, Event, Note, StageStarted, StageStopped

MOST_ROWS = 12
"""Trials in the live table: running ones, then the best."""


ShowTeachers = Callable[[Iterable[tuple[str, Event]]], None]
"""Shows events of source stages, each with the name of its run."""


class LiveTable:
    """Shows a trial store; `tell` may be called from any thread, the other methods from one.

    Args:
        max_concurrent_trials: trials at once.
    """

    def __init__(
        self, plan: SweepPlan, trial_store: TrialStore, console: Console, max_concurrent_trials: int
    ) -> None:
        self._plan, self._trial_store, self._console = plan, trial_store, console
        self._num_trials, self._max_concurrent_trials = plan.num_trials(), max_concurrent_trials
        self._began_s = time.monotonic()
        self._live = (
            Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        )

    def __enter__(self) -> Self:
        trials = self._trial_store.trials
        over = sum(t.state in ("done", "stopped", "failed") for t in trials.values())
        known = f"; {over} of them over, {len(trials) - over} to go on with" if trials else ""
        num = self._num_trials or "any number of"
        self._say(f"{self._plan.config.name}: {num} trials{known}, {self._max_concurrent_trials} at once")
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, what: str, trial: Trial) -> None:
        """Print a line about an event of a trial (`SweepController`)."""
        metric, mode = self._plan.config.metric, self._trial_store.mode
        best = trial.best(mode)
        reached = f"{metric} {self._shown(best)}" if best is not None else "no epoch"
        match what:
            case "started":
                self._say(f"{trial.name}: {describe_params(trial.params)}")
            case "epoch" if self._live is None:
                epoch, value = trial.history[-1]
                self._say(f"{trial.name}: epoch {epoch} of {trial.num_epochs}, {metric} {self._shown(value)}")
            case "recovers":
                self._say(f"{trial.name}: {trial.failures[-1]}; goes on from its checkpoint")
            case "done":
                tested = f", test {trial.tested:.1%}" if trial.tested is not None else ""
                self._say(f"{trial.name}: done, {reached}{tested}{self._best()}")
            case "stopped":
                self._say(f"{trial.name}: stopped after epoch {trial.epoch}, {reached}")
            case "failed":
                self._say(f"{trial.name}: left out, {trial.failures[-1]}")
            case "waiting":
                self._say(f"{trial.name}: left after epoch {trial.epoch}, to go on later")

    def teachers(self, events: Iterable[tuple[str, Event]]) -> None:
        """Print events of source stages, each with the name of its run."""
        for run, event in events:
            match event:
                case StageStarted():
                    epochs = f"{event.num_epochs} epochs"
                    self._say(f"{run}: a teacher for the trials that agree on it, {epochs}")
                case EpochEnded():
                    values = ", ".join(
                        f"{name} {percent(v.accuracy)}" for name, v in event.validation.items()
                    )
                    self._say(f"{run}: epoch {event.epoch}, validation {values}")
                case Note() | StageStopped():
                    self._say(f"{run}: {event.text}")

    def refresh(self) -> None:
        """Update the live table."""
        if self._live is not None:
            self._live.update(Group(self._summary(), self._table()), refresh=True)

    def _summary(self) -> Text:
        states = [t.state for t in list(self._trial_store.trials.values())]
        counts = ", ".join(
            f"{states.count(s)} {s}" for s in ("running", "done", "stopped", "failed") if s in states
        )
        minutes = (time.monotonic() - self._began_s) / 60
        of = f" of {self._num_trials}" if self._num_trials else ""
        return words(f"{len(states)}{of} trials: {counts or 'none yet'}; {minutes:.0f} min{self._best()}")

    def _table(self) -> Table:
        keys = list(self._plan.space.parameters)
        table = Table(box=None, padding=(0, 1))
        for name in ("trial", "state", "epoch", self._plan.config.metric):
            table.add_column(words(name), justify="left" if name in ("trial", "state") else "right")
        for key in keys:
            table.add_column(
                words(key.rpartition(".")[2]), justify="right", overflow="ellipsis", no_wrap=True
            )
        trials = list(self._trial_store.trials.values())
        sign = -1 if self._trial_store.mode == "max" else 1
        having = [t for t in trials if t.state != "running" and t.best(self._trial_store.mode) is not None]
        having.sort(key=lambda t: sign * (t.best(self._trial_store.mode) or 0))
        running = [t for t in trials if t.state == "running"]
        for trial in [*running, *having][:MOST_ROWS]:
            best = trial.best(self._trial_store.mode)
            table.add_row(
                trial.name,
                trial.state,
                f"{trial.epoch}/{trial.num_epochs}",
                self._shown(best) if best is not None else "",
                *(words(short(trial.params[key])) if key in trial.params else "" for key in keys),
            )
        return table

    def _best(self) -> str:
        ranked = self._trial_store.ranked()
        return f"; best so far {self._shown(ranked[0].mean)}" if ranked else ""

    def _shown(self, value: float | None) -> str:
        return measure_text(self._plan.measure, value)

    def _say(self, text: str) -> None:
        self._console.print(words(text), soft_wrap=True)


def results_table(plan: SweepPlan, ranked: list[Configuration], most: int = 10) -> Table:
    """The best configurations, with mean and spread over seeds."""
    keys = list(plan.space.parameters)
    title = f"{plan.config.name}: the best by {plan.config.metric}"
    table = Table(title=words(title), title_justify="left")
    for name, justify in (
        ("configuration", "left"),
        (plan.config.metric, "right"),
        ("test", "right"),
        ("", "left"),
    ):
        table.add_column(words(name), justify=justify)  # pyright: ignore[reportArgumentType]
    for key in keys:
        table.add_column(words(key.rpartition(".")[2]), justify="right")
    for configuration in ranked[:most]:
        values = (words(short(configuration.params[k])) if k in configuration.params else "-" for k in keys)
        table.add_row(f"{configuration.number:04d}", *figures(configuration, plan.measure), *values)
    return table


def figures(configuration: Configuration, measure: Measure = "accuracy") -> tuple[str, str, str]:
    """(metric, test accuracy, progress) as text, with the standard deviation over several seeds."""
    mean, spread = configuration.mean, configuration.spread
    tested = configuration.tested
    value = (
        measure_text(measure, mean)
        + (
            ""
            if spread is None
            else f" ± {spread:.3f}"
            if measure in NOT_SHARES
            else f" ± {100 * spread:.1f}"
        )
        if mean is not None
        else "-"
    )
    test = f"{sum(tested) / len(tested):.1%}" if tested else "-"
    epochs = max(t.epoch for t in configuration.trials)
    whole = configuration.trials[0].num_epochs
    states = {t.state for t in configuration.trials}
    num = len(configuration.values)
    seeds = f"{num} seed{'s' if num > 1 else ''}, " if len(configuration.trials) > 1 else ""
    came = "done" if configuration.is_done else f"{'/'.join(sorted(states))} at {epochs} of {whole}"
    return value, test, seeds + came


def describe_params(params: Params) -> str:
    """A point as one line."""
    return ", ".join(f"{key}={short(value)}" for key, value in params.items())


def short(value: Any) -> str:
    """A value as short text."""
    return f"{value:.3g}" if isinstance(value, float) else label(value)
