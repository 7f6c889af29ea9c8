"""Measurements of a run: losses summed on the device, clocks, and the events with both."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import fields

import torch
from torch import Tensor

from fourds_dist.data import TrainStream
from fourds_dist.method.output import Output
from fourds_dist.runs.accuracy import LABEL_FREE, Accuracy, Measure
from fourds_dist.runs.events import EpochEnded, StepLogged, TimeShares, Validation
from fourds_dist.training.device_idle import DeviceIdle
from fourds_dist.training.distributed.world import World

BOTTLENECK_ROWS = 4
"""Logging intervals after the first one, whose shares of time determine the bottleneck of a run."""

BOTTLENECKS = {
    "data_wait": (
        0.2,
        "bound by data: {share:.0%} of the time this worker waited for images; raise data.threads or the CPUs per "
        "worker, pack smaller images, or cache decoded ones (data.cache_decoded_gib)",
    ),
    "network_wait": (
        0.1,
        "bound by the network: {share:.0%} of a step waits for the other workers' gradients; "
        "launch.all_reduce=bfloat16 halves the bytes",
    ),
    "host_wait": (
        0.1,
        "bound by the host: {share:.0%} of the time the GPU waited for Python, which the decoders may hold up; leave "
        "cores for it (data.threads below the worker's CPUs), or give each worker more images",
    ),
    "host_busy": (
        0.9,
        "bound by Python: {share:.0%} of the time went to queueing work for the GPU, which waits meanwhile; leave "
        "step.cuda_graph at null, or give each worker more images",
    ),
}
"""Field of `TimeShares` -> threshold from which the field is the bottleneck, and the advice."""


class Meter:
    """Sum losses on the device and build events; only `step_event` waits for the device.

    `step_event` also makes `run_s` (seconds of training so far) and `someone_stops` equal on all ranks.
    """

    def __init__(
        self, step: int, num_steps: int, global_batch_size: int, stream: TrainStream, world: World
    ) -> None:
        self._num_steps = num_steps
        self._global_batch_size = global_batch_size
        self._stream = stream
        self._world = world
        self._names: tuple[str, ...] = ()
        self._sums = torch.zeros(0)
        self._num_summed = 0
        self._bad_samples: set[str] = set()
        self._last_loss, self._last_images_per_s = 0.0, 0.0
        self._shares: list[TimeShares] | None = []
        self._idle = DeviceIdle() if world.device.type == "cuda" else None
        self.run_s = 0.0
        self.someone_stops = False
        self._begin(step)

    def _begin(self, step: int) -> None:
        self._clock, self._waited_s, self._from_step = time.perf_counter(), self._stream.wait_s, step

    def step_starts(self) -> None:
        """Mark the start of a step, when its batch has arrived."""
        if self._idle:
            self._idle.step_starts()

    def add(self, output: Output, batch_size: int, *, unless: Tensor | None = None) -> None:
        """Add the losses of one step.

        Args:
            batch_size: number of images of this rank, the weight of its mean.
            unless: device scalar that is true if the step was skipped; its losses, not finite, count as 0.
        """
        if self._idle:
            self._idle.step_ends()
        losses = [output.loss.detach(), *output.losses.values()]
        values = torch.stack([value.float() for value in losses]) * (batch_size / self._global_batch_size)
        if unless is not None:
            values = torch.where(unless, 0.0, values)
        self._names = tuple(output.losses)
        self._sums = values if self._num_summed == 0 else self._sums + values
        self._num_summed += 1

    def step_event(
        self,
        step: int,
        *,
        learning_rates: Mapping[str, float] | None = None,
        method_values: Callable[[], Mapping[str, Tensor]] = dict,
        stops: bool = False,
        exposed_reduction_s: Callable[[], float | None] = lambda: None,
        is_captured: bool = False,
    ) -> StepLogged:
        """Return the means over all ranks and the steps since the last event; a collective call.

        Args:
            learning_rates: learning rates of the last step.
            method_values: returns the method's values to log.
            stops: whether this rank has a stop request.
            exposed_reduction_s: returns the seconds that the last step waited for its all-reduces; called after the
                device has finished the step.
            is_captured: whether the steps were replays of a CUDA graph.
        """
        device_wait_s = self._wait_for_device()
        seconds = time.perf_counter() - self._clock
        new_bad = self._stream.bad_samples - self._bad_samples
        of_rank = torch.tensor([seconds, float(stops), float(len(new_bad))])
        sums = self._sums / self._num_summed
        sums = self._world.sum(torch.cat([sums, of_rank.to(sums.device)])).tolist()
        loss, *means, all_seconds, num_stop, num_new_bad = sums
        if num_new_bad:  # equal on all ranks; a rank reads the samples of other ranks in other epochs
            self._bad_samples.update(*self._world.gather(new_bad))
        self.someone_stops = num_stop > 0
        self.run_s += all_seconds / self._world.size
        images_per_s = (step - self._from_step) * self._global_batch_size / seconds
        data_wait = (self._stream.wait_s - self._waited_s) / seconds
        exposed_s = exposed_reduction_s()
        idle_s = self._idle.take_s() if self._idle else None
        # Without a graph, the device may wait within a step; if Python takes almost all of the time, it does.
        busy = None if device_wait_s is None else max(0.0, 1 - data_wait - device_wait_s / seconds)
        shares = TimeShares(
            data_wait=data_wait,
            host_wait=None if idle_s is None or not is_captured else max(0.0, idle_s / seconds - data_wait),
            host_busy=None if is_captured else busy,
            network_wait=None if exposed_s is None else exposed_s * (step - self._from_step) / seconds,
        )
        if self._shares is not None:
            self._shares.append(shares)
        self._num_summed = 0
        self._begin(step)
        self._last_loss, self._last_images_per_s = loss, images_per_s
        return StepLogged(
            step=step,
            epoch=step / self._stream.num_steps_per_epoch,
            loss=loss,
            losses=dict(zip(self._names, means, strict=True)),
            images_per_s=images_per_s,
            shares=shares,
            num_bad_samples=len(self._bad_samples),
            learning_rates=dict(learning_rates or {}),
            method_values={name: value.item() for name, value in method_values().items()},
        )

    def bottleneck(self) -> str | None:
        """Return the run's bottleneck in one line, once, after the first `BOTTLENECK_ROWS` + 1 logging intervals."""
        if self._shares is None or len(self._shares) < 1 + BOTTLENECK_ROWS:
            return None
        shares, self._shares = self._shares[1:], None
        means = {
            name: sum(getattr(share, name) or 0.0 for share in shares) / len(shares)
            for name in (field.name for field in fields(TimeShares))
        }
        return bottleneck(TimeShares(**means))

    def _wait_for_device(self) -> float | None:
        """Wait for the queued steps and return the seconds of the wait; None on a CPU."""
        if self._world.device.type != "cuda":
            return None
        start = time.perf_counter()
        torch.cuda.synchronize(self._world.device)
        return time.perf_counter() - start

    def epoch_event(
        self, step: int, accuracies: dict[str, Accuracy], *, is_best: bool, select_by: Measure = "accuracy"
    ) -> EpochEnded:
        """Return the event of an epoch's end, and restart the clock so that evaluation does not count as training.

        Args:
            select_by: measure that selects the epoch.
        """
        rate = self._last_images_per_s
        left_s = (self._num_steps - step) * self._global_batch_size / rate if rate else 0.0
        event = EpochEnded(
            step=step,
            epoch=step // self._stream.num_steps_per_epoch,
            loss=self._last_loss,
            images_per_s=rate,
            validation={
                name: Validation(
                    accuracy.value,
                    accuracy.loss,
                    accuracy.mean_per_class,
                    accuracy.macro_f1,
                    accuracy.criteria or {},
                    accuracy.measured(select_by)[0] if select_by in LABEL_FREE else None,
                )
                for name, accuracy in accuracies.items()
            },
            num_evaluated=(first := next(iter(accuracies.values()))).num_samples or first.num_evaluated,
            is_best=is_best,
            left_s=left_s,
        )
        self._begin(step)
        if self._idle:
            self._idle.restart()
        return event


def bottleneck(shares: TimeShares) -> str | None:
    """Return the bottleneck of a run with these shares of time, in one line; None: the GPU.

    >>> print(bottleneck(TimeShares(data_wait=0.05, host_busy=0.3)))
    None
    """
    for name, (least, text) in BOTTLENECKS.items():
        if (share := getattr(shares, name) or 0.0) >= least:
            return text.format(share=share)
    return None
