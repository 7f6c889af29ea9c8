"""What runs inside a Ray Train worker: one rank of one stage."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import ray.train
import torch

from fourds_dist.settings import Settings
from fourds_dist.training.checkpoint import read_state
from fourds_dist.training.stages import run_stage


def train_worker(config: dict[str, Any]) -> None:
    """Ray Train's `train_loop_per_worker`.

    Args:
        config: "stage", "settings" (JSON) and "board", the driver's `Board` actor.
    """
    board = config["board"]
    settings = Settings.model_validate_json(config["settings"])
    run_stage(config["stage"], settings, RayStore, lambda row: board.put.remote(row))


class RayStore:
    """Checkpoints through `ray.train.report`, which uploads them to the run's storage and counts them when whole."""

    def save(self, state: dict[str, Any] | None, step: int, metrics: dict[str, float]) -> None:
        """A barrier of all ranks; rank 0 brings the state."""
        name = f"checkpoint-{step:08d}"
        if state is None:
            ray.train.report(metrics, checkpoint=None, checkpoint_dir_name=name)
            return
        with tempfile.TemporaryDirectory() as folder:
            torch.save(state, Path(folder) / "state.pt")
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(metrics, checkpoint=checkpoint, checkpoint_dir_name=name)

    def load(self) -> dict[str, Any] | None:
        """The newest checkpoint that Ray Train counted, or None."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            return read_state(Path(folder) / "state.pt")
