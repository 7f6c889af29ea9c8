"""What a run measures of itself: losses summed on the device, clocks, and the rows they become."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from fourds_dist.data import TrainStream
from fourds_dist.method.distiller import Output
from fourds_dist.training.evaluate import Accuracy
from fourds_dist.training.world import World

Row = dict[str, Any]


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
        self._losses: dict[str, Tensor] = {}
        self._num_summed = 0
        self._bad_samples: set[str] = set()
        self._last_row: Row = {"loss": 0.0, "images_per_s": 0.0}
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
        for name, value in {"loss": output.loss.detach(), **output.losses}.items():
            value = value * (batch_size / self._global_batch_size)
            if unless is not None:
                value = torch.where(unless, 0.0, value)
            self._losses[name] = self._losses[name] + value if self._num_summed else value
        self._num_summed += 1

    def row(self, step: int, *, stops: bool = False) -> Row:
        """Means over the steps since the last row, over all ranks; every rank calls it together.

        Args:
            stops: this rank was told to stop.
        """
        seconds = time.perf_counter() - self._clock
        new_bad = self._stream.bad_samples - self._bad_samples
        mine = torch.tensor([seconds, float(stops), float(len(new_bad))])
        sums = torch.stack(list(self._losses.values())).float() / self._num_summed
        sums = self._world.sum(torch.cat([sums, mine.to(sums.device)])).tolist()
        *means, all_seconds, num_stop, num_new_bad = sums
        if num_new_bad:  # on every rank alike; each meets the samples of others in other epochs
            self._bad_samples.update(*self._world.gather(new_bad))
        self.someone_stops = num_stop > 0
        self.run_s += all_seconds / self._world.size
        images_per_s = (step - self._from_step) * self._global_batch_size / seconds
        losses = dict(zip(self._losses, means, strict=True))
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
            "num_bad_samples": len(self._bad_samples),
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
