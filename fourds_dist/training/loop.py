"""The training loop, the same for all stages: fetch, forward, backward, step, log, evaluate, save.

The loop is independent of Ray, DeepSpeed, files and W&B: a `Strategy` takes the step, checkpoints go to a
`CheckpointStore`, events to `emit`, and a `StopSignal` reports stop requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field

from fourds_dist.config.effects import COURSE, WEIGHTS
from fourds_dist.config.section import ConfigSection
from fourds_dist.data import TrainStream
from fourds_dist.method.task import Task
from fourds_dist.runs.accuracy import Accuracy, GivenMeasure, Measure
from fourds_dist.runs.events import Note, Sink, StageEnded, StageStarted, StageStopped
from fourds_dist.training.checkpoint.checkpoint_store import CheckpointStore
from fourds_dist.training.device_prefetch import prefetch_to_device
from fourds_dist.training.distributed.world import World
from fourds_dist.training.garbage import rare_collections
from fourds_dist.training.meter import Meter
from fourds_dist.training.nonfinite_guard import NonfiniteGuard
from fourds_dist.training.selection import best_after
from fourds_dist.training.step import TrainStep
from fourds_dist.training.stop_signals import Stopped, StopSignal, never
from fourds_dist.training.strategies.base import Strategy
from fourds_dist.training.strategies.optim import OptimConfig
from fourds_dist.training.train_state import Best, TrainState, capture, resume
from fourds_dist.training.weight_average import PARTITIONED_WEIGHTS, WeightAverage

MOST_EPOCHS = 1_000_000
MOST_IMAGES = 1 << 20
"""Maximum of a global batch."""


class StageConfig(ConfigSection):
    """Length, checkpoints and learning rates of one stage."""

    epochs: Annotated[int, WEIGHTS] = Field(default=120, ge=1, le=MOST_EPOCHS)
    """Passes over the training split."""

    global_batch_size: Annotated[int, WEIGHTS] = Field(default=32, ge=1, le=MOST_IMAGES)
    """Images per optimiser step, summed over all workers."""

    checkpoint_every_steps: Annotated[int | None, COURSE] = Field(default=None, ge=1)
    """Steps between two checkpoints, besides the one at the end of every epoch; null: only at the end of every epoch.
    Checkpoints are written during training."""

    select_by: Annotated[GivenMeasure | None, WEIGHTS] = None
    """Criterion of this stage's best epoch, as run.select_by; null: run.select_by."""

    ema_decay: Annotated[float | None, WEIGHTS] = Field(default=None, ge=0, lt=1)
    """Decay of an exponential moving average of the trained weights, updated after every step, e.g. 0.999. Validation,
    the selection of the best epoch and the saved networks use the average. It covers about 1 / (1 - ema_decay) steps,
    which should be fewer than the steps of the stage. null: no average."""

    optim: OptimConfig = OptimConfig()
    """Learning rates and schedules."""


@dataclass(frozen=True)
class LoopHooks:
    """Interfaces of the loop to its environment.

    `write` writes a value as JSON to the run's folder; `restart_notes` returns, once, lines for the log on what
    happened to the run since its last start.
    """

    store: CheckpointStore
    emit: Sink
    stop: StopSignal = never
    write: Callable[[str, Any], None] = lambda name, value: None
    restart_notes: Callable[[], list[str]] = list


