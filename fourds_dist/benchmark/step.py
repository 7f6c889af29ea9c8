"""Whole training steps: released form, ours, and the ceiling, the same networks without any Fourier part.

    python -m fourds_dist.benchmark step --device cuda --json step.json

ResNet34 -> ResNet18 with 65 classes at 224 on synthetic images that already lie on the device (the loader has a
benchmark of its own). Rows are timed in turn, several rounds in one process, and compared round by round; a step
includes its optimisers. The ceiling keeps adapters' convolutions and drops every transform and the phase loss.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fourds_dist.data.batch import Batch
from fourds_dist.method import BackboneConfig, FourDs, MethodConfig, build_backbone
from fourds_dist.method.adapter import FourierAdapter
from fourds_dist.ops import use_backend
from fourds_dist.training.optim import OptimConfig, Optimizers
from fourds_dist.training.step import StepConfig, TrainStep
from fourds_dist.training.world import World

STAGES = ("layer1", "layer2", "layer3", "layer4")
NUM_CLASSES = 65
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

RELEASED = "released form, float32"
CEILING, CEILING_COMPILED = "no Fourier, bfloat16", "no Fourier, bfloat16, compiled"
FAST, FAST_COMPILED = "4Ds fast, bfloat16", "4Ds fast, bfloat16, compiled"


class ConvolutionalAdapter(FourierAdapter):
    """The adapter without its transforms: the mix of amplitudes becomes a mix of the maps."""

    def forward(self, h: Tensor) -> Tensor:
        w = self.mix_weights().to(h.dtype)
        return w[0] * self.fc(h) + w[1] * h


def build_task(preset: str, *, fourier: bool, image_size: int) -> FourDs:
    """The pair of networks under 4Ds; without `fourier`, the ceiling."""
    config = MethodConfig.model_validate({"preset": preset} | ({} if fourier else {"phase_loss": "none"}))
    task = FourDs(
        build_backbone(BackboneConfig(arch="resnet34"), NUM_CLASSES),
        build_backbone(BackboneConfig(arch="resnet18"), NUM_CLASSES),
        teacher_stages=STAGES,
        student_stages=STAGES,
        config=config,
        image_size=image_size,
    )
    if not fourier:
        for i, adapter in enumerate(task.adapters):
            channels = adapter.fc[0].in_channels  # pyright: ignore
            task.adapters[i] = ConvolutionalAdapter(channels)
    return task.train()


def build_step(row: str, batch: int, image_size: int, device: torch.device) -> Callable[[], None]:
    """One row's training step, as a call without arguments."""
    torch.manual_seed(0)
    world = World(0, 1, device)
    released = row == RELEASED
    task = build_task(
        "authors" if released else "mended", fourier=not row.startswith("no Fourier"), image_size=image_size
    )
    task.to(device)
    config = StepConfig(
        precision="float32" if released else "auto",
        channels_last=not released,
        compile=row.endswith("compiled"),
        cuda_graph=False if released else None,
    )
    step = TrainStep(task, world, config, mean=MEAN, std=STD)
    optimizers = Optimizers(task.parameter_groups(), OptimConfig(), num_steps=10**6)
    images = torch.randint(0, 256, (batch, 3, image_size, image_size), dtype=torch.uint8, device=device)
    labels = torch.randint(0, NUM_CLASSES, (batch,), device=device)
    data = Batch(
        images=images,
        labels=labels,
        flip=torch.zeros(batch, dtype=torch.bool, device=device),
        from_source=torch.zeros(batch, dtype=torch.bool),
        keys=[""] * batch,
    )

    def run() -> None:
        with use_backend("reference" if released else None):
            step(data)
        optimizers.step()

    return run


def measure(row: str, batch: int, image_size: int, device: torch.device, num_steps: int) -> dict[str, Any]:
    """Images/s (median over rounds of `num_steps`) and peak memory of one row."""
    on_gpu = device.type == "cuda"
    run = build_step(row, batch, image_size, device)
    for _ in range(4):
        run()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    rounds = []
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(num_steps):
            run()
        if on_gpu:
            torch.cuda.synchronize()
        rounds.append(batch * num_steps / (time.perf_counter() - began))
    # A replayed graph keeps its memory reserved instead of allocating it: count what the process holds.
    peak = max(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()) if on_gpu else 0
    return {
        "row": row,
        "batch": batch,
        "images_per_s": statistics.median(rounds),
        "rounds": rounds,
        "peak_bytes": peak,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `benchmark step`."""
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128, 256])
    parser.add_argument("--image-size", type=int, default=224, help="side in pixels")
    parser.add_argument("--steps", type=int, default=20, help="steps in each of three timed rounds")
    parser.add_argument(
        "--compile", action="store_true", help="also the rows under torch.compile (a minute each)"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")


def run(options: argparse.Namespace) -> None:
    """Measure and print the table."""
    device = torch.device(options.device)
    # The released code runs float32 with TensorFloat-32 convolutions, PyTorch's default; matrix products likewise.
    torch.backends.cudnn.benchmark = True
    rows = [RELEASED, CEILING, FAST] + ([CEILING_COMPILED, FAST_COMPILED] if options.compile else [])
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(
        f"4Ds step, ResNet34 -> ResNet18, {options.image_size} px, synthetic; {name}, torch {torch.__version__}"
    )
    print(
        f"{'batch':>5}  {'row':30} {'images/s':>9} {'/ released':>10} {'/ ceiling':>9} {'GiB':>6} {'/ released':>10}"
    )
    results: list[dict[str, Any]] = []
    for batch in options.batches:
        measured: dict[str, dict[str, Any]] = {}
        for row in rows:
            measured[row] = figures = measure(row, batch, options.image_size, device, options.steps)
            gc.collect()
            torch.cuda.empty_cache()
            ceiling = measured.get(CEILING_COMPILED if row == FAST_COMPILED else CEILING, figures)
            figures["speed_over_released"] = figures["images_per_s"] / measured[RELEASED]["images_per_s"]
            figures["speed_over_ceiling"] = figures["images_per_s"] / ceiling["images_per_s"]
            figures["memory_over_released"] = figures["peak_bytes"] / max(1, measured[RELEASED]["peak_bytes"])
            print(
                f"{batch:5d}  {row:30} {figures['images_per_s']:9.0f} {figures['speed_over_released']:10.2f} "
                f"{figures['speed_over_ceiling']:9.3f} {figures['peak_bytes'] / 2**30:6.2f} "
                f"{figures['memory_over_released']:10.3f}",
                flush=True,
            )
        results.extend(measured.values())
    if options.json:
        about = {"device": name, "torch": torch.__version__, "image_size": options.image_size}
        options.json.write_text(json.dumps({**about, "rows": results}, indent=2) + "\n")
