"""Data parallelism: every rank has all weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fourds_dist.method.task import Task
from fourds_dist.training.checkpoint.learning_state import learning_state, load_learning_state
from fourds_dist.training.distributed.gradient_buckets import GradientBuckets
from fourds_dist.training.distributed.world import World
from fourds_dist.training.strategies.base import AllReduce, OptimizerState
from fourds_dist.training.strategies.optim import OptimConfig, TaskOptimizers


class ReplicatedWeights:
    """Replication of a task on every rank, with sums of the gradients over the ranks."""

    is_plain, can_capture, in_step = True, True, False

    def __init__(self, world: World, all_reduce: AllReduce = "float32") -> None:
        self._world = world
        self._all_reduce: AllReduce = all_reduce
        self.buckets: GradientBuckets | None = None

    def wrap(self, task: Task, *, sync_batch_norm: bool, autocast: bool) -> nn.Module:
        """Return the task itself, after a broadcast of the weights of rank 0.

        BatchNorm buffers are local during training; `World.average_buffers` makes them equal before evaluation and
        checkpoints.

        Raises:
            ValueError: synchronised BatchNorm on CPUs, which PyTorch does not support; ranks with different parameters.
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
        """Compute gradients; the last part sums them over the ranks during the backward pass."""
        if self.buckets is None:
            loss.backward()
        else:
            self.buckets.backward(loss, is_last=is_last)

    def captured_backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Run `backward`; the graph includes the all-reduces."""
        self.backward(loss, is_last=is_last)

    def after_replay(self) -> None:
        """Do nothing."""


class DDPStrategy(ReplicatedWeights):
    """Data parallelism, or a single process: every rank has all weights and takes the same step."""

    def __init__(
        self, world: World, optim: OptimConfig, num_steps: int, all_reduce: AllReduce = "float32"
    ) -> None:
        super().__init__(world, all_reduce)
        self._optim, self._num_steps = optim, num_steps

    def wrap(self, task: Task, *, sync_batch_norm: bool, autocast: bool) -> nn.Module:
        """Return the task itself, after a broadcast of the weights of rank 0, and create its optimisers."""
        self._task = super().wrap(task, sync_batch_norm=sync_batch_norm, autocast=autocast)
        self._optimizers = TaskOptimizers(task.parameter_groups(), self._optim, self._num_steps)
        return task

    def step(self, *, unless: Tensor | None = None) -> bool:
        """Step both optimisers and their schedules."""
        self._optimizers.step(unless=unless)
        return False

    def learning_rates(self) -> dict[str, float]:
        """Return the current learning rate by group."""
        return self._optimizers.learning_rates()

    def weights(self) -> dict[str, Tensor]:
        """Return the trainable parameters and all buffers, copied to the CPU."""
        return learning_state(self._task)

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Load the result of `weights`."""
        load_learning_state(self._task, weights)

    def optimizer_state(self) -> OptimizerState:
        """Return the state of the optimisers by parameter."""
        return self._optimizers.state_by_name(self._task)

    def load_optimizer_state(self, state: OptimizerState, step: int) -> None:
        """Load the result of `optimizer_state`."""
        self._optimizers.load_by_name(self._task, state, step)

    def unwrap(self) -> None:
        """Do nothing, as the task is not wrapped."""
