"""The state of a run for an exact resume, as an immutable copy.

    step         position in every stream, and in the schedules
    weights      trainable parameters, and buffers; by name, complete under every strategy
    optimizer    momentum and moments, by the parameter's name
    ranks        random state of every rank, and its BatchNorm statistics, which differ between ranks within an epoch
    average      moving average of the trainable parameters, with ema_decay only
    best         accuracy, loss and weights of the best epoch so far, also for each network that has its own
    identity     names of networks and data; a checkpoint with another identity is refused

With the same number of ranks, each rank restores its statistics and random state, and the run equals the uninterrupted
one, bit for bit on CPUs in float32. With another number, all ranks use the mean of the statistics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fourds_dist.method.task import Task
from fourds_dist.training.checkpoint.checkpoint_store import CheckpointStore
from fourds_dist.training.checkpoint.learning_state import FORMAT, CheckpointRefusedError
from fourds_dist.training.distributed.world import World
from fourds_dist.training.strategies.base import Strategy
from fourds_dist.training.weight_average import WeightAverage


@dataclass
class Best:
    """The best weights so far on the validation split.

    Candidates are the epochs within one standard error of the highest accuracy so far. Among these the lowest
    validation loss decides, since on small splits many epochs have equal accuracies but different losses. Label-free
    measures have no error and no loss: their highest value decides. An epoch whose measure is NaN is selected only
    while no other epoch has a number.
    """

    accuracy: float = -math.inf
    """Value of the stage's `select_by` on the validation split; any real number for label-free measures."""
    step: int = 0
    epoch: int = 0
    weights: dict[str, Tensor] | None = None
    loss: float | None = None
    """Loss on the validation split; None: not measured."""
    peak: float = -math.inf
    """Highest accuracy of any epoch so far."""
    least: float = -math.inf
    """`peak` minus its standard error."""
    apart: dict[str, Best] = field(default_factory=dict)
    """The best epochs of networks that have their own (`Task.selected_apart`), by the network's key. `weights` then
    excludes their weights, and `accuracy` is the mean over them."""

    def __post_init__(self) -> None:
        if self.peak < self.accuracy:  # an older checkpoint, without peak and least
            self.peak = self.least = self.accuracy

    def after(
        self,
        accuracy: float,
        error: float,
        loss: float | None,
        step: int,
        epoch: int,
        weights: Callable[[], dict[str, Tensor]],
    ) -> Best:
        """Return the best weights after one more epoch: these or those of the epoch.

        Args:
            accuracy: value of `select_by`; may be NaN.
            error: standard error of the epoch's accuracy.
            loss: validation loss; None: the accuracy alone decides.
            weights: returns the weights of the epoch; a collective call.
        """
        accuracy = -math.inf if math.isnan(accuracy) else accuracy
        if accuracy > self.peak:
            self.peak, self.least = accuracy, accuracy - error
        if self.weights is None:
            is_better = True
        elif self.accuracy < self.least:
            is_better = accuracy >= self.least
        elif loss is None or self.loss is None:
            is_better = accuracy > self.accuracy
        else:
            is_better = accuracy >= self.least and loss < self.loss
        return Best(accuracy, step, epoch, weights(), loss, self.peak, self.least) if is_better else self

    @property
    def all_weights(self) -> dict[str, Tensor]:
        """The weights of the best epoch; of networks with a best epoch of their own, those of that epoch."""
        assert self.weights is not None
        merged = dict(self.weights)
        for own in self.apart.values():
            merged |= own.weights or {}
        return merged

    def state(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {**vars(self), "apart": {name: own.state() for name, own in self.apart.items()}}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Best:
        """Return the result of `state`; of older checkpoints, which have no `apart`, too."""
        apart = {name: cls.of_state(own) for name, own in state.get("apart", {}).items()}
        return cls(**{**state, "apart": apart})


@dataclass
class TrainState:
    """The progress of a run."""

    step: int = 0
    num_skipped: int = 0
    """Steps skipped because of gradients that were not finite."""
    best: Best = field(default_factory=Best)
    num_ranks_before: int | None = None
    """Number of ranks that wrote the checkpoint; None without a checkpoint."""


def capture(
    task: Task,
    strategy: Strategy,
    average: WeightAverage,
    train_state: TrainState,
    identity: dict[str, str],
    world: World,
) -> dict[str, Any] | None:
    """Return a copy of the run's state on rank 0, which can be written during training; None on other ranks.

    This is a collective call.
    """
    weights, optimizer = strategy.weights(), strategy.optimizer_state()
    ranks = world.gather_to_main({"random": _random_state(world), "buffers": _statistics(task, world)})
    if ranks is None:
        return None
    averaged = average.state()
    return {
        "format": FORMAT,
        "identity": identity,
        "step": train_state.step,
        "num_skipped": train_state.num_skipped,
        "weights": weights,
        "optimizer": optimizer,
        "ranks": ranks,
        **({} if averaged is None else {"average": averaged}),
        "best": train_state.best.state(),
    }


def resume(
    task: Task,
    strategy: Strategy,
    average: WeightAverage,
    store: CheckpointStore,
    identity: dict[str, str],
    world: World,
) -> TrainState:
    """Restore the newest checkpoint, the same one on every rank; without a checkpoint return the initial state.

    Raises:
        CheckpointRefusedError: a checkpoint of another format, model or data set.
    """
    name = world.gather(store.newest() if world.is_main else None)[0]
    if name is None:
        return TrainState()
    state = store.read(name)
    for key, value in identity.items():
        if state["identity"].get(key) != value:
            raise CheckpointRefusedError(
                f"the run's checkpoint was made with another {key} ({state['identity'].get(key)!r}, now {value!r}); "
                "choose another run.name"
            )
    strategy.load_weights(state["weights"])
    strategy.load_optimizer_state(state["optimizer"], state["step"])
    average.load(state.get("average"))
    _take_rank_state(task, state["ranks"], world)
    return TrainState(state["step"], state["num_skipped"], Best.of_state(state["best"]), len(state["ranks"]))


def _take_rank_state(task: Task, ranks: list[dict[str, Any]], world: World) -> None:
    if world.rank < len(ranks):  # additional ranks use their seed
        _set_random_state(ranks[world.rank]["random"], world)
    if len(ranks) == 1:
        return  # the weights include the statistics
    if len(ranks) == world.size:
        flat = ranks[world.rank]["buffers"]
    else:
        flat = torch.stack([rank["buffers"] for rank in ranks]).mean(0)
    buffers = _floating_buffers(task)
    for buffer, values in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(values.view_as(buffer))


def _statistics(task: Task, world: World) -> Tensor | None:
    buffers = _floating_buffers(task)
    if world.size == 1 or not buffers:
        return None if world.size == 1 else torch.empty(0)
    return torch.cat([b.detach().reshape(-1).double() for b in buffers]).cpu()


def _floating_buffers(task: Task) -> list[Tensor]:
    return [b for b in task.buffers() if b.is_floating_point()]


def _random_state(world: World) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if world.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(world.device)
    return state


def _set_random_state(state: dict[str, Tensor], world: World) -> None:
    torch.set_rng_state(state["cpu"])
    if world.device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], world.device)
