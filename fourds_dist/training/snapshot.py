"""A run at one instant: everything that it needs to go on as if it had never stopped, and nothing that moves later.

    step         the position in every stream, and in the schedules
    weights      parameters that learn, and buffers; by name, whole, whatever the strategy
    optimizer    momentum and moments, by the parameter's name
    ranks        random state of every rank, and its BatchNorm statistics, which differ between ranks within an epoch
    best         accuracy, loss and weights of the best epoch so far
    identity     names of networks and data: another one's checkpoint is refused

On as many ranks as before, each takes up its own statistics and random state, and the run is the undisturbed one, bit
for bit on CPUs in float32. On another number of ranks all take the mean of the statistics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fourds_dist.training.checkpoint import FORMAT, CheckpointRefusedError
from fourds_dist.training.store import CheckpointStore
from fourds_dist.training.strategy import Strategy
from fourds_dist.training.world import World


@dataclass
class Best:
    """The weights that did best on the validation split so far.

    An epoch counts as good as the best one where it is within one standard error of the highest accuracy so far. Among
    these the lowest validation loss decides: on small splits many epochs are as accurate, and the loss still tells them
    apart.
    """

    accuracy: float = -1.0
    """On the validation split, by the stage's `select`."""
    step: int = 0
    epoch: int = 0
    weights: dict[str, Tensor] | None = None
    loss: float | None = None
    """On the validation split; None: not measured."""
    peak: float = -1.0
    """The highest accuracy of any epoch so far."""
    least: float = -1.0
    """The peak less its standard error."""

    def __post_init__(self) -> None:
        if self.peak < self.accuracy:  # a checkpoint from before both were kept
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
        """The best after one more epoch: this one or that one.

        Args:
            error: standard error of the epoch's accuracy.
            weights: gives the epoch's; every rank calls it together.
        """
        if accuracy > self.peak:
            self.peak, self.least = accuracy, accuracy - error
        if self.accuracy < self.least:
            is_better = accuracy >= self.least
        elif loss is None or self.loss is None:
            is_better = accuracy > self.accuracy
        else:
            is_better = accuracy >= self.least and loss < self.loss
        return Best(accuracy, step, epoch, weights(), loss, self.peak, self.least) if is_better else self


@dataclass
class Place:
    """How far a run has come."""

    step: int = 0
    num_skipped: int = 0
    """Steps left out because their gradients were not finite."""
    best: Best = field(default_factory=Best)
    num_ranks_before: int | None = None
    """Ranks of the run that left the checkpoint; None at the start."""


def capture(
    task: nn.Module, strategy: Strategy, place: Place, identity: dict[str, str], world: World
) -> dict[str, Any] | None:
    """The run now, on rank 0; None on others. Copies, so that it can be written while training goes on.

    Every rank calls it together.
    """
    weights, optimizer = strategy.weights(), strategy.optimizer_state()
    ranks = world.gather_to_main({"random": _random_state(world), "buffers": _statistics(task, world)})
    if ranks is None:
        return None
    return {
        "format": FORMAT,
        "identity": identity,
        "step": place.step,
        "num_skipped": place.num_skipped,
        "weights": weights,
        "optimizer": optimizer,
        "ranks": ranks,
        "best": dict(vars(place.best)),
    }


def resume(
    task: nn.Module, strategy: Strategy, store: CheckpointStore, identity: dict[str, str], world: World
) -> Place:
    """Take up the newest checkpoint, the same one on every rank; where there is none, start.

    Raises:
        CheckpointRefusedError: a checkpoint of another format, model or data set.
    """
    name = world.gather(store.newest() if world.is_main else None)[0]
    if name is None:
        return Place()
    state = store.read(name)
    for key, value in identity.items():
        if state["identity"].get(key) != value:
            raise CheckpointRefusedError(
                f"the run's checkpoint was made with another {key} ({state['identity'].get(key)!r}, now {value!r}); "
                "choose another run.name"
            )
    strategy.load_weights(state["weights"])
    strategy.load_optimizer_state(state["optimizer"], state["step"])
    _take_rank_state(task, state["ranks"], world)
    return Place(state["step"], state["num_skipped"], Best(**state["best"]), len(state["ranks"]))


def _take_rank_state(task: nn.Module, ranks: list[dict[str, Any]], world: World) -> None:
    if world.rank < len(ranks):  # a new rank of a grown run goes on from its own seed
        _set_random_state(ranks[world.rank]["random"], world)
    if len(ranks) == 1:
        return  # the weights hold them
    if len(ranks) == world.size:
        flat = ranks[world.rank]["buffers"]
    else:
        flat = torch.stack([rank["buffers"] for rank in ranks]).mean(0)
    buffers = _floating_buffers(task)
    for buffer, values in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(values.view_as(buffer))


def _statistics(task: nn.Module, world: World) -> Tensor | None:
    buffers = _floating_buffers(task)
    if world.size == 1 or not buffers:
        return None if world.size == 1 else torch.empty(0)
    return torch.cat([b.detach().reshape(-1).double() for b in buffers]).cpu()


def _floating_buffers(task: nn.Module) -> list[Tensor]:
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
