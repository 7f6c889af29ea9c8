"""Events of a run: what happens in it, as frozen dataclasses, and the JSON line that metrics.jsonl has for each.

The training loop makes events, the stage stamps them with its name and the time, and sinks take them: metrics.jsonl,
the progress view, W&B, Prometheus, the driver. `encode` and `decode` are the only code that knows the line.

    {"event": "step", "stage": "distill", "time": 1700000000.125, "step": 20, "epoch": 1.25, "loss": 2.5, "losses": {...
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, ClassVar, Self

from pydantic import Field, TypeAdapter, ValidationError

from fourds_dist.json_text import parsed_json
from fourds_dist.runs.failures import StopReason
from fourds_dist.runs.layout import STAGES, StageName

_LIMIT = 10**12
"""Steps, times and epochs beyond this are no values of a run: the line was edited."""

Count = Annotated[int, Field(strict=True, ge=0, lt=_LIMIT)]
Number = Annotated[float, Field(strict=True, gt=-_LIMIT, lt=_LIMIT, allow_inf_nan=False)]
Measured = Annotated[float, Field(strict=True)]
"""A measured value, which may be infinite or NaN."""
Text = Annotated[str, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]


@dataclass(frozen=True, kw_only=True)
class Event:
    """What all events have.

    Args:
        step: optimiser steps of the stage that are done.
        stage: set by `stamped`, as `time` is.
        time: seconds since 1970.
    """

    name: ClassVar[str]
    """The value of "event" in the JSON line."""

    step: Count
    stage: Text = ""
    time: Number = 0.0

    def stamped(self, stage: StageName, time: float) -> Self:
        """The event with its stage and time."""
        return replace(self, stage=stage, time=round(time, 3))


@dataclass(frozen=True, kw_only=True)
class StageStarted(Event):
    """A stage began, or was resumed at `step`."""

    name: ClassVar[str] = "start"

    num_epochs: Count
    num_steps_per_epoch: Count
    global_batch_size: Count
    num_workers: Count
    device: Text

    @property
    def text(self) -> str:
        """Batch size and workers in words."""
        workers = f"{self.num_workers} worker{'s' if self.num_workers > 1 else ''}"
        return f"{self.global_batch_size} images a step, {workers} ({self.device})"


@dataclass(frozen=True)
class TimeShares:
    """Shares of the time between two logging steps, from 0 to 1; None on a CPU.

    Args:
        data_wait: rank 0 waited for data.
        host_busy: rank 0 spent in Python; near 1, its GPU waits.
        network_wait: waiting for the gradients of the other workers.
    """

    data_wait: Measured
    host_busy: Measured | None = None
    network_wait: Measured | None = None


@dataclass(frozen=True, kw_only=True)
class StepLogged(Event):
    """A logging step: means over the steps since the last one, over all workers.

    Args:
        epoch: passes over the training split that are done, with fraction.
        loss: the weighted sum of `losses`.
        losses: unweighted losses by name.
        images_per_s: of all workers together, data included, evaluation left out.
        num_bad_samples: broken images met so far, of all workers together.
        learning_rates: by parameter group.
        method_values: what the method logs of itself, by name.
    """

    name: ClassVar[str] = "step"

    epoch: Number
    loss: Measured
    losses: dict[Text, Measured]
    images_per_s: Measured
    shares: TimeShares
    num_bad_samples: Count = 0
    learning_rates: dict[Text, Measured] = field(default_factory=dict)
    method_values: dict[Text, Measured] = field(default_factory=dict)


@dataclass(frozen=True)
class Validation:
    """One network on the validation split.

    Args:
        accuracy: over images, from 0 to 1.
        loss: mean cross-entropy; None where none was computed.
        mean_per_class: mean over classes of their accuracies; None where a class has no image.
    """

    accuracy: Measured
    loss: Measured | None = None
    mean_per_class: Measured | None = None


@dataclass(frozen=True, kw_only=True)
class EpochEnded(Event):
    """The end of an epoch, with validation.

    Args:
        epoch: passes over the training split that are done.
        loss: of the last logging step, as `images_per_s`.
        validation: by network (`layout.Network`).
        num_evaluated: images of the validation split.
        is_best: whether the weights of this epoch are the best so far.
        left_s: seconds of training until the end of the stage, estimated.
    """

    name: ClassVar[str] = "epoch"

    epoch: Count
    loss: Measured
    images_per_s: Measured
    validation: dict[Text, Validation]
    num_evaluated: Count
    is_best: Flag
    left_s: Measured


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved(Event):
    """Ray Train has counted a checkpoint; only the driver sees this event.

    Args:
        accuracies: on the validation split by network, where the step ends an epoch.
    """

    name: ClassVar[str] = "saved"

    accuracies: dict[Text, Measured] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Note(Event):
    """A line for people: a trouble that the run met and survived, or a remark on its data."""

    name: ClassVar[str] = "note"

    text: Text


@dataclass(frozen=True, kw_only=True)
class StageStopped(Event):
    """The stage left early, with a checkpoint of `step`."""

    name: ClassVar[str] = "stopped"

    reason: StopReason

    @property
    def text(self) -> str:
        """The reason and what to do, in a line."""
        return self.reason.at_step(self.step)


@dataclass(frozen=True, kw_only=True)
class StageEnded(Event):
    """The stage came to its end.

    Args:
        peak_memory_bytes: the most that the stage held of rank 0's GPU at a time; None on a CPU.
    """

    name: ClassVar[str] = "end"

    peak_memory_bytes: Count | None = None


Sink = Callable[[Event], None]
"""Takes events as they come."""

_TYPES = (StageStarted, StepLogged, EpochEnded, CheckpointSaved, Note, StageStopped, StageEnded)
_ADAPTERS = {kind.name: TypeAdapter[Event](kind) for kind in _TYPES}


def encode(event: Event) -> str:
    """The event as a JSON line, without its end."""
    values = asdict(event)
    first = {"event": event.name, "stage": values.pop("stage"), "time": values.pop("time")}
    return json.dumps(first | values)


def decode(line: str) -> Event | None:
    """The event that a line holds; None for other lines: one cut short by a kill, or edited."""
    try:
        values = parsed_json(line)
        if not isinstance(values, dict) or values.get("stage") not in STAGES:
            return None
        return _ADAPTERS[values.pop("event")].validate_python(values)
    except (ValidationError, ValueError, KeyError, TypeError):
        return None


def decode_lines(lines: Iterable[str]) -> Iterator[Event]:
    """The events of some lines; lines that hold none are left out."""
    return (event for line in lines if (event := decode(line)) is not None)
