"""Comparison of training in bfloat16 and in float32: 4Ds on the quickstart's images, from the same weights.

    python -m fourds_dist.benchmark numerics --json numerics.json

Digits (source) -> digits over photographs (target), ResNet18 -> ResNet10. Both networks are first trained on the source
in float32. Then 4Ds runs several times from the same weights:

    float32             released operators, no autocast, no TensorFloat-32: the reference
    fast                bfloat16 autocast, default operators and layouts, CUDA graph; the same batches
    float32, nudged     the reference with initial weights changed by 1e-6 (relative): the effect of rounding
    float32, order N    the reference with another order of the images: the effect of the seed

Criterion: the mean relative difference of the fast run's loss to the reference's, over windows of steps, is at most the
mean of the other orders' differences; its accuracies on held-out target images differ from the reference's by at most
the range of the float32 runs plus one standard error of an accuracy. The exit status is 1 if the criterion fails.
"""

from __future__ import annotations

import argparse
import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fourds_dist.benchmark.step import known_architectures
from fourds_dist.benchmark.timing import device_name, table, usable_device
from fourds_dist.cli.option_types import MOST, output_file, whole
from fourds_dist.data.datasets.digits import digits
from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.example import Example
from fourds_dist.data.stream.batch import Batch
from fourds_dist.method import BackboneConfig, FourDs, MethodConfig, SourceClassifiers, build_backbone
from fourds_dist.method.task import Task
from fourds_dist.ops import use_backend
from fourds_dist.training.distributed.world import World
from fourds_dist.training.step import StepConfig, TrainStep
from fourds_dist.training.strategies.optim import OptimConfig, TaskOptimizers

STAGES = ("layer1", "layer2", "layer3", "layer4")
SIZE = 32
REFERENCE, FAST, NUDGED = "float32", "fast", "float32, nudged"
ORDERS = {"float32, order 1": 1, "float32, order 2": 2}
MEAN_STD: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def decoded(example: Example) -> np.ndarray:
    """Decode an example to pixels (H, W, 3)."""
    assert isinstance(example.image, bytes)
    return np.asarray(Image.open(io.BytesIO(example.image)).convert("RGB"))


@dataclass(frozen=True)
class Images:
    """Decoded images on the device."""

    images: Tensor  # uint8, N 3 H W
    labels: Tensor

    @classmethod
    def of(cls, domain: Domain, splits: tuple[str, ...], device: torch.device) -> Images:
        """Decode all images of the splits."""
        chosen = [example for example in domain if example.split in splits]
        pixels = np.stack([decoded(example) for example in chosen])
        labels = torch.tensor([domain.classes.index(x.label or "") for x in chosen], device=device)
        return cls(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to(device), labels)

    def batch(self, chosen: Tensor) -> Batch:
        """The images at some indices."""
        no = torch.zeros(len(chosen), dtype=torch.bool, device=self.labels.device)
        keys = [""] * len(chosen)
        return Batch(self.images[chosen], self.labels[chosen], flip=no, keys=keys)

    def batches(self, size: int, num_batches: int, order: int) -> Iterator[Batch]:
        """Yield full batches of shuffled epochs; `order` is the seed of the shuffling."""
        left = torch.empty(0, dtype=torch.int64)
        generator = torch.Generator().manual_seed(order)
        for _ in range(num_batches):
            if len(left) < size:
                left = torch.randperm(len(self.labels), generator=generator)
            chosen, left = left[:size], left[size:]
            yield self.batch(chosen.to(self.labels.device))


