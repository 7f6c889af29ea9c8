"""What Ray Train and checkpoints cost a step, against torchrun on the same loop: on a quiet machine

    python -m tests.harness.costs --rounds 5 --workers 1
    python -m tests.harness.costs --workers 2 source_stage.global_batch_size=512 data.crop_px=64     # keys of the run:
    on GPUs

The three take turns. A round's time per step is that between lines of metrics of the same epoch, so that start-up and
evaluation are left out. Within a round, each is compared with the one before it; the median over rounds counts. Ray's
own processes want a core beside the workers', as they have on any machine with GPUs: give two cores one worker.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.harness.kill import SHORT, pack, places

KEYS = (
    *SHORT,
    "run.until=source",
    "teacher.arch=resnet18",
    "data.resize_px=36",
    "data.crop_px=32",
    "source_stage.checkpoint_every_steps=null",
    "source_stage.global_batch_size=16",
    "step.log_every_steps=10",
)
TORCHRUN = ("-m", "torch.distributed.run", "--local-addr", "127.0.0.1", "--nproc-per-node")
WAYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "torchrun": (TORCHRUN, ("launch.runner=inline",)),
    "Ray Train": ((), ()),
    "with a checkpoint every 100 steps": ((), ("source_stage.checkpoint_every_steps=100",)),
}
"""Name -> (what goes before the command, keys)."""


def seconds_per_step(folder: Path, shards: Path, way: str, name: str, workers: int, more: list[str]) -> float:
    """One run."""
    before, keys = WAYS[way]
    before = (*before, str(workers)) if before else ()
    keys = (*keys, f"launch.workers={workers}", *more)
    command = [sys.executable, *before, "-m", "fourds_dist.train", *KEYS, *places(shards, folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / f"{name}.log").open("w") as log:
        subprocess.run(
            [*command, f"run.name={name}", *keys], stdout=log, stderr=log, env=environment, check=True
        )
    lines = (folder / name / "metrics.jsonl").read_text().splitlines()
    steps, seconds = 0, 0.0
    rows = [json.loads(line) for line in lines]
    for row, following in itertools.pairwise(rows):
        if row["event"] == following["event"] == "step":
            steps += following["step"] - row["step"]
            seconds += following["time"] - row["time"]
    return seconds / steps


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.harness.costs", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("keys", nargs="*", help="key=value of the run")
    options = parser.parse_args(arguments)
    keys = [f"source_stage.epochs={options.epochs}", *options.keys]
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="costs-") as name:
        folder = Path(name)
        shards = pack(folder / "shards")
        for number in range(options.rounds):
            for way in WAYS:
                run = f"{way.split()[0].lower()}{len(way)}-{number}"
                found[way].append(seconds_per_step(folder, shards, way, run, options.workers, keys))
                print(f"{way}: {found[way][-1] * 1e3:.2f} ms", flush=True)
    before: list[float] | None = None
    for way, times in found.items():
        middle = statistics.median(times)
        line = f"{way:34} {middle * 1e3:8.2f} ms a step ({min(times) * 1e3:.2f} to {max(times) * 1e3:.2f})"
        if before is not None:
            more = [time / base - 1 for time, base in zip(times, before, strict=True)]
            line += (
                f"  {statistics.median(more):+.1%} ({min(more):+.1%} to {max(more):+.1%}) to the line above"
            )
        print(line)
        before = times


if __name__ == "__main__":
    main()
