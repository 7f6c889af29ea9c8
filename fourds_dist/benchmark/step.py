"""Training steps: released form, this implementation, and an upper bound without Fourier operators.

    python -m fourds_dist.benchmark step --device cuda --json step.json
    python -m fourds_dist.benchmark step --rows released fast fast-compiled fast-two-streams
    python -m fourds_dist.benchmark step --rows fast trivial-augment rand-augment jitter erasing mixing --batches 64

ResNet34 -> ResNet18 with 65 classes at 224 px on synthetic images that stay on the device (the loader has a separate
benchmark). All rows are timed in one process, each in three rounds; a step includes its optimisers. The upper bound
("ceiling") has the adapters' convolutions, but no Fourier transforms and no phase loss.

Memory is given twice, each with its ratio to the tensors of the released form. "held": peak of the memory that PyTorch
has reserved, which includes the memory of a CUDA graph between replays (released form: peak of its tensors). "tensors":
peak of the tensors in the same step without a graph. Host time is the time in which Python queues a step; if it is
close to the time of the step, the device waits for Python.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fourds_dist.benchmark.synthetic_draws import synthetic_draws
from fourds_dist.benchmark.timing import device_name, usable_device
from fourds_dist.cli.option_types import MOST, output_file, whole
from fourds_dist.data.augment.config import AugmentConfig
from fourds_dist.data.stream.batch import Batch
from fourds_dist.method import BackboneConfig, FourDs, MethodConfig, build_backbone
from fourds_dist.method.adapter import FourierAdapter
from fourds_dist.models.backbones import stage_names
from fourds_dist.models.feature_hooks import FeatureHooks
from fourds_dist.ops import use_backend
from fourds_dist.training.distributed.world import World
from fourds_dist.training.step import StepConfig, TrainStep
from fourds_dist.training.strategies.optim import OptimConfig, TaskOptimizers

NETWORKS = ("resnet34", "resnet18")
"""Architectures of teacher and student."""
NUM_CLASSES = 65
NUM_ROUNDS = 3
WARM_UP_STEPS = 4
NOT_AUGMENTED = AugmentConfig()


@dataclass(frozen=True)
class Form:
    """A variant of the training step."""

    shown: str
    released: bool = False
    fourier: bool = True
    compile: bool = False
    two_streams: bool = False
    memory_saving: bool = True
    norm: Literal["torch", "fused"] | None = None
    augment: AugmentConfig = NOT_AUGMENTED


FORMS = {
    "released": Form("released form, float32", released=True, memory_saving=False, norm="torch"),
    "ceiling": Form("no Fourier, bfloat16", fourier=False),
    "fast": Form("4Ds, bfloat16"),
    "ceiling-compiled": Form("no Fourier, bfloat16, compiled", fourier=False, compile=True),
    "fast-compiled": Form("4Ds, bfloat16, compiled", compile=True),
    "fast-two-streams": Form("4Ds, bfloat16, two streams", two_streams=True),
    "ceiling-torch-norm": Form("no Fourier, bfloat16, PyTorch's norm", fourier=False, norm="torch"),
    "fast-torch-norm": Form("4Ds, bfloat16, PyTorch's norm", norm="torch"),
    "fast-no-memory-saving": Form("4Ds, bfloat16, PyTorch's layers", memory_saving=False),
    "trivial-augment": Form("fast, TrivialAugment", augment=AugmentConfig(policy="trivial_augment")),
    "rand-augment": Form("fast, RandAugment", augment=AugmentConfig(policy="rand_augment")),
    "jitter": Form(
        "fast, colour jitter", augment=AugmentConfig(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    ),
    "erasing": Form("fast, random erasing", augment=AugmentConfig(erasing_probability=0.25)),
    "mixing": Form("fast, mixup and cutmix", augment=AugmentConfig(mixup_alpha=0.2, cutmix_alpha=1.0)),
}


@dataclass(frozen=True)
class StepResult:
    """One row of the table; a ratio is None if its reference row was not measured."""

    form: str
    batch: int
    images_per_s: float  # median over the rounds
    rounds: list[float]
    host_ms: float  # per step
    peak_bytes: int
    tensor_bytes: int = 0  # 0: not measured
    speed_over_released: float | None = None
    speed_over_ceiling: float | None = None
    memory_over_released: float | None = None
    tensors_over_released: float | None = None


class ConvolutionalAdapter(FourierAdapter):
    """The adapter without Fourier transforms: mixes the feature maps instead of their amplitudes."""

    def forward(self, h: Tensor) -> Tensor:
        w = self.mix_weights().to(h.dtype)
        return w[0] * self.fc(h) + w[1] * h


class FourDsOnTwoStreams(FourDs):
    """4Ds with the teacher on a second CUDA stream, concurrent with the student in the forward and backward passes.

    The gain is largest if neither network fills the device: about a fifth expected at batch 32, almost none at 256.
    """

    def _run(self, network: nn.Module, hooks: FeatureHooks, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        if network is self.teacher:
            return self.ahead.pop()
        main, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            logits, maps = super()._run(self.teacher, self._teacher_hooks, images)
        own = super()._run(network, hooks, images)
        main.wait_stream(side)
        images.record_stream(side)
        for x in (logits, *maps):
            x.record_stream(main)
        self.ahead = [(logits, maps)]
        return own


def build_task(form: Form, image_size: int, archs: tuple[str, str] = NETWORKS) -> FourDs:
    """Build the task of a variant.

    Args:
        archs: architectures of teacher and student.
    """
    configs = [BackboneConfig(arch=arch) for arch in archs]
    networks = [build_backbone(config, NUM_CLASSES, image_size) for config in configs]
    stages = [stage_names(*pair) for pair in zip(configs, networks, strict=True)]
    preset = "4ds_released" if form.released else "4ds"
    config = MethodConfig.model_validate(
        {"preset": preset} | ({} if form.fourier else {"phase_loss": "none"})
    )
    task = (FourDsOnTwoStreams if form.two_streams else FourDs)(
        *networks,
        teacher_stages=stages[0],
        student_stages=stages[1],
        config=config,
        image_size=image_size,
    )
    if not form.fourier:
        for i, adapter in enumerate(task.adapters):
            task.adapters[i] = ConvolutionalAdapter(adapter.fc[0].in_channels)  # pyright: ignore
    return task.train()


def build_step(
    form: Form,
    batch: int,
    image_size: int,
    device: torch.device,
    *,
    graph: bool = True,
    archs: tuple[str, str] = NETWORKS,
) -> Callable[[], None]:
    """Return a training step with its optimisers, as a call without arguments.

    Args:
        graph: False: no CUDA graph in any variant.
        archs: architectures of teacher and student.
    """
    torch.manual_seed(0)
    task = build_task(form, image_size, archs).to(device)
    config = StepConfig(
        precision="float32" if form.released else "auto",
        channels_last=not form.released,
        compile=form.compile,
        cuda_graph=None if graph and not form.released else False,
        memory_saving=form.memory_saving,
        norm=form.norm,
    )
    step = TrainStep(task, World(0, 1, device), config, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    optimizers = TaskOptimizers(task.parameter_groups(), OptimConfig(), num_steps=10**6)
    data = Batch(
        images=torch.randint(0, 256, (batch, 3, image_size, image_size), dtype=torch.uint8, device=device),
        labels=torch.randint(0, NUM_CLASSES, (batch,), device=device),
        flip=torch.zeros(batch, dtype=torch.bool, device=device),
        keys=[""] * batch,
    )
    batches = itertools.cycle(
        replace(data, draws=draws and draws.mapped(lambda x: x.to(device)))
        for draws in synthetic_draws(form.augment, batch, image_size)
    )

    def run() -> None:
        with use_backend("reference" if form.released else None):
            step(next(batches))
        optimizers.step()

    return run


def measure(name: str, batch: int, image_size: int, device: torch.device, num_steps: int) -> StepResult:
    """Measure speed and memory of one variant at one batch size."""
    on_gpu = device.type == "cuda"
    run = build_step(FORMS[name], batch, image_size, device)
    for _ in range(WARM_UP_STEPS):
        run()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    rounds, host_s = [], []
    for _ in range(NUM_ROUNDS):
        began = time.perf_counter()
        for _ in range(num_steps):
            run()
        host_s.append(time.perf_counter() - began)
        if on_gpu:
            torch.cuda.synchronize()
        rounds.append(batch * num_steps / (time.perf_counter() - began))
    peak = tensors = 0
    if on_gpu:
        form = FORMS[name]
        peak = torch.cuda.max_memory_allocated() if form.released else torch.cuda.max_memory_reserved()
        del run
        tensors = peak if form.released else tensor_bytes(form, batch, image_size, device)
    return StepResult(
        form=name,
        batch=batch,
        images_per_s=statistics.median(rounds),
        rounds=rounds,
        host_ms=1e3 * statistics.median(host_s) / num_steps,
        peak_bytes=peak,
        tensor_bytes=tensors,
    )


def tensor_bytes(form: Form, batch: int, image_size: int, device: torch.device) -> int:
    """Return the peak of the tensors in a step without a graph; 0 for compiled variants, which would compile again."""
    if form.compile:
        return 0
    release()
    run = build_step(form, batch, image_size, device, graph=False)
    for _ in range(WARM_UP_STEPS):
        run()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated()


def release() -> None:
    """Free unused memory before the next row."""
    gc.collect()
    torch.cuda.empty_cache()


def compared(row: StepResult, others: dict[str, StepResult]) -> StepResult:
    """Return the row with its ratios to rows of the same batch size; the ceiling has the same compilation and norms."""
    released, form = others.get("released"), FORMS[row.form]
    ceiling = others.get(
        "ceiling-compiled" if form.compile else "ceiling-torch-norm" if form.norm == "torch" else "ceiling"
    )
    figures = asdict(row)
    if released is not None:
        figures["speed_over_released"] = row.images_per_s / released.images_per_s
        if released.peak_bytes:
            figures["memory_over_released"] = row.peak_bytes / released.peak_bytes
            figures["tensors_over_released"] = (row.tensor_bytes / released.peak_bytes) or None
    if ceiling is not None:
        figures["speed_over_ceiling"] = row.images_per_s / ceiling.images_per_s
    return StepResult(**figures)


HEADING = (
    f"{'batch':>5}  {'form':32} {'images/s':>9} {'/ released':>10} {'/ ceiling':>9} {'host ms':>8} "
    f"{'held GiB':>8} {'/ released':>10} {'tensors GiB':>11} {'/ released':>10}"
)


def line_of(row: StepResult) -> str:
    """Return one line of the table."""

    def ratio(value: float | None, width: int) -> str:
        return " " * width if value is None else f"{value:{width}.3f}"

    return (
        f"{row.batch:5d}  {FORMS[row.form].shown:32} {row.images_per_s:9.0f} {ratio(row.speed_over_released, 10)} "
        f"{ratio(row.speed_over_ceiling, 9)} {row.host_ms:8.2f} {row.peak_bytes / 2**30:8.2f} "
        f"{ratio(row.memory_over_released, 10)} {ratio(row.tensor_bytes / 2**30 or None, 11)} "
        f"{ratio(row.tensors_over_released, 10)}"
    ).rstrip()


def known_architectures(*names: str) -> None:
    """Refuse architectures that cannot be built.

    Raises:
        ValueError: an unknown architecture; the message names it.
    """
    with torch.device("meta"):
        for name in names:
            build_backbone(BackboneConfig(arch=name), NUM_CLASSES)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `benchmark step`."""
    parser.add_argument(
        "--device", type=usable_device, default="cuda" if torch.cuda.is_available() else "cpu"
    )
    parser.add_argument("--batches", type=whole(1, MOST), nargs="+", default=[32, 128, 256])
    parser.add_argument("--rows", nargs="+", default=["released", "ceiling", "fast"], choices=list(FORMS))
    parser.add_argument("--image-size", type=whole(1, MOST), default=224, help="side in pixels")
    parser.add_argument(
        "--steps", type=whole(1, MOST), default=20, help="steps in each of three timed rounds"
    )
    parser.add_argument("--json", type=output_file, help="write the figures to this file, row by row")


def run(options: argparse.Namespace) -> None:
    """Measure; print each row and write the JSON after each row."""
    device = torch.device(options.device)
    record: dict[str, Any] = {
        "device": device_name(device),
        "torch": torch.__version__,
        "image_size": options.image_size,
        "rows": [],
    }
    print(f"4Ds step, ResNet34 -> ResNet18, {options.image_size} px, synthetic images")
    print(f"{record['device']}, PyTorch {torch.__version__}")
    print(HEADING)
    for batch in options.batches:
        measured: dict[str, StepResult] = {}
        for name in options.rows:
            measured[name] = measure(name, batch, options.image_size, device, options.steps)
            release()
            row = compared(measured[name], measured)
            print(line_of(row), flush=True)
            record["rows"].append(asdict(row))
            if options.json:
                options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
