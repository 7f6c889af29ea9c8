"""The training loop, the same for both stages: fetch, forward, backward, step, log, evaluate, save.

It knows nothing of Ray, files or W&B: checkpoints go to a `CheckpointStore`, events to `emit`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from fourds_dist.config import Section
from fourds_dist.data import TrainStream
from fourds_dist.method.distiller import Output, Predictor
from fourds_dist.training.checkpoint import (
    FORMAT,
    CheckpointStore,
    learning_state,
    load_learning_state,
)
from fourds_dist.training.evaluate import Accuracy
from fourds_dist.training.optim import OptimConfig, Optimizers
from fourds_dist.training.step import TrainStep
from fourds_dist.training.world import World

Row = dict[str, Any]
Emit = Callable[[Row], None]


class StageConfig(Section):
    """Length and learning rates of one stage."""

    epochs: int = Field(default=120, ge=1)
    """Passes over the training split."""

    global_batch_size: int = Field(default=32, ge=1)
    """Images per optimiser step, over all workers together."""

    optim: OptimConfig = OptimConfig()
    """Learning rates and schedules."""


class Task(Protocol):
    """What the loop trains; an nn.Module with these besides."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]: ...
    def predictors(self) -> dict[str, Predictor]: ...
    def log_values(self) -> dict[str, Tensor]: ...


@dataclass
class Best:
    """The weights that did best on the validation split so far."""

    accuracy: float = -1.0
    step: int = 0
    epoch: int = 0
    weights: dict[str, Tensor] | None = None


def fit(
    task: nn.Module,
    train_step: TrainStep,
    stream: TrainStream,
    validate: Callable[[], dict[str, Accuracy]],
    *,
    config: StageConfig,
    selected: str,
    identity: dict[str, str],
    store: CheckpointStore,
    emit: Emit,
    world: World,
    log_every_steps: int,
) -> Best:
    """Train `task` to the end of its epochs, or on from the newest checkpoint, and leave it with its best weights.

    Args:
        validate: evaluates the task's predictors on the validation split; called by every rank together.
        selected: the predictor whose validation accuracy chooses the best weights.
        identity: names of model and data; a checkpoint with another identity is refused.

    Raises:
        ValueError: a checkpoint of another model or data set.
        FloatingPointError: the loss is no longer finite.
    """
    num_steps = config.epochs * stream.num_steps_per_epoch
    optimizers = Optimizers(task.parameter_groups(), config.optim, num_steps)  # pyright: ignore[reportCallIssue]
    step, best = _resume(store, task, optimizers, identity, world)
    emit(_start_row(step, stream, config, world))

    meter = Meter(step, num_steps, config.global_batch_size, stream, world)
    batches = stream.batches(step)
    task.train()
    while step < num_steps:
        batch = next(batches)
        output = train_step(batch)
        optimizers.step()
        step += 1
        meter.add(output)
        epoch_ends = step % stream.num_steps_per_epoch == 0

        if epoch_ends or step % log_every_steps == 0:
            rates = {f"lr/{name}": rate for name, rate in optimizers.learning_rates().items()}
            emit(meter.row(step) | rates | {k: v.item() for k, v in task.log_values().items()})  # pyright: ignore

        if epoch_ends:
            world.average_buffers(task)
            task.eval()
            accuracies = validate()
            task.train()
            if accuracies[selected].value > best.accuracy:
                best = Best(
                    accuracies[selected].value, step, step // stream.num_steps_per_epoch, learning_state(task)
                )
            store.save(_state(task, optimizers, step, best, identity, world), step, _values(accuracies))
            emit(meter.epoch_row(step, accuracies, is_best=best.step == step))

    emit({"event": "end", "step": step})
    assert best.weights is not None
    load_learning_state(task, best.weights)
    task.eval()
    return best


def _state(
    task: nn.Module, optimizers: Optimizers, step: int, best: Best, identity: dict[str, str], world: World
) -> dict[str, Any] | None:
    random = world.gather(_random_state(world))
    if not world.is_main:
        return None
    return {
        "format": FORMAT,
        "identity": identity,
        "step": step,
        "task": learning_state(task),
        "optimizers": optimizers.state_dict(),
        "random": random,
        "best": vars(best),
    }


