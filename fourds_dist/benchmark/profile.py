"""Time of one training step, by kind of kernel and by kernel.

python -m fourds_dist.benchmark profile --batch 256 --json profile.json
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter

import torch
from torch.profiler import ProfilerActivity, profile

from fourds_dist.benchmark.step import FORMS, NETWORKS, WARM_UP_STEPS, build_step, known_architectures
from fourds_dist.benchmark.timing import device_name, table, usable_device
from fourds_dist.cli.option_types import MOST, output_file, whole

KINDS = {
    "Fourier": r"^(fourier_mix|pooled_phase|phase_distance)(_backward)?$|^transpose$|fourds::(four|pool|phase)|fft",
    "optimisers": r"fused_?(sgd|adam)|multi_tensor|foreach|optimizer",
    "BatchNorm": r"batch_?norm|\bbn_(fw|bw)|^(merge_)?(statistics|gradients)$|^(normalise|sum_gradients)$"
    r"|^input_gradient$|fourds::(batch_statistics|norm_act)",
    "LayerNorm": r"layer_?norm|gammabeta",
    "attention": r"flash|fmha|attention|softmax",
    "pooling": r"max_?pool|avg_?pool",
    "convolutions": r"conv|xmma|cutlass|gemm|winograd|[wd]grad|fprop|nchw|nhwc|aten::(add)?mm",
    "pointwise, copies": r"elementwise|copy|memcpy|memset|reduce|cat|fill|threshold|add|mul|where|softmax|relu",
}
"""Kind of kernels -> pattern of their names; the first match counts."""


def kind_of(kernel: str) -> str:
    """Return the kind of a kernel (on a CPU: of an operator)."""
    fitting = (kind for kind, pattern in KINDS.items() if re.search(pattern, kernel, re.IGNORECASE))
    return next(fitting, "other")


def kernel_times(
    form: str,
    batch: int,
    image_size: int,
    device: torch.device,
    num_steps: int,
    archs: tuple[str, str],
) -> Counter[str]:
    """Return the milliseconds of every kernel in a step, summed over its calls.

    Args:
        archs: architectures of teacher and student.
    """
    on_gpu = device.type == "cuda"
    run = build_step(FORMS[form], batch, image_size, device, archs=archs)
    for _ in range(WARM_UP_STEPS):
        run()
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        for _ in range(num_steps):
            run()
        if on_gpu:
            torch.cuda.synchronize()
    times: Counter[str] = Counter()
    for event in profiler.key_averages():
        if on_gpu and event.key.startswith("Optimizer."):
            continue  # a range around kernels that are counted separately
        if on_gpu and event.device_type.name == "CUDA":
            times[event.key] += event.self_device_time_total / 1e3 / num_steps
        elif not on_gpu:
            times[event.key] += event.self_cpu_time_total / 1e3 / num_steps
    return times


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `benchmark profile`."""
    parser.add_argument(
        "--device", type=usable_device, default="cuda" if torch.cuda.is_available() else "cpu"
    )
    parser.add_argument("--row", default="fast", choices=list(FORMS))
    parser.add_argument("--teacher", default=NETWORKS[0], help="architecture")
    parser.add_argument("--student", default=NETWORKS[1], help="architecture")
    parser.add_argument("--batch", type=whole(1, MOST), default=256)
    parser.add_argument("--image-size", type=whole(1, MOST), default=224, help="side in pixels")
    parser.add_argument("--steps", type=whole(1, MOST), default=5, help="steps to take the mean of")
    parser.add_argument("--top", type=whole(1, MOST), default=25, help="kernels to list")
    parser.add_argument("--json", type=output_file, help="write every kernel's time to this file")


def run(options: argparse.Namespace) -> None:
    """Profile and print both tables."""
    device = torch.device(options.device)
    known_architectures(options.teacher, options.student)
    archs = (options.teacher, options.student)
    times = kernel_times(options.row, options.batch, options.image_size, device, options.steps, archs)
    total = sum(times.values())
    kinds: Counter[str] = Counter()
    for kernel, ms in times.items():
        kinds[kind_of(kernel)] += ms
    pair = " -> ".join(archs)
    print(f"{FORMS[options.row].shown}, {pair}, batch {options.batch}: {total:.2f} ms per step in kernels")
    print(f"{device_name(device)}, PyTorch {torch.__version__}")
    rows = [[kind, f"{ms:.3f}", f"{100 * ms / total:.1f}"] for kind, ms in kinds.most_common()]
    print(table(("kind", "ms", "%"), rows) + "\n")
    rows = [
        [kind_of(kernel), kernel[:90], f"{ms:.3f}", f"{100 * ms / total:.1f}"]
        for kernel, ms in times.most_common(options.top)
    ]
    print(table(("kind", "kernel", "ms", "%"), rows))
    if options.json:
        record = {
            "device": device_name(device),
            "torch": torch.__version__,
            "row": options.row,
            "networks": archs,
            "batch": options.batch,
        }
        record |= {"kinds_ms": dict(kinds.most_common()), "kernels_ms": dict(times.most_common())}
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
