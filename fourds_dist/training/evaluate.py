"""Evaluation of every sample exactly once, over any number of workers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from fourds_dist.data import Batch
from fourds_dist.data.stream.batch import normalise
from fourds_dist.method.losses import UNLABELLED
from fourds_dist.method.output import Predictor
from fourds_dist.runs.accuracy import Accuracy
from fourds_dist.runs.class_counts import ClassCounts
from fourds_dist.training.criteria import StatisticsCollector
from fourds_dist.training.distributed.world import World

_BLANK = ["blank image, in no split"]
"""Keys of a batch that only takes part in the forward passes of other ranks."""


@runtime_checkable
class ImagesOfBatch(Protocol):
    """Conversion of a batch to a network's input; a `TrainStep`, or `PlainImages`."""

    @property
    def autocast(self) -> bool: ...

    def without_compilation(self) -> AbstractContextManager[Any]: ...

    def images(self, batch: Batch) -> Tensor: ...


@dataclass(frozen=True)
class PlainImages:
    """Conversion of batches to float32 images outside of a training step.

    Args:
        mean, std: mean and standard deviation for the normalisation, per channel, in [0, 1] units.
    """

    device: torch.device
    mean: tuple[float, ...]
    std: tuple[float, ...]
    autocast: bool = False

    def without_compilation(self) -> AbstractContextManager[Any]:
        """Return a context without effect."""
        return nullcontext()

    def images(self, batch: Batch) -> Tensor:
        """Return normalised float images on the device."""
        pixels, flip = batch.images.to(self.device), batch.flip.to(self.device)
        return normalise(pixels, flip, mean=self.mean, std=self.std)


@torch.no_grad()
def evaluate(
    predictors: Mapping[str, Predictor],
    batches: Iterable[Batch],
    step: ImagesOfBatch,
    world: World,
    *,
    num_classes: int,
    in_step_px: int | None = None,
    collector: StatisticsCollector | None = None,
) -> dict[str, Accuracy]:
    """Return the accuracy of every predictor on a split, from the batches of all ranks.

    Ranks may have different numbers of batches, or none. The networks have to be in evaluation mode.

    Args:
        num_classes: number of classes of the data.
        in_step_px: side of the images in pixels if every forward pass needs all ranks, as with partitioned weights.
            Ranks without further batches then process zero images. None: forward passes are independent.
        collector: receives the logits of every image, for label-free criteria; None: nothing is collected.
    """
    # Counts are integers, exact in float64: by predictor and class, correct and all predictions; then samples by class.
    counts = torch.zeros(2 * len(predictors) + 1, num_classes, dtype=torch.float64, device=world.device)
    losses = torch.zeros(len(predictors), dtype=torch.float64, device=world.device)
    num_images, seconds = 0, [0.0] * len(predictors)
    for batch in batches if in_step_px is None else _as_many(batches, world, in_step_px):
        images, labels = step.images(batch), batch.labels.to(world.device)
        outputs: dict[str, Tensor] = {}
        labelled = labels != UNLABELLED
        classes = labels.clamp(min=0)
        counts[-1].index_add_(0, classes, labelled.double())
        is_blank = batch.keys == _BLANK
        num_images += 0 if is_blank else len(labels)
        for i, (name, predict) in enumerate(predictors.items()):
            start = time.perf_counter()
            autocast = torch.autocast(world.device.type, torch.bfloat16, enabled=step.autocast)
            with autocast, step.without_compilation():
                logits = predict(images)
                top, predicted = logits.max(dim=1)
                correct = (predicted == labels) & torch.isfinite(top)  # NaN logits predict the first class
            if world.device.type == "cuda":
                torch.cuda.synchronize()  # the clock has to include the work on the GPU
            seconds[i] += time.perf_counter() - start
            counts[2 * i].index_add_(0, classes, (correct & labelled).double())
            counts[2 * i + 1].index_add_(0, predicted, labelled.double())
            losses[i] += F.cross_entropy(
                logits.float(), labels, ignore_index=UNLABELLED, reduction="sum"
            ).double()
            outputs[name] = logits
        if collector is not None and not is_blank:
            collector.add(outputs, batch.labels, batch.keys)
    num = torch.tensor([num_images], dtype=torch.float64, device=world.device)
    totals = world.sum(torch.cat([counts.flatten(), losses, num])).cpu()
    *of_predictors, true = totals[: counts.numel()].view(counts.shape).numpy()
    return {
        name: Accuracy.of(
            ClassCounts(of_predictors[2 * i], true, of_predictors[2 * i + 1]),
            images_per_s=num_images / s if s else 0.0,
            loss=loss,
            num_images=round(float(totals[-1])),
        )
        for i, (name, loss, s) in enumerate(
            zip(predictors, totals[counts.numel() : -1].tolist(), seconds, strict=True)
        )
    }


def _as_many(batches: Iterable[Batch], world: World, side_px: int) -> Iterator[Batch]:
    """Yield these batches, then blank ones until no rank has batches left."""
    own = iter(batches)
    no = torch.zeros(1, dtype=torch.bool)
    blank = Batch(
        torch.zeros(1, 3, side_px, side_px, dtype=torch.uint8), torch.tensor([UNLABELLED]), no, _BLANK
    )
    while True:
        batch = next(own, None)
        if not world.sum(torch.tensor(batch is not None, dtype=torch.int64, device=world.device)):
            return
        yield blank if batch is None else batch
