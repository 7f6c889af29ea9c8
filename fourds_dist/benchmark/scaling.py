"""Training on several devices or processes: speed, efficiency, cost of communication and of Python, and memory.

    python -m fourds_dist.benchmark scaling --workers 1 2 --batch 256 --json scaling.json
    python -m fourds_dist.benchmark scaling --workers 1 2 --batch 256 --scaling weak strong --through torchrun
    python -m fourds_dist.benchmark scaling --workers 2 --strategies ddp zero1 zero2 zero3
    python -m fourds_dist.benchmark scaling --workers 2 --batch 32 --teacher vit_l_16 --student resnet18 \
        --strategies ddp zero1 zero2 zero3 zero3_offload

The third command measures the cost of the strategies, the fourth their memory with a large teacher. One command starts
all its processes, on GPUs with NCCL, else on CPUs with gloo. `weak`: --batch images per worker. `strong`: --batch
images in total. Every row is the default step of a run, for one worker and for several.

efficiency      images/s / (workers x images/s of one worker), if 1 is among --workers
communication   share of a step's time that summing the gradients adds (DDP only; ZeRO has no step without it)
exposed         share of a step in which the device waits for all-reduces after the backward pass (GPUs)
host            share of time in which the device waits for Python between captured steps (GPUs); without a CUDA graph,
                time to queue a step / time of the step: near 1, the device waits for Python

Synthetic images stay on the device; a step includes its optimisers. Rounds are timed after a warm-up; figures are
medians.
A slow network between GPUs of one host: NCCL_P2P_DISABLE=1 NCCL_SHM_DISABLE=1 NCCL_NET=Socket before the command.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fourds_dist.benchmark.step import known_architectures
from fourds_dist.benchmark.timing import device_name
from fourds_dist.cli.option_types import MOST, output_file, whole
from fourds_dist.data.stream.batch import Batch
from fourds_dist.method import BackboneConfig, FourDs, MethodConfig, build_backbone
from fourds_dist.models.backbones import num_parameters, stage_names
from fourds_dist.training.device_idle import DeviceIdle
from fourds_dist.training.distributed.world import World
from fourds_dist.training.step import StepConfig, TrainStep
from fourds_dist.training.strategies.base import Strategy
from fourds_dist.training.strategies.build import make_strategy
from fourds_dist.training.strategies.optim import OptimConfig

NUM_CLASSES = 65
NUM_ROUNDS, WARM_UP_STEPS = 5, 3
HOST_BOUND = {True: 0.05, False: 0.95}
"""Whether steps are captured -> share from which the host is the bottleneck."""
THROUGH = ("spawn", "torchrun", "ray")
STRATEGIES = ("ddp", "ddp_bfloat16", "zero0", "zero1", "zero2", "zero3", "zero3_offload")


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


@dataclass(frozen=True)
class ScalingResult:
    """One line of the table."""

    strategy: str
    scaling: str
    workers: int
    batch_per_worker: int
    images_per_s: float
    rounds: list[float]
    peak_bytes_per_worker: int
    """Peak GPU memory reserved by PyTorch, of the worker with the largest; 0 on CPUs."""
    is_captured: bool = False
    host_share: float | None = None
    exposed_share: float | None = None
    communication_share: float | None = None
    efficiency: float | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `scaling`."""
    parser.add_argument(
        "--workers", type=whole(1, MOST), nargs="+", default=[1, 2], help="numbers of workers"
    )
    parser.add_argument(
        "--batch", type=whole(1, MOST), default=256, help="images per worker (weak) or in total (strong)"
    )
    parser.add_argument("--scaling", nargs="+", choices=("weak", "strong"), default=["weak"])
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=["ddp"])
    parser.add_argument("--teacher", default="resnet34", help="architecture, as teacher.arch")
    parser.add_argument("--student", default="resnet18", help="architecture, as student.arch")
    parser.add_argument("--image-px", type=whole(1, MOST), default=224)
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--steps", type=whole(1, MOST), default=20, help="steps of a round")
    parser.add_argument(
        "--cuda-graph",
        choices=("auto", "true", "false"),
        default="auto",
        help="as step.cuda_graph; auto: null",
    )
    parser.add_argument("--through", choices=THROUGH, default="spawn", help="launcher of the workers")
    parser.add_argument(
        "--activation-checkpointing", action="store_true", help="as step.activation_checkpointing"
    )
    parser.add_argument("--json", type=output_file, help="file for the figures")


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    known_architectures(options.teacher, options.student)
    rows: list[ScalingResult] = []
    for scaling in options.scaling:
        for strategy in options.strategies:
            one_worker: ScalingResult | None = None
            for workers in sorted(options.workers):
                scenario = ScalingCase(
                    strategy,
                    workers,
                    options.batch if scaling == "weak" else max(1, options.batch // workers),
                    options.teacher,
                    options.student,
                    options.image_px,
                    options.precision,
                    options.steps,
                    {"auto": None, "true": True, "false": False}[options.cuda_graph],
                    options.activation_checkpointing,
                    scaling,
                    options.through,
                )
                row = measure(scenario)
                one_worker = row if workers == 1 else one_worker
                if one_worker is not None:
                    row = replace(row, efficiency=row.images_per_s / (workers * one_worker.images_per_s))
                rows.append(row)
                print(shown(row), flush=True)
                if row.host_share is not None and row.host_share > HOST_BOUND[row.is_captured]:
                    print("       host-bound: the GPU waits for Python", flush=True)
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


def shown(row: ScalingResult) -> str:
    """Return one line of the table."""
    efficiency, communication, exposed, host = (
        f"{x:6.1%}" if x is not None else "     -"
        for x in (row.efficiency, row.communication_share, row.exposed_share, row.host_share)
    )
    return (
        f"{row.scaling:6} {row.strategy:13} {row.workers:3} x {row.batch_per_worker:<4} "
        f"{row.images_per_s:9.1f} images/s  efficiency {efficiency}  communication {communication}  "
        f"exposed {exposed}  host {host}  {row.peak_bytes_per_worker / 2**30:6.2f} GiB"
    )


def measure(scenario: ScalingCase) -> ScalingResult:
    """Run one measurement, with one process per worker."""
    with tempfile.TemporaryDirectory() as folder:
        match scenario.through:
            case "spawn":
                mp.spawn(_spawned, (scenario, folder), nprocs=scenario.workers)  # pyright: ignore[reportPrivateImportUsage]
            case "torchrun":
                _through_torchrun(scenario, folder)
            case "ray":
                _through_ray(scenario, folder)
        return ScalingResult(**json.loads((Path(folder) / "row.json").read_text()))


def _spawned(rank: int, scenario: ScalingCase, folder: str) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    if scenario.workers > 1 or not scenario.strategy.startswith("ddp"):
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        group = f"file://{folder}/group"
        dist.init_process_group(backend, init_method=group, rank=rank, world_size=scenario.workers)
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    work(scenario, World(rank, scenario.workers, device), folder)
    if dist.is_initialized():
        dist.destroy_process_group()


def _through_torchrun(scenario: ScalingCase, folder: str) -> None:
    (Path(folder) / "job.json").write_text(json.dumps(asdict(scenario)))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(scenario.workers),
    ]
    subprocess.run([*command, "-m", "fourds_dist.benchmark.scaling", folder], check=True)


