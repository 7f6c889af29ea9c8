"""The interface of strategies, which distribute a task over the ranks and run the optimisers.

    single, ddp   every rank has all weights; gradients are summed in parallel to the backward pass
    deepspeed     ZeRO 0-3: optimiser state, gradients and weights are partitioned over the ranks

The step calls the wrapped model and `backward`, the loop `step`. A checkpoint takes `optimizer_state` and `weights`,
which are complete, by the names of the task's parameters, and independent of the strategy and the number of ranks.
"""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor, nn

from fourds_dist.method.task import Task
from fourds_dist.training.distributed.gradient_buckets import GradientBuckets

AllReduce = Literal["float32", "bfloat16"]
"""Type of the gradients in all-reduces of data parallelism."""


OptimizerState = dict[str, dict[str, Tensor]]
"""Parameter -> kind ("momentum_buffer", "exp_avg", ...) -> tensor on the CPU."""


class Strategy(Protocol):
    """One distribution of a task over the ranks."""

    is_plain: bool
    """Whether every rank has complete weights and gradients, so that a step can be skipped. Gradients of such a
    strategy are sums over the ranks, those of other strategies means."""

    can_capture: bool
    """Whether forward and backward of the task can be captured as a CUDA graph."""

    buckets: GradientBuckets | None
    """Sums of gradients over the ranks, if the strategy uses them."""

    @property
    def in_step(self) -> bool:
        """Whether a forward pass, also in evaluation, needs all ranks, which then have to run equally many."""
        ...

    def wrap(self, task: Task, *, sync_batch_norm: bool, autocast: bool) -> nn.Module:
        """Take the task, on its device, and return the module to call instead of the task."""
        ...

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Compute the gradients of one part of a batch; the last part makes them equal on all ranks."""
        ...

    def captured_backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Run `backward` of the task inside a CUDA graph; `after_replay` does the rest outside the graph."""
        ...

    def after_replay(self) -> None:
        """Finish a replay, which has written gradients to the task's parameters."""
        ...

    def step(self, *, unless: Tensor | None = None) -> bool:
        """Clip, update and advance the schedules; skip the update if `unless`, on the device, is true.

        Returns:
            Whether the strategy skipped the step because of gradients that are not finite; equal on all ranks.
        """
        ...

    def learning_rates(self) -> dict[str, float]:
        """Return the current learning rate by group."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """Return the trainable parameters and all buffers, copied to the CPU. A collective call."""
        ...

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Load the result of `weights` of any strategy."""
        ...

    def optimizer_state(self) -> OptimizerState:
        """Return the state of the optimisers, copied to the CPU. A collective call."""
        ...

    def load_optimizer_state(self, state: OptimizerState, step: int) -> None:
        """Load the result of `optimizer_state` of any strategy, and set the schedules to a step."""
        ...

    def unwrap(self) -> None:
        """Turn the task into a plain module with all weights; no training follows."""
        ...
