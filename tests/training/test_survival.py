"""Several ranks, killed in the middle of an epoch: the resumed run ends like an undisturbed run."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fourds_dist.data import Batch
from fourds_dist.runs.accuracy import Accuracy
from fourds_dist.runs.events import Event, Note, decode_lines, encode
from fourds_dist.training.checkpoint.checkpoint_store import FolderStore
from fourds_dist.training.distributed.world import World
from fourds_dist.training.loop import LoopHooks, StageConfig, fit
from fourds_dist.training.step import StepConfig, TrainStep
from fourds_dist.training.strategies.ddp import DDPStrategy
from fourds_dist.training.strategies.optim import OptimConfig
from tests.ranks import run_ranks
from tests.training.tiny import NUM_CLASSES, SIDE, tiny_four_ds

GLOBAL_BATCH_SIZE, STEPS_PER_EPOCH, EPOCHS = 12, 6, 2
CONFIG = StageConfig(
    epochs=EPOCHS, global_batch_size=GLOBAL_BATCH_SIZE, checkpoint_every_steps=4, optim=OptimConfig(lr=0.05)
)


class Stream:
    """This rank's share of batches that depend on the step alone; a kill -9 while one is asked for."""

    num_steps_per_epoch = STEPS_PER_EPOCH
    wait_s = 0.0
    bad_samples: frozenset[str] = frozenset()
    gpu = None

    def __init__(self, world: World, kill_at: int | None, store: FolderStore) -> None:
        self.world, self.kill_at, self.store = world, kill_at, store

    def batches(self, step: int) -> Iterator[Batch]:
        share = GLOBAL_BATCH_SIZE // self.world.size
        mine = slice(self.world.rank * share, (self.world.rank + 1) * share)
        while True:
            if step == self.kill_at:
                self.store.close()  # else it is chance whether the last checkpoint is written
                self.world.barrier()
                os.kill(os.getpid(), signal.SIGKILL)
            generator = torch.Generator().manual_seed(step)
            images = torch.randint(
                0, 256, (GLOBAL_BATCH_SIZE, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator
            )
            labels = torch.randint(0, NUM_CLASSES, (GLOBAL_BATCH_SIZE,), generator=generator)
            no = torch.zeros(share, dtype=torch.bool)
            yield Batch(images[mine], labels[mine], no, [""] * share)
            step += 1


def _rank(rank: int, ranks: int, folder: Path, group: str, kill_at: int | None) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/{group}", rank=rank, world_size=ranks)
    world = World(rank, ranks, torch.device("cpu"))
    torch.manual_seed(0)
    task = tiny_four_ds()
    torch.manual_seed(rank)  # dropout differs by rank
    strategy = DDPStrategy(world, CONFIG.optim, EPOCHS * STEPS_PER_EPOCH)
    step = TrainStep(task, world, StepConfig(), mean=(0.5,) * 3, std=(0.25,) * 3, strategy=strategy)
    store = FolderStore(str(folder / "run"))
    events: list[Event] = []
    accuracies = {"student": Accuracy(1, 2, 1.0)}
    fit(
        task,
        step,
        strategy,
        Stream(world, kill_at, store),  # pyright: ignore[reportArgumentType]
        lambda: accuracies,
        LoopHooks(store, events.append),
        config=CONFIG,
        monitored="student",
        identity={},
        world=world,
        log_every_steps=5,
    )
    end = store.read(store.newest() or "")
    torch.save(
        (
            [encode(event.stamped("distill", 0)) for event in events],
            end["weights"],
            end["optimizer"],
            end["ranks"],
        ),
        folder / f"end{rank}.pt",
    )
    dist.destroy_process_group()


def run(ranks: int, folder: Path, group: str = "group", kill_at: int | None = None) -> Any:
    folder.mkdir(exist_ok=True)
    run_ranks(_rank, (ranks, folder, group, kill_at), num_ranks=ranks)
    return torch.load(folder / "end0.pt", weights_only=True)


def test_a_run_killed_within_an_epoch_resumes_exactly(tmp_path: Path) -> None:
    """On the same number of ranks bit for bit: at step 8, where the run resumes, BatchNorm statistics and random states
    differ by rank, and the order of sums over three ranks depends on DDP's buckets. The run also resumes on another
    number of ranks.
    """
    _, weights, optimizer, by_rank = run(3, tmp_path / "whole")
    with pytest.raises(mp.ProcessExitedException):  # pyright: ignore[reportPrivateImportUsage]
        run(3, tmp_path / "killed", kill_at=10)
    shutil.copytree(tmp_path / "killed", tmp_path / "fewer")

    lines, weights_2, optimizer_2, by_rank_2 = run(3, tmp_path / "killed", "group2")
    assert next(decode_lines(lines)).step == 8
    assert weights.keys() == weights_2.keys()
    assert [k for k in weights if not torch.equal(weights[k], weights_2[k])] == []
    for name, state in optimizer.items():
        assert all(torch.equal(state[k], optimizer_2[name][k]) for k in state), name
    for a, b in zip(by_rank, by_rank_2, strict=True):
        assert torch.equal(a["random"]["cpu"], b["random"]["cpu"])
    assert not torch.equal(by_rank[0]["random"]["cpu"], by_rank[1]["random"]["cpu"])

    lines, weights_3, _, by_rank_3 = run(2, tmp_path / "fewer", "group2")
    notes = [event.text for event in decode_lines(lines) if isinstance(event, Note)]
    assert notes == ["resumed from the checkpoint of step 8 on 2 workers after 3"]
    assert len(by_rank_3) == 2
    assert all(torch.isfinite(w).all() for w in weights_3.values())
