"""A step on augmented batches: on CPUs, in parts, and replayed on GPUs, where the host never waits."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from fourds_dist.data.augment.config import AugmentConfig
from fourds_dist.data.augment.draws import Draws, draw_images
from fourds_dist.data.augment.mixing import draw_mix, partners
from fourds_dist.data.seeds import MIX, generator
from fourds_dist.data.stream.batch import Batch, augmented
from fourds_dist.method.label_mix import LabelMix
from fourds_dist.training.device_prefetch import prefetch_to_device
from fourds_dist.training.distributed.world import World
from fourds_dist.training.step import StepConfig, TrainStep
from fourds_dist.training.strategies.optim import OptimConfig, TaskOptimizers
from tests.training.test_step import CPU, MEAN_STD, gradients, make_batch, make_plain, make_task

SIDE = 32
CONFIG = AugmentConfig(
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    policy="rand_augment",
    erasing_probability=0.5,
    mixup_alpha=0.4,
    cutmix_alpha=1.0,
    mix_probability=0.8,
)


def make_augmented(size: int, step: int = 0) -> Batch:
    images = draw_images(
        CONFIG, SIDE, lambda purpose, n: generator(purpose, 1, step).random((size, n)), partners([size])
    )
    mix = draw_mix(CONFIG, SIDE, generator(MIX, 1, step))
    return replace(make_batch(size, step), draws=Draws.of(images, CONFIG, mix))


def is_mixed(draws: Draws) -> bool:
    return draws.mix is not None and draws.mix.share < 1


@pytest.mark.parametrize("gradient_accumulation_steps", [1, 2])
def test_a_step_trains_on_the_augmented_images_with_both_labels(gradient_accumulation_steps: int) -> None:
    task, by_hand = make_plain(), make_plain()
    step = TrainStep(
        task, CPU, StepConfig(gradient_accumulation_steps=gradient_accumulation_steps), **MEAN_STD
    )
    batch = next(b for b in map(partial(make_augmented, 6), range(9)) if b.draws and is_mixed(b.draws))
    step(batch)
    after = augmented(batch, fill=MEAN_STD["mean"])
    assert after.mixed is not None
    assert (after.mixed[1] < 1).all()
    by_hand((after.images / 255 - 0.5) / 0.25, after.labels, LabelMix(*after.mixed)).loss.backward()
    for found, expected in zip(gradients(task), gradients(by_hand), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_batch_stays_as_it_is() -> None:
    batch = make_augmented(6)
    before = batch.mapped(torch.clone)
    step = TrainStep(make_plain(), CPU, StepConfig(), **MEAN_STD)
    first, second = step(batch), step(batch)
    assert torch.equal(first.loss, second.loss)
    assert torch.equal(batch.images, before.images)


def train(world: World, *, graph: bool, num_steps: int = 6) -> dict[str, Tensor]:
    task = make_task().to(world.device).train()
    config = StepConfig(precision="float32", cudnn_benchmark=False, cuda_graph=graph)
    step = TrainStep(task, world, config, **MEAN_STD)
    optimizers = TaskOptimizers(task.parameter_groups(), OptimConfig(), num_steps=100)
    for batch in prefetch_to_device((make_augmented(8, s) for s in range(num_steps)), world.device):
        step(batch)
        optimizers.step()
    assert step.is_captured == graph
    return {name: x.double().cpu() for name, x in task.state_dict().items()}


@pytest.mark.gpu
def test_replayed_steps_train_on_new_draws_as_plain_ones_do() -> None:
    world = World(0, 1, torch.device("cuda", torch.cuda.current_device()))
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        plain, replayed = (train(world, graph=graph) for graph in (False, True))
    for name, expected in plain.items():
        error = float((replayed[name] - expected).norm())
        assert error <= 1e-4 * float(expected.norm()) + 1e-6, name


@pytest.mark.gpu
def test_images_are_augmented_on_gpus_as_on_cpus() -> None:
    for step in range(8):
        batch = make_augmented(32, step)
        here, there = (augmented(b, fill=(0.5,) * 3) for b in (batch, batch.to(torch.device("cuda"))))
        difference = (here.images.int() - there.images.cpu().int()).abs()
        assert (difference > 1).any(1).float().mean() < 0.01  # pixels at the border of two in rotations
        assert here.mixed is not None
        assert there.mixed is not None
        assert torch.equal(here.mixed[0], there.mixed[0].cpu())


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_the_host_never_waits_for_the_augmentation() -> None:
    world = World(0, 1, torch.device("cuda", torch.cuda.current_device()))
    step = TrainStep(make_task().to(world.device).train(), world, StepConfig(), **MEAN_STD)
    batches = [make_augmented(32, s).to(world.device) for s in range(6)]
    for batch in batches[:2]:
        step(batch)
    try:
        torch.cuda.set_sync_debug_mode("error")
        for batch in batches:
            step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_batches_of_other_steps_have_other_draws() -> None:
    found = [augmented(make_augmented(8, s), fill=(0.5,) * 3).images.float().mean().item() for s in range(4)]
    assert all(a != b for a, b in pairwise(np.sort(found)))
