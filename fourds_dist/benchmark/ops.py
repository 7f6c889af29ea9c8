"""Fourier operators, forward and backward: released form, half spectrum, fused kernels, and a lower bound.

    python -m fourds_dist.benchmark ops --device cuda --json ops.json

The lower bound ("floor") is the time of the memory traffic: `fourier_mix` reads h and a and writes its output, then
reads h, a and the gradient and writes two gradients, which equals four copies of h. Copies of the same tensors are
measured in the same run.
"""

import argparse
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from fourds_dist.benchmark.timing import Timing, device_name, table, time_call, usable_device
from fourds_dist.cli.option_types import MOST, output_file, whole
from fourds_dist.ops import fourier_mix, fused, phase_distance, pooled_phase

SIZES = ("64x56x56", "128x28x28", "256x14x14", "512x7x7")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
OPERATORS = {"fourier_mix": 4.0, "pooled_phase": 1.5, "phase_distance": 2.5}  # floor, in copies of h
FORMS = {"released form": "reference", "half spectrum": "eager", "fused": "fused"}
FLOOR = "floor (copies)"


@dataclass(frozen=True)
class OpResult:
    """One line of the table; times of forward and backward together."""

    operator: str
    size: str
    dtype: str
    memory_format: str
    form: str
    hot_ms: float
    cold_ms: float
    gigabytes_per_s: float  # the floor's bytes over the hot time
    times_floor_hot: float
    times_floor_cold: float
    speedup_hot: float  # over the released form
    speedup_cold: float


class Maps:
    """Tensors of one size: maps h and a, gradients of the results, and buffers for copies."""

    def __init__(
        self, shape: tuple[int, int, int, int], dtype: torch.dtype, layout: str, device: torch.device
    ):
        generator = torch.Generator(device).manual_seed(0)

        def draw(*size: int) -> Tensor:
            x = torch.randn(*size, generator=generator, device=device).to(dtype)
            return x.contiguous(memory_format=FORMATS[layout]) if len(size) == 4 else x

        self.h, self.a, self.g = (
            draw(*shape).relu_().requires_grad_(),
            draw(*shape).requires_grad_(),
            draw(*shape),
        )
        self.mix = torch.tensor([0.5, 0.5], device=device, dtype=torch.float32, requires_grad=True)
        self.cells = (min(7, shape[2]), min(7, shape[3]))
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        self.g_pooled = draw(*shape[:2], *self.cells).to(wide).contiguous()
        self.g_disparity = draw(*shape[:2]).to(wide)
        self.copies = [torch.empty_like(self.h.detach()) for _ in range(3)]
        self.num_bytes = self.h.numel() * self.h.element_size()

    def call(self, operator: str, backend: str) -> Callable[[], object]:
        """Return forward and backward of one operator on one backend, as a call."""
        if operator == "fourier_mix":
            return lambda: torch.autograd.grad(
                fourier_mix(self.h, self.a, self.mix, backend=backend), (self.h, self.a, self.mix), self.g
            )
        if operator == "pooled_phase":
            return lambda: torch.autograd.grad(
                pooled_phase(self.h, self.cells, backend=backend), self.h, self.g_pooled
            )
        return lambda: torch.autograd.grad(
            phase_distance(self.h, self.a, backend=backend), self.h, self.g_disparity
        )

    def copy(self) -> None:
        """Copy four tensors, the memory traffic of `fourier_mix` and its backward pass."""
        with torch.no_grad():
            for to, x in zip((*self.copies, self.copies[0]), (self.h, self.a, self.g, self.h), strict=True):
                to.copy_(x)


def measure(
    size: str,
    dtype: str,
    layout: str,
    batch: int,
    operators: list[str],
    device: torch.device,
    num_repeats: int,
) -> Iterator[OpResult]:
    """Yield the times of every form of every operator at one size and dtype."""
    channels, height, width = (int(n) for n in size.split("x"))
    maps = Maps((batch, channels, height, width), DTYPES[dtype], layout, device)
    four_copies = time_call(maps.copy, device, num_repeats)
    for operator in operators:
        share = OPERATORS[operator] / 4.0
        floor = Timing(share * four_copies.hot_ms, share * four_copies.cold_ms)
        times = {
            form: time_call(maps.call(operator, backend), device, num_repeats)
            for form, backend in FORMS.items()
            if backend != "fused" or fused.why_not(operator, maps.h, maps.cells) is None
        }
        released = times["released form"]
        for form, timing in (*times.items(), (FLOOR, floor)):
            yield OpResult(
                *(operator, size, dtype, layout, form, timing.hot_ms, timing.cold_ms),
                gigabytes_per_s=2 * OPERATORS[operator] * maps.num_bytes / timing.hot_ms / 1e6,
                times_floor_hot=timing.hot_ms / floor.hot_ms,
                times_floor_cold=timing.cold_ms / floor.cold_ms,
                speedup_hot=released.hot_ms / timing.hot_ms,
                speedup_cold=released.cold_ms / timing.cold_ms,
            )


def cells_of(row: OpResult) -> list[str]:
    """Return the cells of one row of the table."""
    return [
        *(row.operator, row.size, row.dtype, row.memory_format, row.form),
        *(f"{row.hot_ms:.4f}", f"{row.cold_ms:.4f}", f"{row.gigabytes_per_s:.0f}"),
        *(f"{row.times_floor_hot:.2f}", f"{row.times_floor_cold:.2f}"),
        *(f"{row.speedup_hot:.1f}", f"{row.speedup_cold:.1f}"),
    ]


HEADING = (
    *("operator", "maps", "dtype", "layout", "form", "hot ms", "cold ms", "GB/s"),
    *("x floor hot", "cold", "x faster hot", "cold"),
)


def map_size(text: str) -> str:
    """Parse the option `--sizes`: channels, height and width of a map."""
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and int(part[:9]) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no size CxHxW, such as 64x56x56")
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `benchmark ops`."""
    parser.add_argument(
        "--device", type=usable_device, default="cuda" if torch.cuda.is_available() else "cpu"
    )
    parser.add_argument("--json", type=output_file, help="also write the rows to this file")
    parser.add_argument("--batch", type=whole(1, MOST), default=128)
    parser.add_argument("--sizes", type=map_size, nargs="+", default=list(SIZES), metavar="CxHxW")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=list(DTYPES))
    parser.add_argument("--layouts", nargs="+", default=["nchw"], choices=list(FORMATS))
    parser.add_argument("--operators", nargs="+", default=list(OPERATORS), choices=list(OPERATORS))
    parser.add_argument(
        "--repeats", type=whole(1, MOST), default=20, help="timed calls of each form; the median counts"
    )


def run(options: argparse.Namespace) -> None:
    """Measure; print a table per layout and dtype; write the JSON after each size."""
    device = torch.device(options.device)
    print(f"{device_name(device)}, PyTorch {torch.__version__}, batch {options.batch}, forward + backward")
    rows: list[OpResult] = []
    for layout, dtype in itertools.product(options.layouts, options.dtypes):
        shown: list[list[str]] = []
        for size in options.sizes:
            measured = list(
                measure(size, dtype, layout, options.batch, options.operators, device, options.repeats)
            )
            rows += measured
            shown += map(cells_of, measured)
            if options.json:
                record = {"device": device_name(device), "torch": torch.__version__, "batch": options.batch}
                record["rows"] = [asdict(row) for row in rows]
                options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(table(HEADING, shown), flush=True)
