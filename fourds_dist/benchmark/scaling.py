"""Training over several devices or processes: speed, efficiency, share of communication, and memory by strategy.

    python -m fourds_dist.benchmark scaling --workers 1 2 --batch 256 --json scaling.json
    python -m fourds_dist.benchmark scaling --workers 2 --strategies ddp zero1 zero2 zero3
    python -m fourds_dist.benchmark scaling --workers 2 --batch 32 --teacher vit_l_16 --student resnet18 \
        --strategies ddp zero1 zero2 zero3 zero3_offload

What a strategy costs is in the second, what it saves with a large teacher in the third. One command starts all its
processes, on GPUs with NCCL, else on CPUs with gloo. `weak`: --batch images in every worker. `strong`: --batch images
in all together.
Efficiency is images/s over workers times one worker's, where one worker is among --workers. The share of communication
is what steps take longer than the same steps without averaging gradients (DDP only: ZeRO cannot do without).
Synthetic images lie on the device; a step includes its optimisers. Rounds are timed after a warm-up; the median counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fourds_dist.benchmark.timing import device_name
from fourds_dist.data.batch import Batch
from fourds_dist.method import BackboneConfig, FourDs, MethodConfig, build_backbone
from fourds_dist.method.backbones import num_parameters, stage_names
from fourds_dist.training.optim import OptimConfig
from fourds_dist.training.step import StepConfig, TrainStep
from fourds_dist.training.strategy import make_strategy
from fourds_dist.training.world import World

NUM_CLASSES = 65
NUM_ROUNDS, WARM_UP_STEPS = 5, 3
STRATEGIES = ("ddp", "ddp_bfloat16", "zero0", "zero1", "zero2", "zero3", "zero3_offload")


@dataclass(frozen=True)
class Job:
    """What one group of workers measures."""

    strategy: str
    workers: int
    batch_per_worker: int
    teacher: str
    student: str
    image_px: int
    precision: str
    num_steps: int
    cuda_graph: bool
    activation_checkpointing: bool
    scaling: str = "weak"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    strategy: str
    scaling: str
    workers: int
    batch_per_worker: int
    images_per_s: float
    rounds: list[float]
    peak_bytes_per_worker: int
    """What tensors take at most in a timed step, on the worker that takes most; 0 on CPUs."""
    communication_share: float | None = None
    efficiency: float | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `scaling`."""
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of workers")
    parser.add_argument("--batch", type=int, default=256, help="images per worker (weak) or in all (strong)")
    parser.add_argument("--scaling", nargs="+", choices=("weak", "strong"), default=["weak"])
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=["ddp"])
    parser.add_argument("--teacher", default="resnet34", help="architecture, as teacher.arch")
    parser.add_argument("--student", default="resnet18", help="architecture, as student.arch")
    parser.add_argument("--image-px", type=int, default=224)
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--steps", type=int, default=20, help="steps of a round")
    parser.add_argument(
        "--cuda-graph", action="store_true", help="record one worker's step, as runs on one GPU do"
    )
    parser.add_argument(
        "--activation-checkpointing", action="store_true", help="as step.activation_checkpointing"
    )
    parser.add_argument("--json", type=Path, help="file for the figures")


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    rows: list[Row] = []
    for scaling in options.scaling:
        for strategy in options.strategies:
            alone: Row | None = None
            for workers in sorted(options.workers):
                job = Job(
                    strategy,
                    workers,
                    options.batch if scaling == "weak" else max(1, options.batch // workers),
                    options.teacher,
                    options.student,
                    options.image_px,
                    options.precision,
                    options.steps,
                    options.cuda_graph and workers == 1,
                    options.activation_checkpointing,
                    scaling,
                )
                row = measure(job)
                alone = row if workers == 1 else alone
                if alone is not None:
                    row = replace(row, efficiency=row.images_per_s / (workers * alone.images_per_s))
                rows.append(row)
                print(shown(row), flush=True)
    if options.json:
        about = {
            "device": device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
            "torch": torch.__version__,
            "options": {k: v for k, v in vars(options).items() if isinstance(v, (int, str, list))},
            "parameters": {
                "teacher": _num_parameters(options.teacher, options.image_px),
                "student": _num_parameters(options.student, options.image_px),
            },
        }
        options.json.write_text(json.dumps(about | {"rows": [asdict(row) for row in rows]}, indent=2) + "\n")


def shown(row: Row) -> str:
    """One line."""
    efficiency, share = (
        f"{x:6.1%}" if x is not None else "     -" for x in (row.efficiency, row.communication_share)
    )
    return (
        f"{row.scaling:6} {row.strategy:13} {row.workers:3} x {row.batch_per_worker:<4} "
        f"{row.images_per_s:9.1f} images/s  efficiency {efficiency}  communication {share}  "
        f"{row.peak_bytes_per_worker / 2**30:6.2f} GiB"
    )


def measure(job: Job) -> Row:
    """Time one job in as many processes as it has workers."""
    with tempfile.TemporaryDirectory() as name:
        mp.spawn(_worker, (job, name), nprocs=job.workers)  # pyright: ignore[reportPrivateImportUsage]
        return Row(**json.loads((Path(name) / "row.json").read_text()))


def _worker(rank: int, job: Job, folder: str) -> None:
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    if job.workers > 1 or not job.strategy.startswith("ddp"):
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            init_method=f"file://{folder}/group",
            rank=rank,
            world_size=job.workers,
        )
    world = World(rank, job.workers, device)
    step, no_averaging = build(job, world)
    times = [1 / r for r in rounds_of(step, job, world)]
    peak = torch.cuda.max_memory_allocated() if on_gpu else 0
    share = None
    if job.strategy.startswith("ddp") and job.workers > 1:
        with no_averaging():
            alone = statistics.median(1 / r for r in rounds_of(step, job, world))
        share = max(0.0, 1 - alone / statistics.median(times))
    peaks = world.gather(peak)
    if world.is_main:
        row = {
            "strategy": job.strategy,
            "scaling": job.scaling,
            "workers": job.workers,
            "batch_per_worker": job.batch_per_worker,
            "images_per_s": statistics.median(1 / t for t in times),
            "rounds": [1 / t for t in times],
            "peak_bytes_per_worker": max(peaks),
            "communication_share": share,
        }
        (Path(folder) / "row.json").write_text(json.dumps(row))
    if dist.is_initialized():
        dist.destroy_process_group()


