"""DeepSpeed's ZeRO as a strategy: steps that it skips, the layout of its weights, and what it refuses."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from fourds_dist.training.distributed.world import World
from fourds_dist.training.step import StepConfig, TrainStep
from fourds_dist.training.strategies.build import make_strategy
from fourds_dist.training.strategies.deepspeed import DeepSpeedStrategy, _odd_length_last
from fourds_dist.training.strategies.optim import OptimConfig
from tests.ranks import run_ranks
from tests.training.parity import DIVIDED, NUM_STEPS, batches, distance, leave
from tests.training.tiny import tiny_four_ds

WORLD = World(0, 1, torch.device("cpu"))


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


def test_clipping_apart_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gradient_clipping in launch\.deepspeed=zero2"):
        make_strategy("deepspeed", WORLD, OptimConfig(max_grad_norm=1.0), 10, deepspeed="zero2")


def test_weights_that_end_between_16_bytes_come_last() -> None:
    parameters = [torch.zeros(n, dtype=dtype) for n in (3, 4, 8) for dtype in (torch.float32, torch.bfloat16)]
    lengths = [(p.numel(), p.element_size()) for p in sorted(parameters, key=_odd_length_last)]
    assert lengths == [(4, 4), (8, 4), (8, 2), (3, 4), (3, 2), (4, 2)]


def test_tensors_of_another_model_are_refused_by_name() -> None:
    DeepSpeedStrategy._refuse_others(set())
    with pytest.raises(ValueError, match=r"another model: 2 tensors differ \(first: a\)$"):
        DeepSpeedStrategy._refuse_others({"b", "a"})
