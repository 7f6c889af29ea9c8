"""The guard among several ranks: what one of them finds stops all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from fourds_dist.data import Batch
from fourds_dist.method.output import Output
from fourds_dist.training.distributed.world import World
from fourds_dist.training.nonfinite_guard import NonfiniteGuard
from tests.ranks import run_ranks


def _rank(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    world, task = World(rank, 2, torch.device("cpu")), nn.Linear(2, 1)

    def write(name: str, value: object) -> None:
        (folder / name).write_text(json.dumps(value))

    guard = NonfiniteGuard(task, world, num_skipped=0, budget=0, window_steps=1, write=write)
    no = torch.zeros(1, dtype=torch.bool)
    batch = Batch(torch.zeros(1, 3, 8, 8), torch.zeros(1), no, [f"shard/{rank}"])
    guard.look(3, batch, Output(torch.zeros(()), {}, {}))
    weights = {"weight": torch.ones(1, 2), "bias": torch.ones(1)}
    guard.check_state(3, {"weights": weights} if world.is_main else None)
    weights["bias"][0] = float("inf")
    with pytest.raises(FloatingPointError, match=r"step 3 left weights.*nonfinite_batch-00000003\.json"):
        guard.check_state(3, {"weights": weights} if world.is_main else None)
    dist.destroy_process_group()


def test_weights_that_are_not_finite_stop_every_rank(tmp_path: Path) -> None:
    run_ranks(_rank, (tmp_path,))
    told = json.loads((tmp_path / "nonfinite_batch-00000003.json").read_text())
    assert told["keys_by_step_and_rank"] == {"3": [["shard/0"], ["shard/1"]]}