def _through_ray(scenario: ScalingCase, folder: str) -> None:
    import fourds_dist.launch.ray.cluster  # noqa: F401  # isort: skip  (sets Ray's environment first)
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    ray.init(ignore_reinit_error=True, include_dashboard=False, log_to_driver=False)
    TorchTrainer(
        _ray_worker,
        train_loop_config={"job": asdict(scenario), "folder": folder},
        scaling_config=ScalingConfig(num_workers=scenario.workers, use_gpu=torch.cuda.is_available()),
        run_config=RunConfig(name="scaling", storage_path=folder),
    ).fit()


def _ray_worker(config: dict[str, Any]) -> None:
    work(ScalingCase(**config["job"]), World.join(), config["folder"])


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
            _network(scenario.teacher, scenario.image_px),
            _network(scenario.student, scenario.image_px),
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


def _network(arch: str, image_px: int) -> Any:
    return build_backbone(BackboneConfig(arch=arch), NUM_CLASSES, image_px)


def _num_parameters(arch: str, image_px: int) -> int:
    with torch.device("meta"):
        return num_parameters(_network(arch, image_px))


if __name__ == "__main__":  # torchrun's workers
    (given,) = sys.argv[1:]
    work(ScalingCase(**json.loads((Path(given) / "job.json").read_text())), World.join(), given)
    dist.destroy_process_group()
