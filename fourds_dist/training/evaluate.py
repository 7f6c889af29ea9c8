"""Evaluation: every sample exactly once, over any number of workers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch

from fourds_dist.data import Batch
from fourds_dist.method.distiller import Predictor
from fourds_dist.method.losses import UNLABELLED
from fourds_dist.training.step import TrainStep
from fourds_dist.training.world import World


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy of one network on one split."""

    num_correct: int
    num_samples: int
    """Labelled samples evaluated, over all workers."""
    images_per_s: float
    """Images through the network alone per second and worker, data left out."""

    @property
    def value(self) -> float:
        """Share of right answers in [0, 1]; 0 for an empty split."""
        return self.num_correct / max(1, self.num_samples)


@torch.no_grad()
def evaluate(
    predictors: Mapping[str, Predictor],
    batches: Iterable[Batch],
    step: TrainStep,
    world: World,
    *,
    in_step_px: int | None = None,
) -> dict[str, Accuracy]:
    """Accuracy of every predictor on this rank's share of a split, joined over the ranks.

    Ranks may hold different numbers of batches, none included. The networks are expected in evaluation mode.

    Args:
        in_step_px: side of the images, where weights divided among the ranks make every forward pass a matter of all:
            ranks that are through look at an empty image until the others are.
    """
    correct = torch.zeros(len(predictors), dtype=torch.int64, device=world.device)
    num_labelled = torch.zeros((), dtype=torch.int64, device=world.device)
    num_images, seconds = 0, [0.0] * len(predictors)
    for batch in batches if in_step_px is None else _as_many(batches, world, in_step_px):
        images, labels = step.images(batch), batch.labels.to(world.device)
        labelled = labels != UNLABELLED
        num_labelled += labelled.sum()
        num_images += len(labels)
        for i, predict in enumerate(predictors.values()):
            began = time.perf_counter()
            with torch.autocast(world.device.type, torch.bfloat16, enabled=step.autocast):
                right = predict(images).argmax(dim=1) == labels
            if world.device.type == "cuda":
                torch.cuda.synchronize()  # a GPU answers before it has worked; the clock has to wait
            seconds[i] += time.perf_counter() - began
            correct[i] += (right & labelled).sum()
    totals = world.sum(torch.cat([correct, num_labelled[None]])).tolist()
    return {
        name: Accuracy(totals[i], totals[-1], num_images / seconds[i] if seconds[i] else 0.0)
        for i, name in enumerate(predictors)
    }


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
