"""Replicated weights in one process: a step by hand, and checkpoints that continue as without a stop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fourds_dist.method.output import Output
from fourds_dist.method.supervised import SourceClassifiers
from fourds_dist.training.distributed.world import World
from fourds_dist.training.strategies.ddp import DDPStrategy
from fourds_dist.training.strategies.optim import OptimConfig
from tests.training.tiny import NUM_CLASSES, SIDE, tiny_network

WORLD = World(0, 1, torch.device("cpu"))
CONFIG = OptimConfig(lr=0.1, schedule="cosine")


def make(config: OptimConfig = CONFIG) -> tuple[SourceClassifiers, DDPStrategy]:
    torch.manual_seed(0)
    task = SourceClassifiers({"teacher": tiny_network(4)})
    task.networks["teacher"].get_parameter("layer1.0.weight").requires_grad_(False)
    strategy = DDPStrategy(WORLD, config, 10)
    assert strategy.wrap(task, sync_batch_norm=False, autocast=False) is task
    return task, strategy


def step(
    task: SourceClassifiers, strategy: DDPStrategy, seed: int, *, unless: Tensor | None = None
) -> Output:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(6, 3, SIDE, SIDE, generator=generator)
    labels = torch.randint(0, NUM_CLASSES, (6,), generator=generator)
    task.zero_grad()
    output = task(images, labels)
    strategy.backward(output.loss, is_last=True)
    assert strategy.step(unless=unless) is False
    return output


def test_a_step_is_one_of_sgd() -> None:
    task, strategy = make()
    weight = task.networks["teacher"].get_parameter("fc.weight")
    before = weight.detach().clone()
    assert strategy.learning_rates() == {"student": pytest.approx(0.1)}
    step(task, strategy, 0)
    assert weight.grad is not None
    torch.testing.assert_close(weight.detach(), before - 0.1 * (weight.grad + CONFIG.weight_decay * before))
    assert strategy.learning_rates() == {
        "student": pytest.approx(0.1 * 0.975528258, rel=1e-6)
    }  # cos^2(pi / 20)
    before = weight.detach().clone()
    step(task, strategy, 1, unless=torch.tensor(True))
    assert torch.equal(weight, before)


def test_a_checkpoint_continues_as_without_a_stop() -> None:
    task, strategy = make()
    for seed in range(3):
        step(task, strategy, seed)
    weights, state = strategy.weights(), strategy.optimizer_state()
    assert "networks.teacher.layer1.0.weight" not in weights  # frozen: not a part of the checkpoint
    assert "networks.teacher.layer1.1.running_mean" in weights
    assert state["networks.teacher.fc.bias"].keys() == {"momentum_buffer"}
    kept = {name: value.clone() for name, value in weights.items()}
    step(task, strategy, 3)
    assert all(torch.equal(value, kept[name]) for name, value in weights.items())  # copies
    other, resumed = make()
    step(other, resumed, 7)
    resumed.load_weights(weights)
    resumed.load_optimizer_state(state, 3)
    step(other, resumed, 3)
    assert resumed.learning_rates() == strategy.learning_rates()
    for name, value in strategy.weights().items():
        assert torch.equal(value, resumed.weights()[name]), name


def test_weights_of_another_task_are_refused() -> None:
    _, strategy = make()
    weights = strategy.weights()
    del weights["networks.teacher.fc.bias"]
    with pytest.raises(
        ValueError, match=r"another model: tensors 1 missing \(first: networks\.teacher\.fc\.bias\)"
    ):
        strategy.load_weights(weights)


def test_synchronised_batch_norm_needs_gpus() -> None:
    task, strategy = make()
    with pytest.raises(ValueError, match=r"needs GPUs; use step\.batch_norm=averaged on CPUs"):
        strategy.wrap(task, sync_batch_norm=True, autocast=False)
