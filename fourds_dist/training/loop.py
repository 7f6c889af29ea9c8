"""The training loop, the same for all stages: fetch, forward, backward, step, log, evaluate, save.

It knows nothing of Ray, DeepSpeed, files or W&B: a `Strategy` takes the step, checkpoints go to a `CheckpointStore`,
events to `emit`, and a `StopSignal` tells when to leave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from fourds_dist.config import Section
from fourds_dist.data import TrainStream
from fourds_dist.effects import COURSE, WEIGHTS
from fourds_dist.method.distiller import Predictor
from fourds_dist.runs.events import Note, Sink, StageEnded, StageStarted, StageStopped
from fourds_dist.training.evaluate import Accuracy, Measure
from fourds_dist.training.guard import Guard
from fourds_dist.training.meter import Meter
from fourds_dist.training.optim import OptimConfig
from fourds_dist.training.snapshot import Best, Place, capture, resume
from fourds_dist.training.step import TrainStep
from fourds_dist.training.stop import Stopped, StopSignal, never
from fourds_dist.training.store import CheckpointStore
from fourds_dist.training.strategy import Strategy
from fourds_dist.training.transfer import on_device
from fourds_dist.training.world import World

MOST_EPOCHS = 1_000_000
MOST_IMAGES = 1 << 20
"""In a global batch."""


class StageConfig(Section):
    """Length, checkpoints and learning rates of one stage."""

    epochs: Annotated[int, WEIGHTS] = Field(default=120, ge=1, le=MOST_EPOCHS)
    """Passes over the training split."""

    global_batch_size: Annotated[int, WEIGHTS] = Field(default=32, ge=1, le=MOST_IMAGES)
    """Images per optimiser step, over all workers together."""

    checkpoint_every_steps: Annotated[int | None, COURSE] = Field(default=None, ge=1)
    """Steps between two checkpoints, besides the one at the end of every epoch; null: those alone. They are written
    while training goes on."""

    select: Annotated[Measure, WEIGHTS] = "accuracy"
    """What the best epoch is chosen by on the validation split: `accuracy`, or `mean_per_class`, its mean over classes
    however many images each has. Among epochs within one standard error of the highest, the lowest loss decides."""

    optim: OptimConfig = OptimConfig()
    """Learning rates and schedules."""


class Task(Protocol):
    """What the loop trains; an nn.Module with these besides."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]: ...
    def predictors(self) -> dict[str, Predictor]: ...
    def log_values(self) -> dict[str, Tensor]: ...
    def heed(self, accuracies: Mapping[str, float]) -> None: ...


@dataclass(frozen=True)
class Surroundings:
    """What a run reaches outside of itself.

    `write` puts a value as JSON into the run's folder; `happened` gives lines on what befell the run since its last
    start, once.
    """

    store: CheckpointStore
    emit: Sink
    stop: StopSignal = never
    write: Callable[[str, Any], None] = lambda name, value: None
    happened: Callable[[], list[str]] = list


