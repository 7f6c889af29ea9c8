"""Exponential moving average (EMA) of the weights that a stage trains.

After every optimiser step, average = decay * average + (1 - decay) * weights, from the initial weights on. BatchNorm's
statistics are averages already, so evaluation uses those of the trained weights. Validation, the selection of the best
epoch and the files of the run use the average; training continues from the trained weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fourds_dist.method.task import Task

PARTITIONED_WEIGHTS = (
    "ema_decay averages whole weights, and launch.deepspeed=zero3 partitions them over the workers; use another stage "
    "of DeepSpeed or launch.strategy=ddp, or set ema_decay=null"
)


class WeightAverage:
    """The average of a task's trainable parameters; without a decay, all methods do nothing.

    Args:
        task: has whole parameters on every rank, at addresses that stay.
        decay: weight of the average in an update; None: no average.
    """

    def __init__(self, task: Task, decay: float | None) -> None:
        self._decay = decay
        named = task.named_parameters() if decay is not None else ()
        self._parameters = {name: p for name, p in named if p.requires_grad}
        self._average = [p.detach().clone() for p in self._parameters.values()]

    @torch.no_grad()
    def update(self, *, unless: Tensor | None = None) -> None:
        """Add the weights after an optimiser step, without a wait for the device.

        Args:
            unless: scalar on the device; if true, the step was skipped, and the average stays unchanged.
        """
        if self._decay is None:
            return
        weights: list[Tensor] = list(self._parameters.values())
        if unless is None or not unless.is_cuda:
            if unless is None or not bool(unless):
                get_ema_multi_avg_fn(self._decay)(self._average, weights, 0)
            return
        change = (1 - self._decay) * ~unless
        for average, weight in zip(self._average, weights, strict=True):
            average.lerp_(weight, change.to(average.dtype))

    @contextmanager
    def in_task(self) -> Iterator[None]:
        """Give the task the average in this context, at the addresses of its parameters."""
        before = [p.detach().clone() for p in self._parameters.values()]
        self._set(self._average)
        try:
            yield
        finally:
            self._set(before)

    def replaced(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the result of `Strategy.weights` with the average instead of the trained weights."""
        return {**weights, **(self.state() or {})}

    def state(self) -> dict[str, Tensor] | None:
        """Return the average by parameter, copied to the CPU; None without a decay."""
        if self._decay is None:
            return None
        return {
            name: average.to("cpu", copy=True)
            for name, average in zip(self._parameters, self._average, strict=True)
        }

    def load(self, state: Mapping[str, Tensor] | None) -> None:
        """Load the result of `state`; without one, the average starts at the current weights of the task."""
        for average, (name, parameter) in zip(self._average, self._parameters.items(), strict=True):
            average.copy_(parameter.detach() if state is None else state[name])

    def _set(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self._parameters.values(), values, strict=True):
                parameter.copy_(value)
