"""The scaling of one host with several GPUs, by one command and within a time limit.

    python -m fourds_dist.benchmark host --seconds 600 --json host.json
    python -m fourds_dist.benchmark host --parts shards sweep kill

Each part is one or two commands of this package in processes of their own, in order of importance. Rows are printed and
written when their part ends, so a limit keeps what was measured before.

weak         weak scaling at --batches images per worker: `benchmark scaling` with synthetic images, as the next five
small, vit   the same at --small-batch, with the given teacher and with --vit
strong       strong scaling at --global-batch images in total
zero1, ray   ZeRO 1 beside DDP, and Ray Train in place of torchrun, at the first of --batches
shards       a run under torchrun on JPEGs from the disk, beside the speed with synthetic images of `weak`
sweep        --trials trials on a quarter of a GPU each with ASHA: share of the GPUs' time in training
kill         two runs under Ray Train, one with a worker killed in mid-run: whether the students are equal

Without GPUs, small networks try all parts: --teacher resnet10 --student resnet10 --vit resnet10 --image-px 32
--batches 8 --small-batch 4 --global-batch 16 --images 400 --trials 4.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from fourds_dist.benchmark.host_commands import Host, Row
from fourds_dist.benchmark.host_parts import PARTS
from fourds_dist.benchmark.timing import device_name
from fourds_dist.cli.option_types import MOST, output_file, real, whole
from fourds_dist.io.error_text import one_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `host`."""
    num_gpus = torch.cuda.device_count()
    workers = [num for num in (1, 2, 4, 8) if num <= max(num_gpus, 2)]
    parser.add_argument(
        "--seconds", type=real(1, 1e6), default=600.0, help="time limit of all parts together"
    )
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--workers", type=whole(1, MOST), nargs="+", default=workers)
    parser.add_argument(
        "--batches", type=whole(1, MOST), nargs="+", default=[256, 128], help="images per worker"
    )
    parser.add_argument(
        "--small-batch", type=whole(1, MOST), default=32, help="images per worker of `small` and `vit`"
    )
    parser.add_argument(
        "--global-batch", type=whole(1, MOST), default=1024, help="images of all workers of `strong`"
    )
    parser.add_argument("--teacher", default="resnet34")
    parser.add_argument("--student", default="resnet18")
    parser.add_argument("--vit", default="vit_l_16", help="teacher of the part `vit`")
    parser.add_argument("--image-px", type=whole(1, MOST), default=224)
    parser.add_argument(
        "--images", type=whole(100, MOST), default=20_000, help="JPEGs of `shards`, `sweep` and `kill`"
    )
    parser.add_argument("--trials", type=whole(1, MOST), default=32)
    parser.add_argument("--json", type=output_file, help="file for the rows, written after each part")


def run(options: argparse.Namespace) -> None:
    """Measure part after part, until all are done or the time is over."""
    end_s = time.monotonic() + options.seconds
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="fourds-host-") as folder:
        host = Host(options, Path(folder), end_s, rows)
        for part in options.parts:
            if host.left_s <= 0:
                print(f"{part}: left out, since the {options.seconds:.0f} s are over")
                continue
            began_s = time.monotonic()
            try:
                for row in PARTS[part](host):
                    rows.append({"part": part} | row)
                    print(shown(rows[-1]), flush=True)
            except Exception as error:  # the other parts are worth their time all the same
                print(f"{part}: {one_line(error)}", flush=True)
            print(f"{part}: {time.monotonic() - began_s:.0f} s", flush=True)
            if options.json:
                device = device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
                about = {"device": device, "gpus": torch.cuda.device_count(), "torch": torch.__version__}
                options.json.write_text(json.dumps(about | {"rows": rows}, indent=2) + "\n")


def shown(row: Row) -> str:
    """Return one line of the table."""
    return "  ".join(f"{name} {_short(value)}" for name, value in row.items() if value is not None)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
