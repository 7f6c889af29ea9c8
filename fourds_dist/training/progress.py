"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fourds_dist.terminal import words

STAGE_TITLES = {"source": "source stage", "adapt": "adapting the teacher", "distill": "distillation"}


class ProgressView:
    """Draws events (rows of metrics.jsonl) as they arrive."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr, highlight=False)
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __call__(self, row: dict[str, Any]) -> None:
        """Show one event."""
        match row["event"]:
            case "start":
                self._start(row)
            case "step":
                self._step(row)
            case "epoch":
                self._say(row, self._epoch_text(row))
            case "note":
                self._say(row, row["text"])
            case "stopped":
                self.close()
                self._say(row, row["text"])
            case "end":
                self.close()

    def close(self) -> None:
        """Remove the bar, if one is drawn."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _start(self, row: dict[str, Any]) -> None:
        went_on = f", going on from step {row['step']}" if row["step"] else ""
        self._say(
            row,
            f"{row['num_epochs']} epochs, {row['num_steps_per_epoch']} steps each, {row['text']}{went_on}",
        )
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
                STAGE_TITLES[row["stage"]],
                total=row["num_epochs"] * row["num_steps_per_epoch"],
                completed=row["step"],
                rate="",
            )
            self._bar.start()

    def _step(self, row: dict[str, Any]) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=row["step"], rate=f"{row['images_per_s']:.0f} images/s")

    def _epoch_text(self, row: dict[str, Any]) -> str:
        accuracies = ", ".join(
            f"{name.removeprefix('val/')} {value:.1%}{_loss(row, name.removeprefix('val/'))}"
            for name, value in row.items()
            if name.startswith("val/")
        )
        left = f", {_duration(row['left_s'])} left" if row["left_s"] >= 1 else ""
        best = " (best)" if row["is_best"] else ""
        return (
            f"epoch {row['epoch']}: loss {row['loss']:.3f}, validation {accuracies}{best}, "
            f"{row['images_per_s']:.0f} images/s{left}"
        )

    def _say(self, row: dict[str, Any], text: str) -> None:
        self._console.print(words(f"{STAGE_TITLES[row['stage']]}: {text}"), soft_wrap=True)


def _loss(row: dict[str, Any], network: str) -> str:
    loss = row.get(f"val_loss/{network}")
    return "" if loss is None else f" (loss {loss:.3f})"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
