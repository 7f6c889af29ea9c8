"""A step whose networks have a size or a normalisation of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fourds_dist.data.stream import batch as batch_module
from fourds_dist.data.stream import network_input as network_input_module
from fourds_dist.data.stream.batch import normalise
from fourds_dist.data.stream.network_input import InputConversion, NetworkInput
from fourds_dist.method import FourDs, SourceClassifiers
from fourds_dist.training.evaluate import evaluate
from fourds_dist.training.step import StepConfig, TrainStep
from tests.training.test_step import CPU, MEAN_STD, gradients, make_batch, make_task, train
from tests.training.test_step import exact as exact  # a fixture

DATA = NetworkInput(32, **MEAN_STD)
OWN: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SIZES = {"teacher": NetworkInput(40, **OWN), "student": NetworkInput(24, **MEAN_STD)}
INPUTS = {name: InputConversion(DATA, own) for name, own in SIZES.items()}


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )


def converted_task() -> FourDs:
    task = make_task()
    task.inputs = INPUTS
    return task.train()


@pytest.mark.parametrize("is_mixed", [False, True])
@pytest.mark.parametrize("gradient_accumulation_steps", [1, 2])
def test_a_normalisation_of_the_network_equals_that_normalisation_of_the_batch(
    gradient_accumulation_steps: int,
    is_mixed: bool,
) -> None:
    config, batch = StepConfig(gradient_accumulation_steps=gradient_accumulation_steps), make_batch(6)
    if is_mixed:
        batch = replace(batch, mixed=(batch.labels.flip(0), torch.full((6,), 0.7)))
    conversion = InputConversion(DATA, NetworkInput(32, **OWN))
    task = SourceClassifiers({"teacher": classifier()}, {"teacher": conversion})
    expected = SourceClassifiers({"teacher": classifier()})
    outputs = TrainStep(task, CPU, config, **MEAN_STD)(batch), TrainStep(expected, CPU, config, **OWN)(batch)
    torch.testing.assert_close(outputs[0].loss, outputs[1].loss)
    torch.testing.assert_close(gradients(task), gradients(expected), rtol=1e-4, atol=1e-6)


def test_images_are_rounded_to_bfloat16_once() -> None:
    """Both networks of the step get bfloat16, converted from float32."""
    seen: dict[str, Tensor] = {}
    networks = {name: classifier() for name in ("teacher", "student")}
    for name, network in networks.items():
        network.register_forward_pre_hook(lambda _m, args, n=name: seen.__setitem__(n, args[0]))
    task = SourceClassifiers(networks, {"teacher": INPUTS["teacher"]})
    batch = make_batch(2)
    TrainStep(task, CPU, StepConfig(precision="bfloat16"), **MEAN_STD)(batch)
    images = normalise(batch.images, batch.flip, **MEAN_STD)
    assert torch.equal(seen["teacher"], INPUTS["teacher"](images).bfloat16())
    assert torch.equal(seen["student"], images.bfloat16())


def test_no_value_is_read_back_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (batch_module, network_input_module):  # no cached constants without data may remain
        monkeypatch.setattr(module, "_constants", module._constants.__wrapped__)
    with FakeTensorMode():
        task = converted_task()
        TrainStep(task, CPU, StepConfig(gradient_accumulation_steps=2), **MEAN_STD)(make_batch(4))
    assert len(gradients(task)) == sum(p.requires_grad for p in task.parameters())


def test_evaluation_converts_too() -> None:
    """A network that knows the class of white images among black ones by its own normalisation alone."""

    class IsWhite(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            assert images.shape[2:] == (24, 24)
            level = images.mean((1, 2, 3))  # by the network's normalisation, 0 is black and 1 is white
            return torch.stack([(level - 1).abs(), level.abs()], dim=1)

    own = NetworkInput(24, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    task = SourceClassifiers({"teacher": IsWhite()}, {"teacher": InputConversion(DATA, own)})
    batch = make_batch(4)
    labels = torch.tensor([0, 1, 1, 0])
    images = (labels[:, None, None, None] * 255).to(torch.uint8).expand(4, 3, 32, 32).contiguous()
    step = TrainStep(SourceClassifiers({"teacher": classifier()}), CPU, StepConfig(), **MEAN_STD)
    batches = [replace(batch, images=images, labels=labels)]
    assert evaluate(task.predictors(), batches, step, CPU, num_classes=2)["teacher"].value == 1


@pytest.mark.gpu
def test_replayed_steps_train_as_plain_ones_do(exact: Any) -> None:
    config = StepConfig(precision="float32", cudnn_benchmark=False)
    plain = train(converted_task(), exact, config.model_copy(update={"cuda_graph": False}), (4, 4, 4))
    replayed = train(converted_task(), exact, config.model_copy(update={"cuda_graph": True}), (4, 4, 4))
    for name, expected in plain.items():
        error = float((replayed[name] - expected).norm())
        assert error <= 1e-4 * float(expected.norm()) + 1e-6, name


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, pytest.param({"compile": True}, marks=pytest.mark.slow)])
def test_the_default_step_on_a_gpu_is_captured(exact: Any, options: dict[str, Any]) -> None:
    task = converted_task().to(exact.device)
    step = TrainStep(task, exact, StepConfig(cudnn_benchmark=False, **options), **MEAN_STD)
    outputs = [step(make_batch(4, seed, "cuda")) for seed in range(3)]
    assert step.is_captured
    assert step.take_notes() == []
    assert torch.isfinite(outputs[-1].loss)
