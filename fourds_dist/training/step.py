"""One training step: batch to the device, forward under autocast, backward. The same for both stages."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fourds_dist.config import Section
from fourds_dist.data import Batch, normalise
from fourds_dist.method.distiller import Output
from fourds_dist.training.world import World


class StepConfig(Section):
    """How a step computes."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`bfloat16`: networks under autocast, Fourier transforms and losses in float32. `auto`: bfloat16 on GPUs, float32 on CPUs."""

    channels_last: bool = True
    """Keep images and convolution weights in channels-last memory format on GPUs."""

    batch_norm: Literal["averaged", "synchronised"] = "averaged"
    """Several workers: `averaged` normalises by each worker's batch and averages the running statistics before evaluation and saving; `synchronised` normalises by the global batch (GPUs only)."""

    accumulation: int = Field(default=1, ge=1)
    """Cut each worker's share of the batch into this many parts, one after another, to save memory."""

    eval_batch_size_per_rank: int = Field(default=256, ge=1)
    """Images per forward pass of evaluation, in each worker."""

    log_every_steps: int = Field(default=10, ge=1)
    """Steps between two lines of metrics; only these steps wait for the device."""


class TrainStep:
    """Calls the wrapped task on a batch and leaves gradients behind.

    Args:
        task: the module that turns (images, labels) into an `Output`, already on the world's device.
        mean, std: of the normalised images, per channel, in [0, 1] units.
    """

    def __init__(
        self,
        task: nn.Module,
        world: World,
        config: StepConfig,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        on_gpu = world.device.type == "cuda"
        self.device = world.device
        self.channels_last = config.channels_last and on_gpu
        self.autocast = config.precision == "bfloat16" or (config.precision == "auto" and on_gpu)
        self._mean, self._std = mean, std
        self._accumulation = config.accumulation
        if self.channels_last:
            task.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.model = world.wrap(task, sync_batch_norm=config.batch_norm == "synchronised")

    def __call__(self, batch: Batch) -> Output:
        """Forward and backward of one batch; the output is the last part's where the batch is cut in parts."""
        images, labels = self.images(batch), batch.labels.to(self.device, non_blocking=True)
        parts = list(zip(images.chunk(self._accumulation), labels.chunk(self._accumulation), strict=True))
        for i, (part_images, part_labels) in enumerate(parts, 1):
            with self._gradients_stay_local() if i < len(parts) else nullcontext():
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                    output: Output = self.model(part_images, part_labels)
                (output.loss * (len(part_labels) / len(labels))).backward()
        return output

    def _gradients_stay_local(self) -> AbstractContextManager:
        return self.model.no_sync() if isinstance(self.model, DistributedDataParallel) else nullcontext()

    def images(self, batch: Batch) -> Tensor:
        """Normalised float images on the device, flipped where the batch says so."""
        return normalise(
            batch.images.to(self.device, non_blocking=True),
            batch.flip.to(self.device, non_blocking=True),
            mean=self._mean,
            std=self._std,
            channels_last=self.channels_last,
        )
