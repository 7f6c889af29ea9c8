"""Captured steps on several GPUs: they train as steps without a graph do, and a rank that is lost ends the others.

python -m pytest tests/training/test_ranks_on_gpus.py    (needs two GPUs)
"""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from fourds_dist.data.stream.batch import Batch
from fourds_dist.method import SourceClassifiers
from fourds_dist.training.cuda_graph import HANG_EXIT_CODE
from fourds_dist.training.distributed.world import World
from fourds_dist.training.step import StepConfig, TrainStep
from fourds_dist.training.strategies.build import make_strategy
from fourds_dist.training.strategies.optim import OptimConfig
from tests.training.test_step import MEAN_STD, make_batch, make_task

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]
NUM_STEPS = 50
SHARES = (5, 3)
TIMEOUT_S = 8.0


def join(rank: int, folder: Path, timeout_s: float = 60.0) -> World:
    torch.cuda.set_device(rank)
    faulthandler.dump_traceback_later(300, exit=True)
    device = torch.device("cuda", rank)
    group = f"file://{folder}/group"
    dist.init_process_group("nccl", init_method=group, rank=rank, world_size=2, device_id=device)
    return World(rank, 2, device, timeout_s)


def share(seed: int, rank: int) -> Batch:
    batch, first = make_batch(sum(SHARES), seed, "cuda"), sum(SHARES[:rank])
    part = slice(first, first + SHARES[rank])
    names = ("images", "labels", "flip")
    return Batch(*(getattr(batch, name)[part] for name in names), keys=[""] * SHARES[rank])


def train(
    world: World,
    config: dict[str, Any],
    task: nn.Module | None = None,
    num_steps: int = 10,
    deepspeed: str = "",
    **options: Any,
) -> tuple[list[float], dict[str, Tensor], TrainStep]:
    """Losses and final weights."""
    exact = {"precision": "float32", "cudnn_benchmark": False}
    task = (task or make_task()).to(world.device).train()
    kind = "deepspeed" if deepspeed else "ddp"
    strategy = make_strategy(kind, world, OptimConfig(), 100, deepspeed=deepspeed, **options)
    step = TrainStep(
        task,
        world,
        StepConfig(**exact | config),
        **MEAN_STD,
        global_batch_size=sum(SHARES),
        strategy=strategy,
    )
    losses = []
    for seed in range(num_steps):
        losses.append(step(share(seed, world.rank)).loss.clone())
        strategy.step()
    return [x.item() for x in losses], strategy.weights(), step


Cases = dict[str, tuple[dict[str, Any], dict[str, Any]]]


def _compare(rank: int, folder: Path, cases: Cases) -> None:
    world = join(rank, folder)
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        for name, (config, options) in cases.items():
            options = {**options, "num_steps": NUM_STEPS if name == "plain" else 10}
            losses, weights, step = train(world, config, **options)
            assert step._captures, (name, step.take_notes())
            again, _, _ = train(world, config, **options)
            assert losses == again, f"{name}: the same run twice"
            plain, expected, _ = train(world, config | {"cuda_graph": False}, **options)
            # cuDNN may take another algorithm in a graph; where it takes the same one, nothing differs.
            assert losses == pytest.approx(plain, rel=1e-4), name
            for key, value in expected.items():
                error = float((weights[key].double() - value.double()).norm())
                assert error <= 1e-3 * float(value.double().norm()) + 1e-6, (name, key)
            others = world.gather(weights["student.conv1.weight"])
            assert torch.equal(others[0], others[1]), name
    dist.destroy_process_group()


def test_captured_ranks_train_as_ranks_without_a_graph(tmp_path: Path) -> None:
    cases: Cases = {
        "plain": ({}, {}),
        "two parts": ({"gradient_accumulation_steps": 2}, {}),
        "synchronised": ({"batch_norm": "synchronised"}, {}),
        "bfloat16 gradients": ({}, {"all_reduce": "bfloat16"}),
        "checkpointing": ({"activation_checkpointing": True}, {}),
        "ZeRO 1": ({}, {"deepspeed": "zero1"}),
    }
    mp.spawn(_compare, (tmp_path, cases), nprocs=2)  # pyright: ignore[reportPrivateImportUsage]


def test_captured_ranks_with_compiled_networks_train_as_without_a_graph(tmp_path: Path) -> None:
    cases: Cases = {"compiled": ({"compile": True}, {})}
    mp.spawn(_compare, (tmp_path, cases), nprocs=2)  # pyright: ignore[reportPrivateImportUsage]


class Peeks(nn.Module):
    """Reads a value on the host, as data-dependent control flow does."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.mean().item() > 1e9 else x * 1.0


class Waits(nn.Module):
    """Waits for the device without reading anything."""

    def forward(self, x: Tensor) -> Tensor:
        torch.cuda.synchronize()
        return x * 1.0


def with_layer(layer: nn.Module) -> SourceClassifiers:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(4, 5))
    return SourceClassifiers({"teacher": nn.Sequential(*layers)})


def _fall_back(rank: int, folder: Path) -> None:
    world = join(rank, folder)
    for layer in (Peeks(), Waits()):
        losses, _, step = train(world, {}, with_layer(layer if rank else nn.Identity()))
        (note,) = step.take_notes()
        assert note.startswith("this step runs without a CUDA graph"), note
        assert all(x == x for x in losses)
    alone = World(0, 1, world.device)
    step = TrainStep(with_layer(Peeks()).to(world.device), alone, StepConfig(), **MEAN_STD)
    step(make_batch(8, 0, "cuda"))
    (note,) = step.take_notes()
    assert "networks.teacher.1 (Peeks)" in note, note
    dist.destroy_process_group()


def test_a_step_that_one_rank_cannot_capture_runs_without_a_graph_on_all(tmp_path: Path) -> None:
    mp.spawn(_fall_back, (tmp_path,), nprocs=2)  # pyright: ignore[reportPrivateImportUsage]


def _lose(rank: int, folder: Path, fate: str) -> None:
    world = join(rank, folder, TIMEOUT_S)
    task = make_task().to(world.device).train()
    step = TrainStep(task, world, StepConfig(), **MEAN_STD, global_batch_size=sum(SHARES))
    for seed in range(10_000):
        if rank == 1 and seed == 20:
            if fate == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        output = step(share(seed, rank))
        if seed % 5 == 0:
            output.loss.item()
            (folder / f"{rank}").write_text(str(seed))


@pytest.mark.parametrize("fate", ["killed", "hangs"])
def test_a_rank_that_is_lost_in_mid_run_ends_the_others_within_the_timeout(fate: str, tmp_path: Path) -> None:
    start: Callable[..., Any] = mp.get_context("spawn").Process
    ranks = [start(target=_lose, args=(rank, tmp_path, fate)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "1").exists() or (tmp_path / "1").read_text() not in ("15", "20"):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        ranks[0].join(timeout=4 * TIMEOUT_S)
        assert ranks[0].exitcode == HANG_EXIT_CODE
    finally:
        for process in ranks:
            process.kill()
