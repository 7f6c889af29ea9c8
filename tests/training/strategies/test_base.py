"""Strategies: twenty steps equal those of one process, and a checkpoint of one resumes under another."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from fourds_dist.training.distributed.world import World
from fourds_dist.training.step import StepConfig, TrainStep
from fourds_dist.training.strategies.build import make_strategy
from fourds_dist.training.strategies.deepspeed_config import read_config
from fourds_dist.training.strategies.mixed_optimizer import MixedOptimizer
from fourds_dist.training.strategies.optim import OptimConfig
from tests.ranks import run_ranks
from tests.training.parity import (
    DIVIDED,
    GLOBAL_BATCH_SIZE,
    KINDS,
    NUM_STEPS,
    ROUNDED,
    Job,
    batches,
    distance,
    in_processes,
    leave,
    single,
    train,
)
from tests.training.tiny import tiny_four_ds

WORLD = World(0, 1, torch.device("cpu"))
CLOSE = 1e-5


def weights(folder: Path, label: str) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"{label}.weights", weights_only=True)


def test_zero_ends_where_one_process_ends_and_its_checkpoints_are_plain(tmp_path: Path) -> None:
    jobs: list[Job] = [
        ("whole", "zero1", None, NUM_STEPS),
        ("half", "zero3", "half.pt", NUM_STEPS // 2),
        ("rounded", ROUNDED, None, NUM_STEPS),
    ]
    in_processes(2, tmp_path, jobs)
    alone = single()
    assert distance(weights(tmp_path, "whole"), alone) < CLOSE
    assert distance(weights(tmp_path, "half"), alone) > 100 * CLOSE  # the comparison can tell
    assert (
        CLOSE < distance(weights(tmp_path, "rounded"), alone) < 1e-2
    )  # bfloat16 rounds by 2^-9 of a gradient
    # ZeRO 3 on two ranks resumes as one process without DeepSpeed.
    rest = train("ddp", WORLD, [GLOBAL_BATCH_SIZE], tmp_path / "half.pt")
    assert distance(rest, alone) < CLOSE


def _broken_gradient(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    world = World(rank, 2, torch.device("cpu"))
    for name in (str(folder / "clipping.yaml"), str(DIVIDED)):
        torch.manual_seed(0)
        task = tiny_four_ds(dropout=0.0, batch_norm=False)
        strategy = make_strategy("deepspeed", world, OptimConfig(), NUM_STEPS, deepspeed=name)
        options = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "strategy": strategy}
        step = TrainStep(task, world, StepConfig(), **options)
        parameter, count = task.student.get_parameter("fc.bias"), itertools.count(1)
        if rank == 1:
            parameter.register_hook(lambda g, count=count: g * float("nan") if next(count) == 2 else g)
        left_out, weights = [], []
        for batch in itertools.islice(batches(world, 0, [6, 6]), 3):
            step(batch)
            left_out.append(strategy.step())
            weights.append({k: v for k, v in strategy.weights().items() if k.startswith("student.")})
        assert left_out == [False, True, False]
        assert distance(weights[0], weights[1]) == 0 < distance(weights[1], weights[2])
        steps = [state["step"] for state in strategy.optimizer_state().values() if "step" in state]
        assert set(map(float, steps)) == {2.0}
        strategy.unwrap()
    leave()


def test_a_step_that_zero_skips_is_reported_on_every_rank(tmp_path: Path) -> None:
    (tmp_path / "clipping.yaml").write_text("{gradient_clipping: 1.0, zero_optimization: {stage: 1}}")
    run_ranks(_broken_gradient, (tmp_path,))


def _aligned(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    task = tiny_four_ds()
    strategy = make_strategy(
        "deepspeed", World(rank, 2, torch.device("cpu")), OptimConfig(), 10, deepspeed="zero1"
    )
    strategy.wrap(task, sync_batch_norm=False, autocast=False)
    lengths = {p.numel() % 4 for p in task.adapters.parameters()}
    assert lengths == {0, 2}
    for name, p in task.named_parameters():
        assert p.numel() % 4 or p.data_ptr() % 16 == 0, name
    leave()


def test_weights_beside_shorter_ones_stay_aligned(tmp_path: Path) -> None:
    """cuDNN's BatchNorm ends with "misaligned address" for weights of another alignment than 16 bytes."""
    run_ranks(_aligned, (tmp_path,))


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


def test_mixed_groups_step_as_torch_s_optimisers_do() -> None:
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(5)) for _ in range(2)]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    mixed = MixedOptimizer(
        [
            {"params": ours[:1], "kind": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
            {"params": ours[1:], "kind": "adamw", "lr": 0.1, "eps": 1e-4, "weight_decay": 0.1},
        ]
    )
    pair = [
        torch.optim.SGD(theirs[:1], lr=0.1, momentum=0.9, weight_decay=0.01),
        torch.optim.AdamW(theirs[1:], lr=0.1, eps=1e-4, weight_decay=0.1),
    ]
    for step in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(5, generator=torch.Generator().manual_seed(step))
            q.grad = p.grad.clone()
        mixed.step()
        for optimizer in pair:
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["zero0", "zero1", "zero2", "zero3", "zero3_offload"])
def test_shipped_configurations_are_what_they_say(name: str) -> None:
    assert read_config(name)["zero_optimization"]["stage"] == int(name[4])


class TestRefused:
    def test_no_such_configuration(self) -> None:
        with pytest.raises(
            ValueError, match=r"launch.deepspeed=zero9: neither a file nor.*zero1, zero2, zero3"
        ):
            read_config("zero9")

    def test_what_the_run_decides(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text('{"zero_optimization": {"stage": 1}, "optimizer": {"type": "Adam"}}')
        with pytest.raises(ValueError, match="has 'optimizer', which the keys of the run determine"):
            read_config(f"{tmp_path}/a.json")
        (tmp_path / "b.yaml").write_text("bf16: { enabled: true }")
        with pytest.raises(ValueError, match=r"set step\.precision"):
            read_config(f"{tmp_path}/b.yaml")

    def test_no_configuration_at_all(self, tmp_path: Path) -> None:
        (tmp_path / "c.yaml").write_text("a: [1")
        with pytest.raises(ValueError, match="neither JSON nor YAML"):
            read_config(f"{tmp_path}/c.yaml")

    def test_clipping_apart(self) -> None:
        with pytest.raises(ValueError, match=r"gradient_clipping in launch\.deepspeed=zero2"):
            make_strategy("deepspeed", WORLD, OptimConfig(max_grad_norm=1.0), 10, deepspeed="zero2")
