"""Steps with `step.norm: fused`: the gradients of PyTorch's layers, graphs, and lines of the log."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fourds_dist.models.norm_fusion import FusedBatchNorm2d
from fourds_dist.ops import use_backend
from fourds_dist.ops.norm import fused
from fourds_dist.training.distributed.world import World
from fourds_dist.training.step import StepConfig, TrainStep
from tests.training.test_step import CPU, MEAN_STD, make_batch, make_plain, make_task, of_two_domains
from tests.training.test_step import exact as exact  # a fixture

FUSED = StepConfig(norm="fused", precision="float32", cudnn_benchmark=False)
TORCH = FUSED.model_copy(update={"norm": "torch"})


def state(
    task: nn.Module, world: World, config: StepConfig, *, has_labels: bool, num_steps: int = 1
) -> list[Tensor]:
    """Gradients and buffers after steps without an optimiser, as one vector each."""
    task = copy.deepcopy(task).to(world.device).train()
    step = TrainStep(task, world, config, **MEAN_STD)
    for seed in range(num_steps):
        batch = (make_batch if has_labels else of_two_domains)(8, seed, str(world.device))
        step(batch)
    assert step.take_notes() == []
    assert any(isinstance(m, FusedBatchNorm2d) for m in task.modules()) == (config.norm == "fused")
    gradients = [p.grad.flatten() for p in task.parameters() if p.grad is not None]
    return [torch.cat(gradients), torch.cat([b.double().flatten() for b in task.buffers()])]


def difference(got: list[Tensor], expected: list[Tensor]) -> float:
    return max(float((x - y).norm() / y.norm()) for x, y in zip(got, expected, strict=True))


@pytest.mark.parametrize("has_labels", [True, False])
def test_gradients_and_statistics_are_those_of_pytorchs_layers(has_labels: bool) -> None:
    """Without labels the domains run through the networks one after the other."""
    task = make_task(has_labels=has_labels)
    expected = state(task, CPU, TORCH, has_labels=has_labels)
    assert difference(state(task, CPU, FUSED, has_labels=has_labels), expected) == 0.0
    with use_backend("eager"):
        expected = state(task, CPU, TORCH, has_labels=has_labels)
        got = state(task, CPU, FUSED, has_labels=has_labels)
    assert 0.0 < difference(got, expected) < 1e-3


def test_lines_for_the_log() -> None:
    config = StepConfig(norm="fused")
    step = TrainStep(make_plain(), CPU, config, **MEAN_STD)
    assert step.take_notes() == ["step.norm=fused finds no BatchNorm in these networks, which run unchanged"]
    assert step.take_notes() == []
    assert TrainStep(make_plain(), CPU, StepConfig(), **MEAN_STD).take_notes() == []


def test_synchronised_batch_norm_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    monkeypatch.setattr("fourds_dist.training.step.ReplicatedWeights.wrap", lambda _self, task, **_: task)
    step = TrainStep(task, CPU, StepConfig(norm="fused", batch_norm="synchronised"), **MEAN_STD)
    assert step.take_notes() == [
        "step.norm=fused has no effect on synchronised BatchNorm, which runs by PyTorch's layers"
    ]
    assert not any(isinstance(m, FusedBatchNorm2d) for m in task.modules())


def test_compiled_networks_fuse_themselves() -> None:
    with pytest.raises(ValueError, match="compile fuses BatchNorm itself and does not go with norm=fused"):
        StepConfig.model_validate({"compile": True, "norm": "fused"})


@pytest.mark.gpu
@pytest.mark.parametrize("has_labels", [True, False])
@pytest.mark.parametrize("graph", [True, False])
def test_kernels_give_the_gradients_of_pytorchs_layers(
    has_labels: bool, graph: bool, exact: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = []
    launch = fused._launch
    monkeypatch.setattr(
        fused, "_launch", lambda name, *given: (launched.append(name), launch(name, *given))[1]
    )
    task = make_task(has_labels=has_labels)
    configs = (config.model_copy(update={"cuda_graph": graph}) for config in (TORCH, FUSED))
    expected, got = (state(task, exact, config, has_labels=has_labels, num_steps=3) for config in configs)
    assert {"statistics", "normalise", "sum_gradients", "input_gradient"} <= set(launched)
    assert difference(got, expected) < 5e-3
