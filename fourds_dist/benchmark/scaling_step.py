"""The training step that `benchmark scaling` measures, as one worker of a process group.

`work` builds the default step of a run, times rounds of it, and for DDP times the same step without its all-reduces.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from fourds_dist.data.stream.batch import Batch
from fourds_dist.method import BackboneConfig, FourDs, MethodConfig, build_backbone
from fourds_dist.models.backbones import stage_names
from fourds_dist.training.device_idle import DeviceIdle
from fourds_dist.training.distributed.world import World
from fourds_dist.training.step import StepConfig, TrainStep
from fourds_dist.training.strategies.base import Strategy
from fourds_dist.training.strategies.build import make_strategy
from fourds_dist.training.strategies.optim import OptimConfig

NUM_CLASSES = 65
NUM_ROUNDS, WARM_UP_STEPS = 5, 3


@dataclass(frozen=True)
class ScalingCase:
    """Settings of one measurement."""

    strategy: str
    workers: int
    batch_per_worker: int
    teacher: str
    student: str
    image_px: int
    precision: str
    num_steps: int
    cuda_graph: bool | None = None
    activation_checkpointing: bool = False
    scaling: str = "weak"
    through: str = "spawn"


def work(scenario: ScalingCase, world: World, folder: str) -> None:
    """Measure as one worker of the job; rank 0 writes the row into the folder."""
    on_gpu = world.device.type == "cuda"
    if not on_gpu:
        torch.set_num_threads(1)
    step = build(scenario, world)
    rates, host_shares = rounds_of(step, scenario, world)
    peak = torch.cuda.max_memory_reserved() if on_gpu else 0
    exposed_s, is_captured = step.train_step.exposed_reduction_s(), step.train_step.is_captured
    share = None
    if scenario.strategy.startswith("ddp") and scenario.workers > 1:
        del step
        alone = build(scenario, replace(world, rank=0, size=1))
        without, _ = rounds_of(alone, scenario, world)
        share = max(0.0, 1 - statistics.median(rates) / statistics.median(without))
    peaks = world.gather(peak)
    if world.is_main:
        rate = statistics.median(rates)
        row = {
            "strategy": scenario.strategy,
            "scaling": scenario.scaling,
            "workers": scenario.workers,
            "batch_per_worker": scenario.batch_per_worker,
            "images_per_s": rate,
            "rounds": rates,
            "peak_bytes_per_worker": max(peaks),
            "is_captured": is_captured,
            "host_share": statistics.median(host_shares) if on_gpu else None,
            "exposed_share": exposed_s and exposed_s * rate / (scenario.batch_per_worker * scenario.workers),
            "communication_share": share,
        }
        (Path(folder) / "row.json").write_text(json.dumps(row))


@dataclass(frozen=True)
class StepOfRun:
    """A training step on one batch, with its optimisers."""

    train_step: TrainStep
    strategy: Strategy
    batch: Batch

    def __call__(self) -> None:
        """Train one step."""
        self.train_step(self.batch)
        self.strategy.step()


def build(scenario: ScalingCase, world: World) -> StepOfRun:
    """Return the training step of a measurement."""
    torch.manual_seed(0)
    with world.device:  # initialising a large teacher is fast on the device
        teacher, student = (
            network(scenario.teacher, scenario.image_px),
            network(scenario.student, scenario.image_px),
        )
    task = FourDs(
        teacher,
        student,
        teacher_stages=stage_names(BackboneConfig(arch=scenario.teacher), teacher),
        student_stages=stage_names(BackboneConfig(arch=scenario.student), student),
        config=MethodConfig(),
        image_size=scenario.image_px,
    ).train()
    kind = "ddp" if scenario.strategy.startswith("ddp") else "deepspeed"
    strategy = make_strategy(
        kind,
        world,
        OptimConfig(),
        10**6,
        deepspeed=scenario.strategy,
        all_reduce="bfloat16" if scenario.strategy == "ddp_bfloat16" else "float32",
    )
    train_step = TrainStep(
        task.to(world.device),
        world,
        StepConfig(
            precision=scenario.precision,  # pyright: ignore[reportArgumentType]
            cuda_graph=scenario.cuda_graph,
            activation_checkpointing=scenario.activation_checkpointing,
        ),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        global_batch_size=scenario.batch_per_worker * scenario.workers,
        strategy=strategy,
    )
    n, px, device = scenario.batch_per_worker, scenario.image_px, world.device
    batch = Batch(
        images=torch.randint(0, 256, (n, 3, px, px), dtype=torch.uint8, device=device),
        labels=torch.randint(0, NUM_CLASSES, (n,), device=device),
        flip=torch.zeros(n, dtype=torch.bool, device=device),
        keys=[""] * n,
    )
    return StepOfRun(train_step, strategy, batch)


def rounds_of(step: StepOfRun, scenario: ScalingCase, world: World) -> tuple[list[float], list[float]]:
    """Return images/s of all workers together, and the host's share of time, by round.

    A round ends when the last worker is done.
    """

    idle = DeviceIdle() if world.device.type == "cuda" else None

    def wait() -> None:
        if world.device.type == "cuda":
            torch.cuda.synchronize()
        if dist.is_initialized():
            dist.barrier()

    for _ in range(WARM_UP_STEPS):
        step()
    wait()
    if world.device.type == "cuda":
        torch.cuda.empty_cache()  # memory of the convolution algorithms that were tried
        torch.cuda.reset_peak_memory_stats()
    rates, host_shares = [], []
    for _ in range(NUM_ROUNDS):
        wait()
        began = time.perf_counter()
        for _ in range(scenario.num_steps):
            if idle:
                idle.step_starts()
            step()
            if idle:
                idle.step_ends()
        queued = time.perf_counter()
        wait()
        ended = time.perf_counter()
        rates.append(scenario.num_steps * scenario.batch_per_worker * scenario.workers / (ended - began))
        idle_s = idle.take_s() if idle else 0.0
        host_s = idle_s if step.train_step.is_captured else queued - began
        host_shares.append(host_s / (ended - began))
        if idle:
            idle.restart()
    return rates, host_shares


def network(arch: str, image_px: int) -> nn.Module:
    """Return a network of an architecture, with NUM_CLASSES outputs."""
    return build_backbone(BackboneConfig(arch=arch), NUM_CLASSES, image_px)
