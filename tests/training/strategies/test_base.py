"""Strategies: twenty steps equal those of one process, and a checkpoint of one resumes under another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fourds_dist.training.distributed.world import World
from tests.training.parity import (
    GLOBAL_BATCH_SIZE,
    KINDS,
    NUM_STEPS,
    ROUNDED,
    SEVERAL,
    Job,
    distance,
    in_processes,
    single,
    train,
)

WORLD = World(0, 1, torch.device("cpu"))
CLOSE = 1e-5


def weights(folder: Path, label: str) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"{label}.weights", weights_only=True)


OF_SEVERAL = [f"{kind}{SEVERAL}" for kind in ("ddp", "zero1", "zero3")]


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights and checkpoints of two ranks, which import DeepSpeed once for all jobs."""
    folder = tmp_path_factory.mktemp("two-ranks")
    jobs: list[Job] = [
        ("whole", "zero1", None, NUM_STEPS),
        ("half", "zero3", "half.pt", NUM_STEPS // 2),
        ("rounded", ROUNDED, None, NUM_STEPS),
        *((kind, kind, None, NUM_STEPS) for kind in OF_SEVERAL),
        (f"half{SEVERAL}", OF_SEVERAL[1], f"half{SEVERAL}.pt", NUM_STEPS // 2),
    ]
    in_processes(2, folder, jobs)
    return folder


def test_zero_ends_where_one_process_ends_and_its_checkpoints_are_plain(on_two_ranks: Path) -> None:
    alone = single()
    assert distance(weights(on_two_ranks, "whole"), alone) < CLOSE
    assert distance(weights(on_two_ranks, "half"), alone) > 100 * CLOSE  # the comparison can tell
    assert (
        CLOSE < distance(weights(on_two_ranks, "rounded"), alone) < 1e-2
    )  # bfloat16 rounds by 2^-9 of a gradient
    # ZeRO 3 on two ranks resumes as one process without DeepSpeed.
    rest = train("ddp", WORLD, [GLOBAL_BATCH_SIZE], on_two_ranks / "half.pt")
    assert distance(rest, alone) < CLOSE


def test_several_students_end_on_two_ranks_where_they_end_in_one_process(on_two_ranks: Path) -> None:
    alone = single(f"ddp{SEVERAL}")
    assert {"students.0.student.fc.weight", "students.1.fusion.squeeze.weight"} & set(alone)
    for kind in OF_SEVERAL:
        assert distance(weights(on_two_ranks, kind), alone) < CLOSE, kind
    assert distance(weights(on_two_ranks, f"half{SEVERAL}"), alone) > 100 * CLOSE
    rest = train(f"ddp{SEVERAL}", WORLD, [GLOBAL_BATCH_SIZE], on_two_ranks / f"half{SEVERAL}.pt")
    assert distance(rest, alone) < CLOSE


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_every_strategy_ends_where_one_process_ends(tmp_path: Path, ranks: int) -> None:
    jobs: list[Job] = [(kind, kind, None, NUM_STEPS) for kind in KINDS]
    # Half by one strategy, the rest by another.
    for first, second in zip(KINDS, (*KINDS[2:], *KINDS[:2]), strict=True):
        jobs += [
            (f"{first}-half", first, f"{first}.pt", 10),
            (f"{first}-{second}", second, f"{first}.pt", NUM_STEPS),
        ]
    in_processes(ranks, tmp_path, jobs)
    alone = single()
    for label in [label for label, _, _, until in jobs if until == NUM_STEPS]:
        assert distance(weights(tmp_path, label), alone) < CLOSE, label