@dataclass(frozen=True)
class Curve:
    """Losses and accuracies of one run of 4Ds."""

    losses: list[float]  # of every step
    accuracies: dict[str, float]  # on held-out target images, by predictor

    def windows(self, size: int) -> list[float]:
        """Return the mean loss of each window of `size` steps."""
        losses = [self.losses[i : i + size] for i in range(0, len(self.losses), size)]
        return [sum(window) / len(window) for window in losses]


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Disable TensorFloat-32 in cuDNN, its default for float32."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def train(
    task: Task, config: StepConfig, batches: Iterator[Batch], num_steps: int
) -> tuple[TrainStep, list[float]]:
    """Train on all batches; losses are copied to the host once, at the end."""
    device = next(task.parameters()).device
    step = TrainStep(task.train(), World(0, 1, device), config, **MEAN_STD)
    optimizers = TaskOptimizers(
        task.parameter_groups(),
        OptimConfig(lr=0.05, schedule="cosine"),
        num_steps,
    )
    losses = []
    for batch in batches:
        losses.append(step(batch).loss.detach().clone())
        optimizers.step()
    return step, torch.stack(losses).tolist()


@torch.inference_mode()
def accuracies(task: FourDs, step: TrainStep, held_out: Images) -> dict[str, float]:
    """Return the accuracies of the student and the adapted teacher, in the precision of the run."""
    task.eval()
    indices = torch.arange(len(held_out.labels), device=held_out.labels.device)
    right = dict.fromkeys(task.predictors(), 0)
    for chosen in indices.split(256):
        images = step.images(held_out.batch(chosen))
        for name, predict in task.predictors().items():
            with torch.autocast(step.device.type, torch.bfloat16, enabled=step.autocast):
                right[name] += int((predict(images).argmax(1) == held_out.labels[chosen]).sum())
    return {name: count / len(indices) for name, count in right.items()}


def compare(options: argparse.Namespace, device: torch.device) -> tuple[dict[str, Curve], int]:
    """Return all runs by name, and the number of held-out images."""
    source, target = digits(size=SIZE)
    torch.manual_seed(0)
    networks = {
        name: build_backbone(BackboneConfig(arch=arch, stem="small"), len(source.classes)).to(device)
        for name, arch in (("teacher", options.teacher), ("student", options.student))
    }
    plain = StepConfig(precision="float32", channels_last=False)
    images = Images.of(source, ("train",), device)
    with exact_convolutions():
        batches = images.batches(options.batch, options.source_steps, order=0)
        train(SourceClassifiers(networks), plain, batches, options.source_steps)
    first = FourDs(
        networks["teacher"],
        networks["student"],
        teacher_stages=STAGES,
        student_stages=STAGES,
        config=MethodConfig(),
        image_size=SIZE,
    ).to(device)
    first_state = deepcopy(first.state_dict())
    images, held_out = (Images.of(target, s, device) for s in (("train",), ("val", "test")))

    curves: dict[str, Curve] = {}
    for name in (REFERENCE, FAST, NUDGED, *ORDERS):
        first.load_state_dict(first_state)
        for p in first.parameters():
            p.grad = None
            if name == NUDGED:
                p.data.mul_(1 + 1e-6)
        batches = images.batches(options.batch, options.steps, ORDERS.get(name, 0))
        if name == FAST:
            fast = StepConfig(precision="bfloat16")
            step, losses = train(first, fast, batches, options.steps)
            curves[name] = Curve(losses, accuracies(first, step, held_out))
        else:
            first.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
            with exact_convolutions(), use_backend("reference"):
                step, losses = train(first, plain, batches, options.steps)
                curves[name] = Curve(losses, accuracies(first, step, held_out))
        print(f"  {name}: {curves[name].accuracies}", flush=True)
    return curves, len(held_out.labels)


def distance(curve: Curve, reference: Curve, window: int) -> tuple[float, float]:
    """Return the mean and the largest relative difference of the windows of two runs."""
    pairs = zip(curve.windows(window), reference.windows(window), strict=True)
    differences = [abs(a - b) / b for a, b in pairs]
    return sum(differences) / len(differences), max(differences)


@dataclass(frozen=True)
class Verdict:
    """Result of the criterion."""

    loss_difference: float  # of the fast run, mean over windows
    loss_allowed: float
    accuracy_differences: dict[str, float]
    accuracy_allowed: dict[str, float]
    holds: bool