def _resume(
    store: CheckpointStore, task: nn.Module, optimizers: Optimizers, identity: dict[str, str], world: World
) -> tuple[int, Best]:
    state = store.load()
    if state is None:
        return 0, Best()
    for key, value in identity.items():
        if state["identity"].get(key) != value:
            raise ValueError(
                f"the run's checkpoint was made with another {key} ({state['identity'].get(key)!r}, now {value!r}); "
                "choose another run.name"
            )
    load_learning_state(task, state["task"])
    optimizers.load_state_dict(state["optimizers"])
    if world.rank < len(state["random"]):  # a new rank of a grown run starts from its own seed
        _set_random_state(state["random"][world.rank], world)
    return state["step"], Best(**state["best"])


def _random_state(world: World) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if world.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(world.device)
    return state


def _set_random_state(state: dict[str, Tensor], world: World) -> None:
    torch.set_rng_state(state["cpu"])
    if world.device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], world.device)


def _start_row(step: int, stream: TrainStream, config: StageConfig, world: World) -> Row:
    where = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "CPU"
    workers = f"{world.size} worker{'s' if world.size > 1 else ''} ({where})"
    return {
        "event": "start",
        "step": step,
        "num_epochs": config.epochs,
        "num_steps_per_epoch": stream.num_steps_per_epoch,
        "num_workers": world.size,
        "text": f"{config.global_batch_size} images a step, {workers}",
    }


def _values(accuracies: dict[str, Accuracy]) -> dict[str, float]:
    return {f"val/{name}": accuracy.value for name, accuracy in accuracies.items()}


class Meter:
    """Sums losses on the device and turns them into rows; only `row` waits for the device."""

    def __init__(
        self, step: int, num_steps: int, global_batch_size: int, stream: TrainStream, world: World
    ) -> None:
        self._num_steps = num_steps
        self._global_batch_size = global_batch_size
        self._stream = stream
        self._world = world
        self._losses: dict[str, Tensor] = {}
        self._num_summed = 0
        self._last_row: Row = {"loss": math.nan, "images_per_s": 0.0}
        self._begin(step)

    def _begin(self, step: int) -> None:
        self._clock, self._waited_s, self._from_step = time.perf_counter(), self._stream.wait_s, step

    def add(self, output: Output) -> None:
        """Take in one step's losses."""
        for name, value in {"loss": output.loss.detach(), **output.losses}.items():
            # A copy: a replayed step writes its losses where the last one stood.
            self._losses[name] = self._losses[name] + value if self._num_summed else value.clone()
        self._num_summed += 1

    def row(self, step: int) -> Row:
        """Means over the steps and ranks since the last row; every rank calls it together."""
        means = self._world.sum(torch.stack(list(self._losses.values()))) / (
            self._num_summed * self._world.size
        )
        losses = dict(zip(self._losses, means.tolist(), strict=True))
        if not math.isfinite(losses["loss"]):
            bad = ", ".join(name for name, value in losses.items() if not math.isfinite(value))
            raise FloatingPointError(
                f"{bad} is not finite by step {step}; lower optim.lr or set optim.max_grad_norm"
            )
        seconds = time.perf_counter() - self._clock
        images_per_s = (step - self._from_step) * self._global_batch_size / seconds
        wait_share = (self._stream.wait_s - self._waited_s) / seconds
        self._num_summed = 0
        self._begin(step)
        self._last_row = {"loss": losses["loss"], "images_per_s": images_per_s}
        return {
            "event": "step",
            "step": step,
            "epoch": step / self._stream.num_steps_per_epoch,
            **losses,
            "images_per_s": images_per_s,
            "data_wait_share": wait_share,
            "num_bad_samples": self._stream.num_bad_samples,
        }

    def epoch_row(self, step: int, accuracies: dict[str, Accuracy], *, is_best: bool) -> Row:
        """The end of an epoch; the clock starts again, so that evaluation does not count as training."""
        rate = self._last_row["images_per_s"]
        left_s = (self._num_steps - step) * self._global_batch_size / rate if rate else 0.0
        row = {
            "event": "epoch",
            "step": step,
            "epoch": step // self._stream.num_steps_per_epoch,
            **self._last_row,
            **_values(accuracies),
            "num_evaluated": next(iter(accuracies.values())).num_samples,
            "is_best": is_best,
            "left_s": left_s,
        }
        self._begin(step)
        return row
