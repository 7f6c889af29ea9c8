"""Console output of a run: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fourds_dist.config.stage_names import STAGE_TITLES
from fourds_dist.io.terminal import words
from fourds_dist.runs.accuracy import percent
from fourds_dist.runs.events import (
    EpochEnded,
    Event,
    Note,
    StageEnded,
    StageStarted,
    StageStopped,
    StepLogged,
    Validation,
)


class ProgressView:
    """Sink that prints events."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr, highlight=False)
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __call__(self, event: Event) -> None:
        """Print one event."""
        match event:
            case StageStarted():
                self._start(event)
            case StepLogged():
                self._step(event)
            case EpochEnded():
                self._print(event, _epoch_text(event))
            case Note():
                self._print(event, event.text)
            case StageStopped():
                self.close()
                self._print(event, event.text)
            case StageEnded():
                self.close()

    def close(self) -> None:
        """Remove the progress bar, if there is one."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _start(self, event: StageStarted) -> None:
        resumed = f", resuming from step {event.step}" if event.step else ""
        steps = f"{event.num_epochs} epochs, {event.num_steps_per_epoch} steps each"
        self._print(event, f"{steps if event.num_epochs else 'no steps'}, {event.text}{resumed}")
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task(
                STAGE_TITLES[event.stage],
                total=event.num_epochs * event.num_steps_per_epoch,
                completed=event.step,
                rate="",
            )
            self._bar.start()

    def _step(self, event: StepLogged) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=event.step, rate=f"{event.images_per_s:.0f} images/s")

    def _print(self, event: Event, text: str) -> None:
        self._console.print(words(f"{STAGE_TITLES[event.stage]}: {text}"), soft_wrap=True)


def _epoch_text(event: EpochEnded) -> str:
    accuracies = ", ".join(f"{name} {_figures(value)}" for name, value in event.validation.items())
    left = f", {_duration(event.left_s)} left" if event.left_s >= 1 else ""
    best = " (best)" if event.is_best else ""
    return (
        f"epoch {event.epoch}: loss {event.loss:.3f}, validation {accuracies}{best}, "
        f"{event.images_per_s:.0f} images/s{left}"
    )


def _figures(measured: Validation) -> str:
    others = {"balanced": measured.mean_per_class, "macro F1": measured.macro_f1}
    more = [f"{name} {value:.1%}" for name, value in others.items() if value is not None]
    more += [] if measured.loss is None else [f"loss {measured.loss:.3f}"]
    more += [f"{name} {value:.3f}" for name, value in measured.criteria.items()]
    return percent(measured.accuracy) + (f" ({', '.join(more)})" if more else "")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
