"""A strategy by its name, and what each can do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fourds_dist.training.distributed.world import World
from fourds_dist.training.strategies.build import make_strategy
from fourds_dist.training.strategies.ddp import DDPStrategy
from fourds_dist.training.strategies.deepspeed import DeepSpeedStrategy
from fourds_dist.training.strategies.optim import OptimConfig

WORLD = World(0, 1, torch.device("cpu"))


def test_the_name_decides() -> None:
    ddp = make_strategy("ddp", WORLD, OptimConfig(), 10, deepspeed="no such configuration")
    assert type(ddp) is DDPStrategy
    assert (ddp.is_plain, ddp.can_capture, ddp.in_step) == (True, True, False)
    zero = make_strategy("deepspeed", WORLD, OptimConfig(), 10, deepspeed="zero2")
    assert type(zero) is DeepSpeedStrategy
    assert zero.is_plain is False
    with pytest.raises(ValueError, match=r"launch\.deepspeed=zero9: neither a file nor"):
        make_strategy("deepspeed", WORLD, OptimConfig(), 10, deepspeed="zero9")


@pytest.mark.parametrize(
    ("zero", "can_capture", "in_step"),
    [
        ("{ stage: 0 }", False, False),
        ("{ stage: 1 }", True, False),
        ("{ stage: 1, overlap_comm: true }", False, False),
        ("{ stage: 1, offload_optimizer: { device: cpu } }", False, False),
        ("{ stage: 2 }", False, False),
        ("{ stage: 3 }", False, True),
    ],
)
def test_only_stage_1_is_captured_and_only_stage_3_needs_all_ranks_in_a_forward_pass(
    tmp_path: Path, zero: str, can_capture: bool, in_step: bool
) -> None:
    (tmp_path / "zero.yaml").write_text(f"zero_optimization: {zero}\n")
    strategy = make_strategy("deepspeed", WORLD, OptimConfig(), 10, deepspeed=f"{tmp_path}/zero.yaml")
    assert (strategy.can_capture, strategy.in_step) == (can_capture, in_step)
