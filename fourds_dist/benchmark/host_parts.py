"""The parts of `benchmark host`: what each measures, and the rows that it yields."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file

from fourds_dist.benchmark.host_commands import Host, PartFailedError, Row
from fourds_dist.config.loading import to_yaml
from fourds_dist.experiments.compare.results import device_seconds
from fourds_dist.runs.events import EpochEnded, decode_lines
from fourds_dist.runs.layout import RunFile
from fourds_dist.stages.finished_run import Run

TRIALS_PER_GPU = 4
RUN_STEPS = 60
"""Steps of the runs of `shards`; the speed is the median of the second half."""
KILL_EPOCHS = 6
SWEEP_EPOCHS = 4


def _weak(host: Host) -> Iterator[Row]:
    for batch in host.options.batches:
        yield from host.scaling(f"weak-{batch}", "--batch", str(batch))


def _small(host: Host) -> Iterator[Row]:
    yield from host.scaling("small", "--batch", str(host.options.small_batch), workers=_ends(host.workers))


def _strong(host: Host) -> Iterator[Row]:
    words = ("--batch", str(host.options.global_batch), "--scaling", "strong")
    yield from host.scaling("strong", *words, workers=_ends(host.workers))


def _zero1(host: Host) -> Iterator[Row]:
    words = ("--batch", str(host.options.batches[0]), "--strategies", "ddp", "zero1")
    yield from host.scaling("zero1", *words, workers=host.workers[-1:])


def _ray(host: Host) -> Iterator[Row]:
    words = ("--batch", str(host.options.batches[0]), "--through", "ray")
    yield from host.scaling("ray", *words, workers=_ends(host.workers))


def _vit(host: Host) -> Iterator[Row]:
    words = ("--batch", str(host.options.small_batch), "--teacher", host.options.vit)
    yield from host.scaling("vit", *words, workers=_ends(host.workers))


def _shards(host: Host) -> Iterator[Row]:
    workers, batch = host.workers[-1], host.options.batches[0]
    images = min(host.options.images // 2, RUN_STEPS * batch * workers)
    epochs = max(1, round(RUN_STEPS * batch * workers / images))
    file = host.run_config("shards", epochs=epochs, batch=batch * workers, images=images, workers=workers)
    torchrun = [
        "torch.distributed.run",
        "--standalone",
        "--local-addr",
        "127.0.0.1",
        "--nproc-per-node",
        str(workers),
    ]
    host.do("shards", [*torchrun, "-m", "fourds_dist.train", str(file), "launch.runner=inline"])
    steps = Run(str(host.folder / "runs" / "shards")).steps("distill")
    half = steps[len(steps) // 2 :]
    speed = statistics.median(event.images_per_s for event in half)
    synthetic = [
        row["images_per_s"]
        for row in host.rows
        if (row["part"], row.get("workers"), row.get("batch_per_worker")) == ("weak", workers, batch)
    ]
    yield {
        "workers": workers,
        "batch_per_worker": batch,
        "images_per_s": speed,
        "of_synthetic": speed / synthetic[0] if synthetic else None,
        "data_wait": statistics.fmean(event.shares.data_wait for event in half),
    }


def _sweep(host: Host) -> Iterator[Row]:
    options, num_gpus = host.options, torch.cuda.device_count()
    share = 1 / TRIALS_PER_GPU if num_gpus else 1.0
    slots = TRIALS_PER_GPU * num_gpus or (os.cpu_count() or 1)
    images, batch = options.images // 4, options.small_batch * 2
    config = host.run_config("trial", epochs=SWEEP_EPOCHS, batch=batch, images=images, workers=1, gpus=share)
    tree = {
        "name": "sweep",
        "config": str(config),
        "space": {"distill_stage.optim.lr": {"loguniform": [0.003, 0.3]}},
        "budget": {"trials": options.trials},
        "max_concurrent_trials": slots,
        "search": "random",
        "scheduler": {"name": "asha"},
    }
    file = host.folder / "sweep.yaml"
    file.write_text(to_yaml(tree))
    began_s = time.monotonic()
    host.do("sweep", ["fourds_dist.tune", str(file)])
    wall_s = time.monotonic() - began_s
    trials = [Run(str(path.parent)) for path in (host.folder / "runs" / "sweep").rglob(RunFile.METRICS.value)]
    train_s = sum(device_seconds(trial.events, trial.settings, ["distill"]) for trial in trials)
    yield {
        "trials": len(trials),
        "at_once": slots,
        "seconds": wall_s,
        "training_share": train_s / (slots * wall_s),
    }


def _kill(host: Host) -> Iterator[Row]:
    options, workers = host.options, host.workers[-1]
    batch = options.small_batch * workers
    seconds: dict[str, float] = {}
    for name in ("undisturbed", "killed"):
        file = host.run_config(
            name, epochs=KILL_EPOCHS, batch=batch, images=options.images // 4, workers=workers
        )
        began_s = time.monotonic()
        with host.started(name, ["fourds_dist.train", str(file)]) as process:
            if name == "killed":
                _kill_a_worker(host, process, host.folder / "runs" / name / RunFile.METRICS)
            host.finish(name, process)
        seconds[name] = time.monotonic() - began_s
    first, second = (load_file(host.folder / "runs" / name / RunFile.STUDENT) for name in seconds)
    differences = [float((first[key].double() - second[key].double()).abs().max()) for key in first]
    yield {
        "workers": workers,
        "seconds": seconds["undisturbed"],
        "seconds_more": seconds["killed"] - seconds["undisturbed"],
        "largest_difference": max(differences),
        "is_equal": max(differences) == 0.0,
    }


def _kill_a_worker(host: Host, process: subprocess.Popen[bytes], metrics: Path) -> None:
    """Kill a training worker by SIGKILL in the third epoch, when the run has checkpoints."""
    from fourds_dist.launch.ray.ray_private import (
        training_workers,
    )  # the parts without Ray need no import of Ray

    while process.poll() is None and host.left_s > 0:
        time.sleep(0.05)
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        if sum(isinstance(event, EpochEnded) for event in decode_lines(lines)) < 2:
            continue
        for worker in training_workers(process.pid):
            with suppress(psutil.NoSuchProcess):
                worker.kill()
                return
    raise PartFailedError("the run ended before a worker could be killed")


def _ends(workers: list[int]) -> list[int]:
    """Return the smallest and the largest number of workers."""
    return sorted({workers[0], workers[-1]})


PARTS: dict[str, Callable[[Host], Iterator[Row]]] = {
    "weak": _weak,
    "strong": _strong,
    "small": _small,
    "zero1": _zero1,
    "kill": _kill,
    "shards": _shards,
    "sweep": _sweep,
    "ray": _ray,
    "vit": _vit,
}
