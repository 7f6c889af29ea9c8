"""How a task is spread over the ranks: who holds which weights, and who takes the step.

    single, ddp   every rank holds everything; gradients are summed while the backward pass still runs
    deepspeed     ZeRO 0-3 in `zero`: optimiser state, gradients and weights divided among the ranks

The step calls `model` and `backward`, the loop `step`; a checkpoint takes `optimizer_state` and `weights`, which are by
the names of the task's parameters, whole, and the same whatever the strategy and the number of ranks.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from fourds_dist.training.checkpoint import learning_state, load_learning_state
from fourds_dist.training.gradient_buckets import GradientBuckets
from fourds_dist.training.optim import OptimConfig, Optimizers
from fourds_dist.training.world import World

AllReduce = Literal["float32", "bfloat16"]
"""What gradients travel in where every rank holds everything."""

OptimizerState = dict[str, dict[str, Tensor]]
"""Parameter -> kind ("momentum_buffer", "exp_avg", ...) -> tensor on the CPU."""


class Strategy(Protocol):
    """One way to spread a task."""

    is_plain: bool
    """Whether weights and gradients lie whole on every rank: a step can then be left out. Gradients of such a strategy
    are sums over the ranks, of others means."""

    can_capture: bool
    """Whether forward and backward of the task may be captured as a CUDA graph."""

    buckets: GradientBuckets | None
    """What sums gradients over the ranks, where the strategy leaves that to them."""

    @property
    def in_step(self) -> bool:
        """Whether a forward pass needs every rank, also in evaluation: then all run as many."""
        ...

    def wrap(self, task: nn.Module, *, sync_batch_norm: bool, autocast: bool) -> nn.Module:
        """Take up the task, on its device; gives what is to be called in its place."""
        ...

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Gradients of one part of a batch; those of the last part are made the same on all ranks."""
        ...

    def captured_backward(self, loss: Tensor, *, is_last: bool) -> None:
        """`backward` inside a CUDA graph, of the task itself; `after_replay` does what a graph cannot hold."""
        ...

    def after_replay(self) -> None:
        """After a replay has left gradients in the task's parameters."""
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


class Gradients:
    """The gradients of a task that every rank holds whole: summed over the ranks where there are several."""

    is_plain, can_capture, in_step = True, True, False

    def __init__(self, world: World, all_reduce: AllReduce = "float32") -> None:
        self._world = world
        self._all_reduce: AllReduce = all_reduce
        self.buckets: GradientBuckets | None = None

    def wrap(self, task: nn.Module, *, sync_batch_norm: bool, autocast: bool) -> nn.Module:
        """The task itself, with rank 0's weights on all ranks.

        BatchNorm buffers stay local during training; `World.average_buffers` makes them equal before evaluation and
        saving.

        Raises:
            ValueError: synchronised BatchNorm asked for on CPUs, where PyTorch has none; ranks of other parameters.
        """
        del autocast
        if sync_batch_norm and self._world.device.type == "cpu":
            raise ValueError("step.batch_norm=synchronised needs GPUs; use step.batch_norm=averaged on CPUs")
        if self._world.size > 1:
            if sync_batch_norm:
                nn.SyncBatchNorm.convert_sync_batchnorm(task)
            dtype = torch.bfloat16 if self._all_reduce == "bfloat16" else None
            self.buckets = GradientBuckets(task, self._world, dtype=dtype)
        return task

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Sums over the ranks as gradients come, in the last part."""
        if self.buckets is None:
            loss.backward()
        else:
            self.buckets.backward(loss, is_last=is_last)

    def captured_backward(self, loss: Tensor, *, is_last: bool) -> None:
        """The graph holds the all-reduces too."""
        self.backward(loss, is_last=is_last)

    def after_replay(self) -> None:
        """Nothing is left to do."""


class Replicated(Gradients):
    """Every rank holds everything and takes the same step: data parallelism, or one process."""

    def __init__(
        self, world: World, optim: OptimConfig, num_steps: int, all_reduce: AllReduce = "float32"
    ) -> None:
        super().__init__(world, all_reduce)
        self._optim, self._num_steps = optim, num_steps

    def wrap(self, task: nn.Module, *, sync_batch_norm: bool, autocast: bool) -> nn.Module:
        """The task itself, with rank 0's weights on all ranks, and its optimisers."""
        self._task = super().wrap(task, sync_batch_norm=sync_batch_norm, autocast=autocast)
        self._optimizers = Optimizers(task.parameter_groups(), self._optim, self._num_steps)  # pyright: ignore
        return task

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