@rare_collections()
def fit(
    task: Task,
    train_step: TrainStep,
    strategy: Strategy,
    stream: TrainStream,
    validate: Callable[[], dict[str, Accuracy]],
    hooks: LoopHooks,
    *,
    config: StageConfig,
    monitored: str,
    identity: dict[str, str],
    world: World,
    log_every_steps: int,
    max_nonfinite_steps: int = 0,
    select_by: Measure = "accuracy",
    uses_labels: bool = True,
) -> Best:
    """Train `task` from the newest checkpoint to the end of its epochs; afterwards it is unwrapped and has the best
    weights.

    Args:
        strategy: has wrapped the task, for `train_step`.
        validate: evaluates the task's predictors on the validation split; a collective call.
        monitored: predictor whose validation results determine the best weights; without effect if the task has
            networks that are `selected_apart`.
        select_by: measure of the best weights; the loss decides between close epochs only with a measure of labels.
        uses_labels: whether the task receives accuracies of validation labels, or shares of agreement.
        identity: names of model and data; a checkpoint with another identity is refused.

    Raises:
        ValueError: a checkpoint of another model, data set or format; ema_decay with partitioned weights.
        FloatingPointError: loss or gradients are not finite in more than `max_nonfinite_steps` steps, or weights are
            not finite.
        OSError: a checkpoint cannot be written within the store's retry timeout.
        Stopped: the run stopped on request, with a checkpoint.
    """
    if config.ema_decay is not None and strategy.in_step:
        raise ValueError(PARTITIONED_WEIGHTS)
    steps_per_epoch, emit, store = stream.num_steps_per_epoch, hooks.emit, hooks.store
    num_steps = config.epochs * steps_per_epoch
    task.train()
    if world.device.type == "cuda":  # the peak is that of this stage
        torch.cuda.reset_peak_memory_stats(world.device)
    average = WeightAverage(task, config.ema_decay)
    train_state = resume(task, strategy, average, store, identity, world)
    _emit_start(train_state, stream, config, hooks, world)

    meter = Meter(train_state.step, num_steps, config.global_batch_size, stream, world)
    guard = NonfiniteGuard(
        task,
        world,
        num_skipped=train_state.num_skipped,
        budget=max_nonfinite_steps,
        window_steps=log_every_steps,
        write=hooks.write,
    )
    batches = prefetch_to_device(stream.batches(train_state.step), world.device)
    while train_state.step < num_steps:
        batch = next(batches)
        meter.step_starts()
        output = train_step(batch)
        bad = guard.look(train_state.step + 1, batch, output)
        if strategy.step(unless=bad):
            guard.refuse(train_state.step + 1, f"the gradients of step {train_state.step + 1} are not finite")
        average.update(unless=bad)
        train_state.step += 1
        meter.add(output, len(batch), unless=bad)
        step, epoch_ends = train_state.step, train_state.step % steps_per_epoch == 0
        saves = epoch_ends or (config.checkpoint_every_steps and step % config.checkpoint_every_steps == 0)
        reason, values = None, {}

        if epoch_ends or saves or step % log_every_steps == 0:
            for text in filter(None, (guard.check(), *train_step.take_notes())):
                emit(Note(step=step, text=text))
            train_state.num_skipped = guard.num_skipped
            request = hooks.stop(meter.run_s)
            emit(
                meter.step_event(
                    step,
                    learning_rates=strategy.learning_rates(),
                    method_values=task.log_values,
                    stops=request is not None,
                    exposed_reduction_s=train_step.exposed_reduction_s,
                    is_captured=train_step.is_captured,
                )
            )
            if bottleneck := meter.bottleneck():
                emit(Note(step=step, text=bottleneck))
            reason = next(filter(None, world.gather(request))) if meter.someone_stops else None

        if epoch_ends:
            world.average_buffers(task)
            task.eval()
            with average.in_task():
                accuracies = validate()
            task.train()
            train_state.best = best_after(
                train_state.best,
                accuracies,
                monitored=monitored,
                selected_apart=task.selected_apart(),
                select_by=select_by,
                step=step,
                epoch=step // steps_per_epoch,
                weights=lambda: average.replaced(strategy.weights()),
            )
            task.on_validation(_relative_accuracies(accuracies, uses_labels=uses_labels))
            guard.keep_buffers()
            ended = meter.epoch_event(
                step, accuracies, is_best=train_state.best.step == step, select_by=select_by
            )
            emit(ended)
            values = {name: v.compared for name, v in ended.validation.items() if v.compared is not None}

        if saves or reason:
            state = capture(task, strategy, average, train_state, identity, world)
            guard.check_state(step, state)
            store.save(state, step, values, wait=reason is not None)
        if reason:
            emit(StageStopped(step=step, reason=reason))
            raise Stopped(reason, step)

    store.close()
    emit(StageEnded(step=train_state.step, peak_memory_bytes=_peak_memory_bytes(world)))
    strategy.load_weights(train_state.best.all_weights)
    strategy.unwrap()
    task.eval()
    return train_state.best


def _relative_accuracies(accuracies: dict[str, Accuracy], *, uses_labels: bool) -> dict[str, float]:
    """Return the accuracies for the task, or the shares of images on which each network agrees with the teacher.

    Networks without a value are left out.
    """
    if uses_labels:
        found = {name: accuracy.value for name, accuracy in accuracies.items()}
    else:
        found = {name: (accuracy.criteria or {}).get("agreement") for name, accuracy in accuracies.items()}
    return {name: value for name, value in found.items() if value is not None}


def _emit_start(
    train_state: TrainState, stream: TrainStream, config: StageConfig, hooks: LoopHooks, world: World
) -> None:
    devices = world.gather(device_name(world))
    hooks.emit(
        StageStarted(
            step=train_state.step,
            num_epochs=config.epochs,
            num_steps_per_epoch=stream.num_steps_per_epoch,
            global_batch_size=config.global_batch_size,
            num_workers=world.size,
            device=devices[0],
        )
    )
    restart_notes = hooks.restart_notes() if world.is_main else []
    before = train_state.num_ranks_before
    if before is not None:
        changed = (
            f" on {world.size} worker{'s' if world.size > 1 else ''} after {before}"
            if before != world.size
            else ""
        )
        restart_notes.append(f"resumed from the checkpoint of step {train_state.step}{changed}")
    if len(set(devices)) > 1:
        restart_notes.append(
            f"workers have different devices ({', '.join(sorted(set(devices)))}): every step waits for the slowest; "
            "choose one type by launch.accelerator_type"
        )
    if stream.gpu is not None:
        restart_notes.append("training images are decoded by the GPU (data.decoders)")
    for text in restart_notes:
        hooks.emit(Note(step=train_state.step, text=text))


def _peak_memory_bytes(world: World) -> int | None:
    """Return the peak GPU memory of this stage; None on a CPU."""
    return torch.cuda.max_memory_allocated(world.device) if world.device.type == "cuda" else None


def device_name(world: World) -> str:
    """Return the name of this rank's GPU; "CPU" without one."""
    return torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "CPU"
