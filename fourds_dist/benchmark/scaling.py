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
import gc
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fourds_dist.benchmark.scaling_step import ScalingCase, network, work
from fourds_dist.benchmark.step import known_architectures
from fourds_dist.benchmark.timing import device_name
from fourds_dist.cli.option_types import MOST, output_file, whole
from fourds_dist.models.backbones import num_parameters
from fourds_dist.training.distributed.world import World

HOST_BOUND = {True: 0.05, False: 0.95}
"""Whether steps are captured -> share from which the host is the bottleneck."""
THROUGH = ("spawn", "torchrun", "ray")
STRATEGIES = ("ddp", "ddp_bfloat16", "zero0", "zero1", "zero2", "zero3", "zero3_offload")


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
    _leave_group()


def _leave_group() -> None:
    """End the process group, after a DeepSpeed engine that may hold its groups: their threads could abort the exit."""
    gc.collect()
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


def _num_parameters(arch: str, image_px: int) -> int:
    with torch.device("meta"):
        return num_parameters(network(arch, image_px))


if __name__ == "__main__":  # torchrun's workers
    (given,) = sys.argv[1:]
    work(ScalingCase(**json.loads((Path(given) / "job.json").read_text())), World.join(), given)
    _leave_group()
