"""Events of a run as frozen dataclasses, and their JSON lines in metrics.jsonl.

The training loop makes events, the stage stamps them with its name and the time, and sinks receive them: metrics.jsonl,
the progress view, W&B, Prometheus, the driver. Only `encode` and `decode` know the format of a line.

    {"event": "step", "stage": "distill", "time": 1700000000.125, "step": 20, "epoch": 1.25, "loss": 2.5, "losses": {...
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, ClassVar, Self

from pydantic import Field, TypeAdapter, ValidationError

from fourds_dist.config.stage_names import STAGES, StageName
from fourds_dist.io.json_text import parse_json
from fourds_dist.runs.failures import StopReason

_LIMIT = 10**12
"""Bound of steps, times and epochs; a line with a larger value was edited."""

Count = Annotated[int, Field(strict=True, ge=0, lt=_LIMIT)]
Number = Annotated[float, Field(strict=True, gt=-_LIMIT, lt=_LIMIT, allow_inf_nan=False)]
Evaluation = Annotated[float, Field(strict=True)]
"""A measured value; may be infinite or NaN."""
Text = Annotated[str, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]


@dataclass(frozen=True, kw_only=True)
class Event:
    """The fields of all events.

    Args:
        step: number of optimiser steps of the stage so far.
        stage: name of the stage; `stamped` sets `stage` and `time`.
        time: seconds since 1970.
    """

    name: ClassVar[str]
    """The value of "event" in the JSON line."""

    step: Count
    stage: Text = ""
    time: Number = 0.0

    def stamped(self, stage: StageName, time: float) -> Self:
        """Return the event with its stage and time."""
        return replace(self, stage=stage, time=round(time, 3))


@dataclass(frozen=True, kw_only=True)
class StageStarted(Event):
    """A stage started, or resumed at `step`."""

    name: ClassVar[str] = "start"

    num_epochs: Count
    num_steps_per_epoch: Count
    global_batch_size: Count
    num_workers: Count
    device: Text

    @property
    def text(self) -> str:
        """Batch size and number of workers as a sentence part."""
        workers = f"{self.num_workers} worker{'s' if self.num_workers > 1 else ''}"
        return f"{self.global_batch_size} images a step, {workers} ({self.device})"


@dataclass(frozen=True)
class TimeShares:
    """Shares of the time between two logging steps, from 0 to 1; all but `data_wait` are None on a CPU.

    Args:
        data_wait: share in which rank 0 waited for data.
        host_wait: share in which the GPU of rank 0 waited for Python, with captured steps; data_wait is not included.
        host_busy: share in which Python queued work, with steps without a CUDA graph; near 1, the GPU waits for Python.
        network_wait: share in which rank 0 waited for the gradients of other workers.
    """

    data_wait: Evaluation
    host_wait: Evaluation | None = None
    host_busy: Evaluation | None = None
    network_wait: Evaluation | None = None


@dataclass(frozen=True, kw_only=True)
class StepLogged(Event):
    """A logging step: means of all workers over the steps since the last logging step.

    Args:
        epoch: number of passes over the training split so far, with fraction.
        loss: the weighted sum of `losses`.
        losses: unweighted losses by name.
        images_per_s: training images per second of all workers together, including data loading, without evaluation.
        num_bad_samples: number of corrupt images that all workers together have read so far.
        learning_rates: parameter group -> learning rate.
        method_values: further values that the method logs, by name.
    """

    name: ClassVar[str] = "step"

    epoch: Number
    loss: Evaluation
    losses: dict[Text, Evaluation]
    images_per_s: Evaluation
    shares: TimeShares
    num_bad_samples: Count = 0
    learning_rates: dict[Text, Evaluation] = field(default_factory=dict)
    method_values: dict[Text, Evaluation] = field(default_factory=dict)


@dataclass(frozen=True)
class Validation:
    """Results of one network on the validation split.

    Args:
        accuracy: top-1 accuracy over images, from 0 to 1; None without labels.
        loss: mean cross-entropy; None where none was computed.
        mean_per_class: balanced accuracy, the mean of the accuracies of the classes that have images.
        macro_f1: mean of the F1 scores of the classes.
        criteria: label-free measures by name, where they were computed.
        selection: value of the label-free measure that selects the stage's epoch; None: a measure of labels selects.
    """

    accuracy: Evaluation | None
    loss: Evaluation | None = None
    mean_per_class: Evaluation | None = None
    macro_f1: Evaluation | None = None
    criteria: dict[Text, Evaluation] = field(default_factory=dict)
    selection: Evaluation | None = None

    @property
    def compared(self) -> float | None:
        """The value by which sweeps compare epochs: the label-free measure that selects, or accuracy."""
        return self.accuracy if self.selection is None else self.selection


@dataclass(frozen=True, kw_only=True)
class EpochEnded(Event):
    """An epoch ended and was validated.

    Args:
        epoch: number of passes over the training split so far.
        loss: loss at the last logging step; `images_per_s` likewise.
        validation: network (`layout.Network`) -> results.
        num_evaluated: number of labelled images of the validation split; of all its images if none has a label.
        is_best: whether the weights of this epoch are the best so far; of several students, by their mean.
        left_s: estimated seconds of training until the end of the stage.
    """

    name: ClassVar[str] = "epoch"

    epoch: Count
    loss: Evaluation
    images_per_s: Evaluation
    validation: dict[Text, Validation]
    num_evaluated: Count
    is_best: Flag
    left_s: Evaluation


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved(Event):
    """Ray Train has registered a checkpoint; only the driver receives this event.

    Args:
        accuracies: network -> `Validation.compared`, where the step ends an epoch.
    """

    name: ClassVar[str] = "saved"

    accuracies: dict[Text, Evaluation] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Note(Event):
    """A line of text for the user: a fault that the run survived, or a remark on its data."""

    name: ClassVar[str] = "note"

    text: Text


@dataclass(frozen=True, kw_only=True)
class StageStopped(Event):
    """The stage stopped early, with a checkpoint of `step`."""

    name: ClassVar[str] = "stopped"

    reason: StopReason

    @property
    def text(self) -> str:
        """The reason and what to do, in one line."""
        return self.reason.at_step(self.step)


@dataclass(frozen=True, kw_only=True)
class StageEnded(Event):
    """The stage is finished.

    Args:
        peak_memory_bytes: peak memory of the stage on rank 0's GPU; None on a CPU.
    """

    name: ClassVar[str] = "end"

    peak_memory_bytes: Count | None = None


Sink = Callable[[Event], None]
"""Function that receives events in order."""

_TYPES = (StageStarted, StepLogged, EpochEnded, CheckpointSaved, Note, StageStopped, StageEnded)
_ADAPTERS = {kind.name: TypeAdapter[Event](kind) for kind in _TYPES}


def encode(event: Event) -> str:
    """Return the event as a JSON line without a newline."""
    values = asdict(event)
    first = {"event": event.name, "stage": values.pop("stage"), "time": values.pop("time")}
    return json.dumps(first | values)


def decode(line: str) -> Event | None:
    """Return the event of a line; None for a truncated or edited line."""
    try:
        values = parse_json(line)
        if not isinstance(values, dict) or values.get("stage") not in STAGES:
            return None
        return _ADAPTERS[values.pop("event")].validate_python(values)
    except (ValidationError, ValueError, KeyError, TypeError):
        return None


def decode_lines(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events of lines; lines without an event are skipped."""
    return (event for line in lines if (event := decode(line)) is not None)
