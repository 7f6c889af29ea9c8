"""What a run measures of itself: losses summed on the device, clocks, and the rows they become."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fourds_dist.data import TrainStream
from fourds_dist.method.distiller import Output
from fourds_dist.training.evaluate import Accuracy
from fourds_dist.training.world import World

Row = dict[str, Any]

BOTTLENECK_ROWS = 4
"""Logging intervals after the first, whose shares decide what a run is bound by."""

BOTTLENECKS = {
    "data_wait_share": (
        0.2,
        "bound by data: {share:.0%} of the time this worker waited for images; raise data.threads or CPUs for each "
        "worker, pack smaller images, or keep decoded ones (data.keep_decoded_mib)",
    ),
    "network_wait_share": (
        0.1,
        "bound by the network: {share:.0%} of a step waits for the other workers' gradients; "
        "launch.all_reduce=bfloat16 halves what travels",
    ),
    "host_busy_share": (
        0.9,
        "bound by Python: {share:.0%} of the time went to queueing work for the GPU, which waits meanwhile; leave "
        "step.cuda_graph at null, or give each worker more images",
    ),
}
"""Share of a worker's time -> from how much on it bounds the run, and what to do."""


class Meter:
    """Sums losses on the device and turns them into rows; only `row` waits for the device.

    `row` is also where the ranks agree: `run_s`, seconds of training so far, and `someone_stops` are the same on all.
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
        self._last_row: Row = {"loss": 0.0, "images_per_s": 0.0}
        self._shares: list[dict[str, float]] | None = []
        self.run_s = 0.0
        self.someone_stops = False
        self._begin(step)

    def _begin(self, step: int) -> None:
        self._clock, self._waited_s, self._from_step = time.perf_counter(), self._stream.wait_s, step

    def add(self, output: Output, batch_size: int, *, unless: Tensor | None = None) -> None:
        """Take in one step's losses.

        Args:
            batch_size: images of this rank's share, by which its mean counts.
            unless: where true, on the device, the step was left out and its losses are no numbers.
        """
        losses = {"loss": output.loss.detach(), **output.losses}
        values = torch.stack([value.float() for value in losses.values()]) * (
            batch_size / self._global_batch_size
        )
        if unless is not None:
            values = torch.where(unless, 0.0, values)
        self._names = tuple(losses)
        self._sums = values if self._num_summed == 0 else self._sums + values
        self._num_summed += 1

    def row(
        self,
        step: int,
        *,
        stops: bool = False,
        exposed_reduction_s: Callable[[], float | None] = lambda: None,
    ) -> Row:
        """Means over the steps since the last row, over all ranks; every rank calls it together.

        Args:
            stops: this rank was told to stop.
            exposed_reduction_s: gives for how long the last step waited for its all-reduces; asked once the device is
                done with it.
        """
        device_wait_s = self._wait_for_device()
        seconds = time.perf_counter() - self._clock
        new_bad = self._stream.bad_samples - self._bad_samples
        mine = torch.tensor([seconds, float(stops), float(len(new_bad))])
        sums = self._sums / self._num_summed
        sums = self._world.sum(torch.cat([sums, mine.to(sums.device)])).tolist()
        *means, all_seconds, num_stop, num_new_bad = sums
        if num_new_bad:  # on every rank alike; each meets the samples of others in other epochs
            self._bad_samples.update(*self._world.gather(new_bad))
        self.someone_stops = num_stop > 0
        self.run_s += all_seconds / self._world.size
        images_per_s = (step - self._from_step) * self._global_batch_size / seconds
        losses = dict(zip(self._names, means, strict=True))
        shares = {"data_wait_share": (self._stream.wait_s - self._waited_s) / seconds}
        if device_wait_s is not None:
            # What is left of the time is Python's: where it is nearly all, the device waits for the host.
            shares["host_busy_share"] = max(0.0, 1 - shares["data_wait_share"] - device_wait_s / seconds)
        if (exposed_s := exposed_reduction_s()) is not None:
            shares["network_wait_share"] = exposed_s * (step - self._from_step) / seconds
        if self._shares is not None:
            self._shares.append(shares)
        self._num_summed = 0
        self._begin(step)
        self._last_row = {"loss": losses["loss"], "images_per_s": images_per_s}
        return {
            "event": "step",
            "step": step,
            "epoch": step / self._stream.num_steps_per_epoch,
            **losses,
            "images_per_s": images_per_s,
            **shares,
            "num_bad_samples": len(self._bad_samples),
        }

    def bottleneck(self) -> str | None:
        """What the first logging intervals after the very first say the run is bound by, in one line, once."""
        if self._shares is None or len(self._shares) < 1 + BOTTLENECK_ROWS:
            return None
        rows, self._shares = self._shares[1:], None
        return bottleneck({name: sum(row.get(name, 0.0) for row in rows) / len(rows) for name in rows[0]})

    def _wait_for_device(self) -> float | None:
        """Seconds that the host waited for the steps that it had queued; None on a CPU."""
        if self._world.device.type != "cuda":
            return None
        began = time.perf_counter()
        torch.cuda.synchronize(self._world.device)
        return time.perf_counter() - began

    def epoch_row(self, step: int, accuracies: dict[str, Accuracy], *, is_best: bool) -> Row:
        """The end of an epoch; the clock starts again, so that evaluation does not count as training."""
        rate = self._last_row["images_per_s"]
        left_s = (self._num_steps - step) * self._global_batch_size / rate if rate else 0.0
        row = {
            "event": "epoch",
            "step": step,
            "epoch": step // self._stream.num_steps_per_epoch,
            **self._last_row,
            **{f"val/{name}": accuracy.value for name, accuracy in accuracies.items()},
            **{f"val_loss/{name}": a.loss for name, a in accuracies.items() if a.loss is not None},
            **{
                f"val_mean_per_class/{name}": a.mean_per_class
                for name, a in accuracies.items()
                if a.mean_per_class is not None
            },
            "num_evaluated": next(iter(accuracies.values())).num_samples,
            "is_best": is_best,
            "left_s": left_s,
        }
        self._begin(step)
        return row


def bottleneck(shares: dict[str, float]) -> str | None:
    """What a run of such shares is bound by, in one line; None: by its GPU.

    >>> print(bottleneck({"data_wait_share": 0.05, "host_busy_share": 0.3}))
    None
    """
    for name, (least, text) in BOTTLENECKS.items():
        if shares.get(name, 0.0) >= least:
            return text.format(share=shares[name])
    return None
