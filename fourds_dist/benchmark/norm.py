"""BatchNorm with residual sum and ReLU, forward and backward: PyTorch, cuDNN, torch.compile, this package, and a floor.

    python -m fourds_dist.benchmark norm --device cuda --json norm.json

The maps are those of ResNet18 and ResNet34 at 224 px, in channels_last memory, in training mode. The floor is the time
of the memory traffic of two passes each way, from copies of the same map in the same run. In units of one map, forward:
x for the statistics, x, the residual and y. Backward: the gradient and x for the sums, both again, the gradient of x,
and that of the residual. The time of the backward pass is that of forward and backward less that of the forward.

Further tables compare the step of `benchmark step` with step.norm=torch and fused, and the forward pass of a frozen
ResNet34 in evaluation mode with PyTorch's BatchNorm, with fused ones, and with BatchNorm folded into the convolutions.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourds_dist.benchmark.ops import DTYPES, map_size
from fourds_dist.benchmark.step import HEADING as STEP_HEADING
from fourds_dist.benchmark.step import NUM_CLASSES, compared, line_of, release
from fourds_dist.benchmark.step import measure as measure_step
from fourds_dist.benchmark.timing import Timing, device_name, table, time_call, usable_device
from fourds_dist.cli.option_types import MOST, output_file, whole
from fourds_dist.io.error_text import error_line
from fourds_dist.models.backbones import BackboneConfig, build_backbone
from fourds_dist.models.norm_folding import with_folded_norms
from fourds_dist.models.norm_fusion import fuse_norms
from fourds_dist.ops.norm import batch_norm_act, fused

SIZES = ("64x112x112", "64x56x56", "128x28x28", "256x14x14", "512x7x7")
FORMS = ("torch", "cudnn", "compiled", "eager", "fused")
STEP_ROWS = ("ceiling-torch-norm", "ceiling", "fast-torch-norm", "fast")
FLOOR = "floor (copies)"
FORWARD_MAPS, BACKWARD_MAPS = (3, 4), (5, 6)
"""Maps that are read or written, without and with a residual."""


@dataclass(frozen=True)
class NormResult:
    """One line of the table."""

    size: str
    batch: int
    residual: bool
    form: str
    forward_hot_ms: float
    forward_cold_ms: float
    backward_hot_ms: float
    backward_cold_ms: float
    forward_times_floor: float
    """Hot."""
    backward_times_floor: float
    total_times_floor: float


class Layer:
    """The tensors of a BatchNorm, and its forms as calls."""

    def __init__(self, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> None:
        generator = torch.Generator(device).manual_seed(0)

        def draw() -> Tensor:
            x = torch.randn(shape, generator=generator, device=device).to(dtype)
            return x.contiguous(memory_format=torch.channels_last)

        self.x, self.residual, self.gradient = draw().requires_grad_(), draw().requires_grad_(), draw()
        self.weight, self.running_var = (torch.ones(shape[1], device=device) for _ in range(2))
        self.bias, self.running_mean = (torch.zeros(shape[1], device=device) for _ in range(2))
        self.weight.requires_grad_()
        self.bias.requires_grad_()
        self.copied = torch.empty_like(self.x.detach())

    def forward(self, form: str, *, residual: bool) -> Callable[[], Tensor]:
        """Return the forward pass of a form."""
        if form in ("eager", "fused"):
            return lambda: batch_norm_act(
                *(self.x, self.running_mean, self.running_var, self.weight, self.bias),
                residual=self.residual if residual else None,
                activation="relu",
                training=True,
                backend=form,
            )
        norm = _cudnn if form == "cudnn" else _torch

        def run(x: Tensor, r: Tensor) -> Tensor:
            y = norm(x, self.running_mean, self.running_var, self.weight, self.bias)
            return F.relu(y + r if residual else y, inplace=True)

        call = torch.compile(run, dynamic=False) if form == "compiled" else run
        return lambda: call(self.x, self.residual)

    def both(self, form: str, *, residual: bool) -> Callable[[], object]:
        """Return the forward and the backward pass of a form."""
        forward = self.forward(form, residual=residual)
        leaves = [self.x, self.weight, self.bias, *([self.residual] if residual else [])]
        return lambda: torch.autograd.grad(forward(), leaves, self.gradient)

    def copy(self) -> None:
        """Copy x: two maps of memory traffic."""
        self.copied.copy_(self.x.detach())


def _torch(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.batch_norm(x, mean, var, weight, bias, True, 0.1, 1e-5)


def _cudnn(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.cudnn_batch_norm(x, weight, bias, mean, var, True, 0.1, 1e-5)[0]


def measure(
    size: str, batch: int, dtype: torch.dtype, forms: list[str], device: torch.device, num_repeats: int
) -> Iterator[NormResult]:
    """Yield the times of every form that the device supports, without and with a residual."""
    channels, height, width = (int(n) for n in size.split("x"))
    layer = Layer((batch, channels, height, width), dtype, device)
    copied = time_call(layer.copy, device, num_repeats)
    reason = fused.why_not(layer.x)
    for residual in (False, True):
        floors = [
            Timing(maps[residual] / 2 * copied.hot_ms, maps[residual] / 2 * copied.cold_ms)
            for maps in (FORWARD_MAPS, BACKWARD_MAPS)
        ]
        times = {FLOOR: (floors[0], floors[1])}
        for form in forms:
            if (form == "fused" and reason) or (form == "cudnn" and device.type != "cuda"):
                continue
            try:
                layer.both(form, residual=residual)()
            except RuntimeError as error:  # cuDNN does not support every map
                print(f"{form} does not run on {size} maps: {error_line(error)}")
                continue
            forward = time_call(layer.forward(form, residual=residual), device, num_repeats)
            both = time_call(layer.both(form, residual=residual), device, num_repeats)
            backward = Timing(both.hot_ms - forward.hot_ms, both.cold_ms - forward.cold_ms)
            times[form] = (forward, backward)
        for form, (forward, backward) in times.items():
            yield NormResult(
                *(size, batch, residual, form),
                *(forward.hot_ms, forward.cold_ms, backward.hot_ms, backward.cold_ms),
                forward_times_floor=forward.hot_ms / floors[0].hot_ms,
                backward_times_floor=backward.hot_ms / floors[1].hot_ms,
                total_times_floor=(forward.hot_ms + backward.hot_ms) / (floors[0].hot_ms + floors[1].hot_ms),
            )


HEADING = (
    *("maps", "batch", "before ReLU", "form", "forward hot", "cold", "backward hot", "cold"),
    *("x floor forward", "backward", "both"),
)


def cells_of(row: NormResult) -> list[str]:
    """Return the cells of one row of the table; times in ms."""
    times = (row.forward_hot_ms, row.forward_cold_ms, row.backward_hot_ms, row.backward_cold_ms)
    ratios = (row.forward_times_floor, row.backward_times_floor, row.total_times_floor)
    return [
        *(row.size, str(row.batch), "norm + sum" if row.residual else "norm", row.form),
        *(f"{ms:.4f}" for ms in times),
        *(f"{ratio:.2f}" for ratio in ratios),
    ]


def teacher_times(batch: int, image_size: int, device: torch.device, num_repeats: int) -> dict[str, float]:
    """Return the milliseconds of a frozen ResNet34's forward pass in evaluation mode, by form of its BatchNorms."""
    torch.manual_seed(0)
    images = torch.randn(batch, 3, image_size, image_size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)

    def teacher() -> nn.Module:
        network = build_backbone(BackboneConfig(arch="resnet34"), NUM_CLASSES).eval().requires_grad_(False)
        return network.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    plain, fused_ones = teacher(), teacher()
    fuse_norms(nn.ModuleList([fused_ones]))
    networks = {"torch": plain, "fused": fused_ones, "folded": with_folded_norms(plain)[0]}
    if device.type == "cuda":
        networks = {name: network.to(torch.bfloat16) for name, network in networks.items()}
        images = images.to(torch.bfloat16)
    with torch.no_grad():
        return {
            name: time_call(lambda run=network: run(images), device, num_repeats).hot_ms
            for name, network in networks.items()
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `benchmark norm`."""
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--device", type=usable_device, default="cuda" if on_gpu else "cpu")
    parser.add_argument("--json", type=output_file, help="also write the figures to this file")
    parser.add_argument("--batches", type=whole(1, MOST), nargs="+", default=[128, 256])
    parser.add_argument("--sizes", type=map_size, nargs="*", default=list(SIZES), metavar="CxHxW")
    parser.add_argument("--dtype", default="bfloat16", choices=list(DTYPES))
    parser.add_argument(
        "--forms", nargs="+", choices=list(FORMS), default=["torch", "cudnn", "compiled", "fused"]
    )
    parser.add_argument("--repeats", type=whole(1, MOST), default=20, help="timed calls; the median counts")
    parser.add_argument(
        "--image-size", type=whole(1, MOST), default=224, help="side in pixels, of steps and teacher"
    )
    parser.add_argument(
        "--steps", type=whole(0, MOST), default=20, help="steps in each of three timed rounds; 0: no steps"
    )


def run(options: argparse.Namespace) -> None:
    """Measure; print the tables; write the JSON after each size and row."""
    device = torch.device(options.device)
    record = {"device": device_name(device), "torch": torch.__version__, "dtype": options.dtype}
    rows: list[NormResult] = []
    steps: list[dict[str, object]] = []
    teachers: dict[int, dict[str, float]] = {}

    def save() -> None:
        if options.json:
            figures = {"rows": [asdict(row) for row in rows], "steps": steps, "teacher_ms": teachers}
            options.json.write_text(json.dumps(record | figures, indent=1) + "\n", encoding="utf-8")

    print(f"{record['device']}, PyTorch {torch.__version__}, {options.dtype}, channels_last, times in ms")
    for size, batch in itertools.product(options.sizes, options.batches):
        measured = list(measure(size, batch, DTYPES[options.dtype], options.forms, device, options.repeats))
        rows += measured
        release()
        save()
        print(table(HEADING, [cells_of(row) for row in measured]), flush=True)
    if not options.steps:
        return
    print(f"step of 4Ds, ResNet34 -> ResNet18, {options.image_size} px\n{STEP_HEADING}")
    for batch in options.batches:
        done = {}
        for name in STEP_ROWS:
            done[name] = measure_step(name, batch, options.image_size, device, options.steps)
            release()
            steps.append(asdict(compared(done[name], done)))
            save()
            print(line_of(compared(done[name], done)), flush=True)
        teachers[batch] = teacher_times(batch, options.image_size, device, options.repeats)
        save()
        times = ", ".join(f"{name} {ms:.3f}" for name, ms in teachers[batch].items())
        print(f"{batch:5d}  frozen ResNet34, forward pass in evaluation mode, ms: {times}", flush=True)
