"""Evaluation: every sample exactly once, over any number of workers."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from fourds_dist.data import Batch
from fourds_dist.data.batch import normalise
from fourds_dist.method.distiller import Predictor
from fourds_dist.method.losses import UNLABELLED
from fourds_dist.training.world import World

Measure = Literal["accuracy", "mean_per_class"]
"""What epochs are chosen by."""


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy of one network on one split.

    Tables from before the last four were measured lack them.
    """

    num_correct: int
    num_samples: int
    """Labelled samples evaluated, over all workers."""
    images_per_s: float
    """Images through the network alone per second and worker, data left out."""
    loss: float | None = None
    """Mean cross-entropy of the labelled samples; None where it is not finite."""
    mean_per_class: float | None = None
    """Accuracy averaged over the classes that have samples, each counted alike; in [0, 1]."""
    mean_per_class_error: float | None = None
    """Its standard error."""
    num_classes_seen: int | None = None
    """Classes that have samples."""

    @property
    def value(self) -> float:
        """Share of right answers in [0, 1]; 0 for an empty split."""
        return self.num_correct / max(1, self.num_samples)

    @property
    def loss_or_infinity(self) -> float:
        """The loss, by which epochs compare; infinite where it is not finite, so that any other is lower."""
        return math.inf if self.loss is None else self.loss

    def measured(self, by: Measure) -> tuple[float, float]:
        """A measure and its standard error; where classes were not told apart, accuracy's."""
        if by == "mean_per_class" and self.mean_per_class is not None:
            return self.mean_per_class, self.mean_per_class_error or 0.0
        return self.value, math.sqrt(self.value * (1 - self.value) / max(1, self.num_samples))


@runtime_checkable
class ImagesOfBatch(Protocol):
    """How a batch becomes a network's input; a `TrainStep`, or `Plainly`."""

    @property
    def autocast(self) -> bool: ...

    def images(self, batch: Batch) -> Tensor: ...


@dataclass(frozen=True)
class Plainly:
    """Batches as networks outside of a training step take them, in float32.

    Args:
        mean, std: of the normalised images, per channel, in [0, 1] units.
    """

    device: torch.device
    mean: tuple[float, ...]
    std: tuple[float, ...]
    autocast: bool = False

    def images(self, batch: Batch) -> Tensor:
        """Normalised float images on the device."""
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
) -> dict[str, Accuracy]:
    """Accuracy of every predictor on this rank's share of a split, joined over the ranks.

    Ranks may hold different numbers of batches, none included. The networks are expected in evaluation mode.

    Args:
        num_classes: of the data.
        in_step_px: side of the images, where weights divided among the ranks make every forward pass a matter of all:
            ranks that are through look at an empty image until the others are.
    """
    # Counts are whole numbers, which float64 holds exactly: right answers by predictor and class, and samples by class.
    counts = torch.zeros(len(predictors) + 1, num_classes, dtype=torch.float64, device=world.device)
    losses = torch.zeros(len(predictors), dtype=torch.float64, device=world.device)
    num_images, seconds = 0, [0.0] * len(predictors)
    for batch in batches if in_step_px is None else _as_many(batches, world, in_step_px):
        images, labels = step.images(batch), batch.labels.to(world.device)
        labelled = labels != UNLABELLED
        classes = labels.clamp(min=0)
        counts[-1].index_add_(0, classes, labelled.double())
        num_images += len(labels)
        for i, predict in enumerate(predictors.values()):
            began = time.perf_counter()
            with torch.autocast(world.device.type, torch.bfloat16, enabled=step.autocast):
                logits = predict(images)
                top, answers = logits.max(dim=1)
                right = (answers == labels) & torch.isfinite(
                    top
                )  # of logits that are no numbers the first is largest
            if world.device.type == "cuda":
                torch.cuda.synchronize()  # a GPU answers before it has worked; the clock has to wait
            seconds[i] += time.perf_counter() - began
            counts[i].index_add_(0, classes, (right & labelled).double())
            losses[i] += F.cross_entropy(
                logits.float(), labels, ignore_index=UNLABELLED, reduction="sum"
            ).double()
    totals = world.sum(torch.cat([counts.flatten(), losses])).cpu()
    *right_by_class, by_class = totals[: counts.numel()].view(counts.shape).unbind()
    return {
        name: _accuracy(right, by_class, loss, num_images / s if s else 0.0)
        for name, right, loss, s in zip(
            predictors, right_by_class, totals[counts.numel() :].tolist(), seconds, strict=True
        )
    }


def _accuracy(right_by_class: Tensor, by_class: Tensor, loss: float, images_per_s: float) -> Accuracy:
    num_correct, num_samples = round(right_by_class.sum().item()), round(by_class.sum().item())
    seen = by_class > 0
    num_seen = int(seen.sum())
    if not num_seen:
        return Accuracy(num_correct, num_samples, images_per_s)
    recall, counts = right_by_class[seen] / by_class[seen], by_class[seen]
    return Accuracy(
        num_correct,
        num_samples,
        images_per_s,
        loss=loss / num_samples if math.isfinite(loss) else None,
        mean_per_class=recall.mean().item(),
        mean_per_class_error=(recall * (1 - recall) / counts).sum().sqrt().item() / num_seen,
        num_classes_seen=num_seen,
    )


def _as_many(batches: Iterable[Batch], world: World, side_px: int) -> Iterator[Batch]:
    """These batches, and then blank ones until every rank is through with its own."""
    own = iter(batches)
    no = torch.zeros(1, dtype=torch.bool)
    blank = Batch(
        torch.zeros(1, 3, side_px, side_px, dtype=torch.uint8), torch.tensor([UNLABELLED]), no, no, [""]
    )
    while True:
        batch = next(own, None)
        if not world.sum(torch.tensor(batch is not None, dtype=torch.int64, device=world.device)):
            return
        yield blank if batch is None else batch