def judge(curves: dict[str, Curve], num_held_out: int, window: int) -> Verdict:
    """Apply the criterion."""
    reference, fast = curves[REFERENCE], curves[FAST]
    others = [distance(curves[name], reference, window)[0] for name in ORDERS]
    difference, allowed = distance(fast, reference, window)[0], sum(others) / len(others)
    differences, limits = {}, {}
    for name, accuracy in reference.accuracies.items():
        values = [curve.accuracies[name] for key, curve in curves.items() if key != FAST]
        error = math.sqrt(accuracy * (1 - accuracy) / num_held_out)
        differences[name] = abs(fast.accuracies[name] - accuracy)
        limits[name] = max(values) - min(values) + error
    near = all(differences[name] <= limits[name] for name in limits)
    return Verdict(difference, allowed, differences, limits, difference <= allowed and near)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `benchmark numerics`."""
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--device", type=usable_device, default="cuda" if on_gpu else "cpu")
    parser.add_argument(
        "--steps", type=whole(1, MOST), default=300 if on_gpu else 60, help="steps of each run of 4Ds"
    )
    parser.add_argument("--source-steps", type=whole(1, MOST), default=150 if on_gpu else 40)
    parser.add_argument("--batch", type=whole(1, MOST), default=64)
    parser.add_argument("--window", type=whole(1, MOST), default=20, help="steps to average losses over")
    parser.add_argument("--teacher", default="resnet18")
    parser.add_argument("--student", default="resnet10")
    parser.add_argument(
        "--json", type=output_file, help="also write curves, accuracies and verdict to this file"
    )


def run(options: argparse.Namespace) -> None:
    """Train; print the losses, the accuracies and the result; write the JSON."""
    known_architectures(options.teacher, options.student)
    device = torch.device(options.device)
    print(f"4Ds on digits -> digits over photographs, {options.teacher} -> {options.student}")
    print(
        f"{device_name(device)}, PyTorch {torch.__version__}, {options.steps} steps of {options.batch} images"
    )
    curves, num_held_out = compare(options, device)
    windows = {name: curve.windows(options.window) for name, curve in curves.items()}
    lines = [
        [
            str(min((i + 1) * options.window, options.steps)),
            *(f"{values[i]:.4f}" for values in windows.values()),
        ]
        for i in range(len(windows[REFERENCE]))
    ]
    print(f"\nLoss, mean of the {options.window} steps up to:")
    print(table(("step", *windows), lines))
    print(f"\nFrom {REFERENCE!r}, and accuracy on {num_held_out} held-out target images:")
    predictors = list(curves[REFERENCE].accuracies)
    lines = [
        [
            name,
            *(f"{100 * d:.2f}" for d in distance(curve, curves[REFERENCE], options.window)),
            *(f"{100 * curve.accuracies[p]:.1f}" for p in predictors),
        ]
        for name, curve in curves.items()
    ]
    print(table(("run", "mean % of loss", "largest %", *predictors), lines))
    verdict = judge(curves, num_held_out, options.window)
    print(
        f"\nLoss: differs from float32 by {100 * verdict.loss_difference:.2f} %; other orders by "
        f"{100 * verdict.loss_allowed:.2f} %"
    )
    for name, value in verdict.accuracy_differences.items():
        print(
            f"{name}: accuracy differs from float32 by {100 * value:.1f} points (allowed: "
            f"{100 * verdict.accuracy_allowed[name]:.1f})"
        )
    print("The criterion holds." if verdict.holds else "The criterion does not hold.")
    if options.json:
        about = {"device": device_name(device), "torch": torch.__version__, "num_held_out": num_held_out}
        record = about | {"curves": {k: asdict(v) for k, v in curves.items()}, "verdict": asdict(verdict)}
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if not verdict.holds:
        raise SystemExit(1)
