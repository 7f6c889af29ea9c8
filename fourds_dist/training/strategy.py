"""How a task is spread over the ranks: who holds which weights, and who takes the step.

    single, ddp   every rank holds everything; gradients are averaged while the backward pass still runs
    deepspeed     ZeRO 0-3 in `zero`: optimiser state, gradients and weights divided among the ranks

The step calls `model` and `backward`, the loop `step`; a checkpoint takes `optimizer_state` and `weights`, which are by
the names of the task's parameters, whole, and the same whatever the strategy and the number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from fourds_dist.training.checkpoint import learning_state, load_learning_state
from fourds_dist.training.optim import OptimConfig, Optimizers
from fourds_dist.training.world import World

AllReduce = Literal["float32", "bfloat16"]
"""What gradients travel in where DDP averages them."""

OptimizerState = dict[str, dict[str, Tensor]]
"""Parameter -> kind ("momentum_buffer", "exp_avg", ...) -> tensor on the CPU."""


class Strategy(Protocol):
    """One way to spread a task."""

    is_plain: bool
    """Whether weights and gradients lie whole on every rank: a step can then be left out, and recorded."""

    @property
    def in_step(self) -> bool:
        """Whether a forward pass needs every rank, also in evaluation: then all run as many."""
        ...

    def wrap(self, task: nn.Module, *, sync_batch_norm: bool, autocast: bool) -> nn.Module:
        """Take up the task, on its device; gives what is to be called in its place."""
        ...

    def settle(self, a_pass: Callable[[], object]) -> None:
        """Before anything is trained or taken up: have `a_pass`, forward and backward, settle what only passes settle,
        and leave no other trace."""
        ...

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Gradients of one part of a batch; those of the last part are made the same on all ranks."""
        ...

    def gradients_stay_local(self) -> AbstractContextManager:
        """Around forward and backward of all parts but the last."""
        ...

    def step(self, *, unless: Tensor | None = None) -> bool:
        """Clip, update, advance the schedules; weights and state stay where `unless`, on the device, is true.

        Gives whether the strategy left the step out of its own accord, its gradients not being finite, and changed
        nothing; the same on all ranks.
        """
        ...

    def learning_rates(self) -> dict[str, float]:
        """Current learning rate by group."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """Learning parameters and all buffers, copied to the CPU; every rank calls it together."""
        ...

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Put back what `weights` gave, of any strategy."""
        ...

    def optimizer_state(self) -> OptimizerState:
        """The optimisers' state, copied to the CPU; every rank calls it together."""
        ...

    def load_optimizer_state(self, state: OptimizerState, step: int) -> None:
        """Put back what `optimizer_state` gave, of any strategy, and set the schedules to a step."""
        ...

    def unwrap(self) -> None:
        """Leave the task a plain module that holds all its weights; nothing is trained afterwards."""
        ...


class Replicated:
    """Every rank holds everything (DDP; with one rank, the task as it is)."""

    is_plain, in_step = True, False

    def __init__(
        self, world: World, optim: OptimConfig, num_steps: int, all_reduce: AllReduce = "float32"
    ) -> None:
        self._world, self._optim, self._num_steps = world, optim, num_steps
        self._all_reduce: AllReduce = all_reduce

    def wrap(self, task: nn.Module, *, sync_batch_norm: bool, autocast: bool) -> nn.Module:
        """The task under DDP where there is more than one rank."""
        del autocast
        self._task = task
        self._model = self._world.wrap(task, sync_batch_norm=sync_batch_norm)
        if isinstance(self._model, DistributedDataParallel) and self._all_reduce == "bfloat16":
            self._model.register_comm_hook(None, bf16_compress_hook)
        self._optimizers = Optimizers(task.parameter_groups(), self._optim, self._num_steps)  # pyright: ignore
        return self._model

    def settle(self, a_pass: Callable[[], object]) -> None:
        """DDP lays its buckets out anew after its first pass, in the order in which gradients came.

        Where an element lies in its bucket decides in which order three ranks and more are summed. With the pass ahead
        a run that starts and a run that goes on sum alike.
        """
        if self._world.size < 3:
            return
        buffers, random = [b.clone() for b in self._task.buffers()], torch.get_rng_state()
        a_pass()
        self._task.zero_grad(set_to_none=True)
        for buffer, before in zip(self._task.buffers(), buffers, strict=True):
            buffer.copy_(before)
        torch.set_rng_state(random)

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """DDP averages as gradients come, unless `gradients_stay_local`."""
        del is_last
        loss.backward()

    def gradients_stay_local(self) -> AbstractContextManager:
        """DDP's no_sync."""
        return self._model.no_sync() if isinstance(self._model, DistributedDataParallel) else nullcontext()

    def step(self, *, unless: Tensor | None = None) -> bool:
        """Both optimisers and their schedules."""
        self._optimizers.step(unless=unless)
        return False

    def learning_rates(self) -> dict[str, float]:
        """Current learning rate by group."""
        return self._optimizers.learning_rates()

    def weights(self) -> dict[str, Tensor]:
        """Learning parameters and all buffers, copied to the CPU."""
        return learning_state(self._task)

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Put back what `weights` gave."""
        load_learning_state(self._task, weights)

    def optimizer_state(self) -> OptimizerState:
        """The optimisers' state by parameter."""
        return self._optimizers.state_by_name(self._task)

    def load_optimizer_state(self, state: OptimizerState, step: int) -> None:
        """Put back what `optimizer_state` gave."""
        self._optimizers.load_by_name(self._task, state, step)

    def unwrap(self) -> None:
        """It already is plain."""


def make_strategy(
    kind: Literal["ddp", "deepspeed"],
    world: World,
    optim: OptimConfig,
    num_steps: int,
    *,
    deepspeed: str,
    all_reduce: AllReduce = "float32",
) -> Strategy:
    """A strategy by its name; DeepSpeed is imported only where it is asked for.

    Args:
        num_steps: optimiser steps of the whole run, on which the schedules depend.
        deepspeed: DeepSpeed's configuration, as launch.deepspeed.
        all_reduce: as launch.all_reduce, for DDP; DeepSpeed's configuration has keys of its own.

    Raises:
        ValueError: a DeepSpeed configuration that cannot be used.
    """
    if kind == "ddp":
        return Replicated(world, optim, num_steps, all_reduce)
    from fourds_dist.training.zero import Divided

    return Divided(world, optim, num_steps, deepspeed)