def build(job: Job, world: World) -> tuple[Callable[[], None], Callable[[], AbstractContextManager]]:
    """A training step as a call, and a context in which it does not average gradients."""
    torch.manual_seed(0)
    with world.device:  # a large teacher's weights are drawn there in no time
        teacher, student = _network(job.teacher, job.image_px), _network(job.student, job.image_px)
    task = FourDs(
        teacher,
        student,
        teacher_stages=stage_names(BackboneConfig(arch=job.teacher), teacher),
        student_stages=stage_names(BackboneConfig(arch=job.student), student),
        config=MethodConfig(),
        image_size=job.image_px,
    ).train()
    kind = "ddp" if job.strategy.startswith("ddp") else "deepspeed"
    strategy = make_strategy(
        kind,
        world,
        OptimConfig(),
        10**6,
        deepspeed=job.strategy,
        all_reduce="bfloat16" if job.strategy == "ddp_bfloat16" else "float32",
    )
    step = TrainStep(
        task.to(world.device),
        world,
        StepConfig(
            precision=job.precision,  # pyright: ignore[reportArgumentType]
            cuda_graph=job.cuda_graph,
            activation_checkpointing=job.activation_checkpointing,
        ),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        global_batch_size=job.batch_per_worker * job.workers,
        strategy=strategy,
    )
    n, px, device = job.batch_per_worker, job.image_px, world.device
    data = Batch(
        images=torch.randint(0, 256, (n, 3, px, px), dtype=torch.uint8, device=device),
        labels=torch.randint(0, NUM_CLASSES, (n,), device=device),
        flip=torch.zeros(n, dtype=torch.bool, device=device),
        from_source=torch.zeros(n, dtype=torch.bool, device=device),
        keys=[""] * n,
    )

    def call() -> None:
        step(data)
        strategy.step()

    return call, strategy.gradients_stay_local if kind == "ddp" else nullcontext


def rounds_of(step: Callable[[], None], job: Job, world: World) -> list[float]:
    """Images/s of all workers together, round by round; a round ends when the last worker is through."""

    def wait() -> None:
        if world.device.type == "cuda":
            torch.cuda.synchronize()
        world.barrier()

    for _ in range(WARM_UP_STEPS):
        step()
    if world.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()  # DeepSpeed starts from whole weights
    rates = []
    for _ in range(NUM_ROUNDS):
        wait()
        began = time.perf_counter()
        for _ in range(job.num_steps):
            step()
        wait()
        rates.append(job.num_steps * job.batch_per_worker * job.workers / (time.perf_counter() - began))
    return rates


def _network(arch: str, image_px: int) -> Any:
    return build_backbone(BackboneConfig(arch=arch), NUM_CLASSES, image_px)


def _num_parameters(arch: str, image_px: int) -> int:
    with torch.device("meta"):
        return num_parameters(_network(arch, image_px))