def fit(
    task: nn.Module,
    train_step: TrainStep,
    strategy: Strategy,
    stream: TrainStream,
    validate: Callable[[], dict[str, Accuracy]],
    around: Surroundings,
    *,
    config: StageConfig,
    selected: str,
    identity: dict[str, str],
    world: World,
    log_every_steps: int,
    max_bad_steps: int = 0,
) -> Best:
    """Train `task` to the end of its epochs, or on from the newest checkpoint; leave it plain, with its best weights.

    Args:
        strategy: has wrapped the task, for `train_step`.
        validate: evaluates the task's predictors on the validation split; called by every rank together.
        selected: the predictor whose validation accuracy and loss choose the best weights.
        identity: names of model and data; a checkpoint with another identity is refused.

    Raises:
        ValueError: a checkpoint of another model, data set or format.
        FloatingPointError: loss or gradients are no longer finite, more often than `max_bad_steps`, or weights are not.
        OSError: a checkpoint cannot be written, for longer than the store has patience.
        Stopped: the run was told to leave and did, with a checkpoint.
    """
    steps_per_epoch, emit, store = stream.num_steps_per_epoch, around.emit, around.store
    num_steps = config.epochs * steps_per_epoch
    task.train()
    if world.device.type == "cuda":  # what came before in this process counts for nobody
        torch.cuda.reset_peak_memory_stats(world.device)
    place = resume(task, strategy, store, identity, world)
    _tell_start(place, stream, config, around, world)

    meter = Meter(place.step, num_steps, config.global_batch_size, stream, world)
    guard = Guard(
        task,
        world,
        num_skipped=place.num_skipped,
        budget=max_bad_steps,
        window_steps=log_every_steps,
        write=around.write,
    )
    batches = on_device(stream.batches(place.step), world.device)
    while place.step < num_steps:
        batch = next(batches)
        output = train_step(batch)
        bad = guard.look(place.step + 1, batch, output)
        if strategy.step(unless=bad):
            guard.refuse(place.step + 1, f"the gradients of step {place.step + 1} are not finite")
        place.step += 1
        meter.add(output, len(batch), unless=bad)
        step, epoch_ends = place.step, place.step % steps_per_epoch == 0
        saves = epoch_ends or (config.checkpoint_every_steps and step % config.checkpoint_every_steps == 0)
        reason, reached = None, {}

        if epoch_ends or saves or step % log_every_steps == 0:
            for trouble in filter(None, (guard.check(), *train_step.take_notes())):
                emit(Note(step=step, text=trouble))
            place.num_skipped = guard.num_skipped
            mine = around.stop(meter.run_s)
            emit(
                meter.step_event(
                    step,
                    learning_rates=strategy.learning_rates(),
                    method_values=task.log_values,  # pyright: ignore[reportArgumentType]
                    stops=mine is not None,
                    exposed_reduction_s=train_step.exposed_reduction_s,
                )
            )
            if bottleneck := meter.bottleneck():
                emit(Note(step=step, text=bottleneck))
            reason = next(filter(None, world.gather(mine))) if meter.someone_stops else None

        if epoch_ends:
            world.average_buffers(task)
            task.eval()
            accuracies = validate()
            task.train()
            value, error = accuracies[selected].measured(config.select)
            loss, epoch = accuracies[selected].loss_or_infinity, step // steps_per_epoch
            place.best = place.best.after(value, error, loss, step, epoch, strategy.weights)
            reached = {name: accuracy.value for name, accuracy in accuracies.items()}
            task.heed(reached)  # pyright: ignore[reportCallIssue]
            guard.keep_buffers()
            emit(meter.epoch_event(step, accuracies, is_best=place.best.step == step))

        if saves or reason:
            state = capture(task, strategy, place, identity, world)
            guard.check_state(step, state)
            store.save(state, step, reached, wait=reason is not None)
        if reason:
            emit(StageStopped(step=step, reason=reason))
            raise Stopped(reason, step)

    store.close()
    emit(StageEnded(step=place.step, peak_memory_bytes=_peak_memory_bytes(world)))
    assert place.best.weights is not None
    strategy.load_weights(place.best.weights)
    strategy.unwrap()
    task.eval()
    return place.best


def _tell_start(
    place: Place, stream: TrainStream, config: StageConfig, around: Surroundings, world: World
) -> None:
    devices = world.gather(_device_name(world))
    around.emit(
        StageStarted(
            step=place.step,
            num_epochs=config.epochs,
            num_steps_per_epoch=stream.num_steps_per_epoch,
            global_batch_size=config.global_batch_size,
            num_workers=world.size,
            device=devices[0],
        )
    )
    happened = around.happened() if world.is_main else []
    before = place.num_ranks_before
    if before is not None:
        changed = (
            f" on {world.size} worker{'s' if world.size > 1 else ''} after {before}"
            if before != world.size
            else ""
        )
        happened.append(f"went on from the checkpoint of step {place.step}{changed}")
    if len(set(devices)) > 1:
        happened.append(
            f"workers have different devices ({', '.join(sorted(set(devices)))}): every step waits for the slowest; "
            "choose one type by launch.accelerator_type"
        )
    for text in happened:
        around.emit(Note(step=place.step, text=text))


def _peak_memory_bytes(world: World) -> int | None:
    """The most that this stage held of its GPU at a time; None on a CPU."""
    return torch.cuda.max_memory_allocated(world.device) if world.device.type == "cuda" else None


def _device_name(world: World) -> str:
    return torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "CPU"
