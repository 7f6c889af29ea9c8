"""The folder of a run with given results and events, which nobody trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from fourds_dist.config.loading import dump, load
from fourds_dist.runs.accuracy import Accuracy
from fourds_dist.runs.events import EpochEnded, Event, StepLogged, TimeShares, Validation, encode
from fourds_dist.runs.layout import RunFile
from fourds_dist.runs.summary import NetworkResult, RunSummary
from fourds_dist.stages.finished_run import Run
from fourds_dist.stages.settings import Settings


def write_run(
    folder: Path, num_correct: Mapping[str, int] | None, events: Sequence[Event] = (), *overrides: str
) -> Run:
    """A run whose networks are right about so many of 40 test images; None: the run is not done."""
    folder.mkdir(parents=True)
    words = [f"run.name={folder.name}", f"run.dir={folder.parent}", "target.url=t", *overrides]
    (folder / RunFile.CONFIG).write_text(dump(load(Settings, None, words)))
    lines = [encode(event) for event in events]
    (folder / RunFile.METRICS).write_text("".join(f"{line}\n" for line in lines))
    if num_correct is not None:
        networks = tuple(
            NetworkResult(name, 2_500_000, None, Accuracy(num, 40, 100.0))
            for name, num in num_correct.items()
        )
        summary = RunSummary(folder.name, networks, 0.2, 3, 0.5, 320.0, 2)
        (folder / RunFile.SUMMARY).write_text(json.dumps(summary.as_dict()))
    return Run(str(folder))


def step(number: int, loss: float, *, wait: float = 0.0, num_bad: int = 0) -> StepLogged:
    """A logging step of distillation, one a epoch."""
    return StepLogged(
        step=number, epoch=float(number), loss=loss, losses={"ce": loss, "student_ce": loss}, images_per_s=32.0,
        shares=TimeShares(wait), num_bad_samples=num_bad,
    ).stamped("distill", 0)  # fmt: skip


def epoch(number: int, **accuracies: float) -> EpochEnded:
    """An epoch of distillation with the validation accuracies of networks."""
    return EpochEnded(
        step=number, epoch=number, loss=1.0, images_per_s=32.0, num_evaluated=40, is_best=True, left_s=0.0,
        validation={network: Validation(accuracy) for network, accuracy in accuracies.items()},
    ).stamped("distill", 0)  # fmt: skip
