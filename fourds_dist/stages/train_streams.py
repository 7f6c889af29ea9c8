"""The training splits, batches and class weights of a stage."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from fourds_dist.config.stage_names import StageName
from fourds_dist.data import Split, TrainStream, open_split
from fourds_dist.data.decode.decoded_cache import ByteBudget
from fourds_dist.data.stream.class_weights import balanced_weights
from fourds_dist.stages.settings import Settings, stage_config
from fourds_dist.stages.target_labels import source_fraction


def train_splits(name: StageName, settings: Settings) -> dict[str, Split]:
    """Return the training splits of a stage's batches by domain, the stage's domain first."""
    seed = settings.run.seed
    if name == "source":
        return {"source": open_split(settings.source, "train", seed=seed)}
    splits = {"target": open_split(settings.target, "train", seed=seed)}
    if source_fraction(settings) > 0:
        splits["source"] = open_split(settings.source, "train", seed=seed)
    return splits


def train_stream(
    name: StageName,
    settings: Settings,
    splits: Mapping[str, Split],
    rank: int,
    world_size: int,
    budget: ByteBudget | None = None,
    device: torch.device | None = None,
) -> TrainStream:
    """Return a rank's part of a stage's batches."""
    data = settings.data
    if len(splits) > 1:
        data = data.model_copy(update={"source_fraction": source_fraction(settings)})
    return TrainStream(
        splits,
        data,
        global_batch_size=stage_config(name, settings).global_batch_size,
        rank=rank,
        world_size=world_size,
        seed=settings.run.seed,
        budget=budget,
        device=device,
    )


def class_weights_of(splits: Mapping[str, Split], source_fraction: float) -> torch.Tensor:
    """Return the balanced weights of the classes in the batches of a stage, (K,)."""
    shares = dict.fromkeys(splits, 1.0)
    if len(splits) > 1:
        shares = {"source": source_fraction, "target": 1 - source_fraction}
    return torch.tensor(balanced_weights(splits, shares), dtype=torch.float32)
