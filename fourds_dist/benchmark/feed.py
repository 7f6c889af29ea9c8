"""Data wait of the training step: `python -m fourds_dist.benchmark data --feed`.

The step of `benchmark step` (ResNet34 -> ResNet18, batch 256, 224 px) is timed with one batch that stays on the device,
then with a `TrainStream` that reads JPEG shards from the local disk. The difference is the cost of the data. `waiting`
is the share of time in which the host had no batch ready; the host is at most two steps ahead of the device, so the
device waits as long. The loader alone is timed too; its speed divided by the step's is the reserve.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import torch

from fourds_dist.benchmark.photos import photos_by_all_cores, write_dataset
from fourds_dist.benchmark.step import FORMS, NUM_CLASSES, build_task
from fourds_dist.benchmark.timing import device_name, table, usable_device
from fourds_dist.cli.option_types import MOST, real, whole
from fourds_dist.data import Batch, DataConfig, StreamConfig, TrainStream, open_split
from fourds_dist.training.device_prefetch import prefetch_to_device
from fourds_dist.training.distributed.world import World
from fourds_dist.training.step import StepConfig, TrainStep
from fourds_dist.training.strategies.optim import OptimConfig, TaskOptimizers

WARM_UP_STEPS = 6
STEPS_AHEAD = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `--feed`."""
    group = parser.add_argument_group("--feed")
    group.add_argument("--feed", action="store_true", help="time the fast step with and without its data")
    group.add_argument("--device", type=usable_device, default="cuda" if torch.cuda.is_available() else "cpu")
    group.add_argument("--feed-batch", type=whole(1, MOST), default=256)
    group.add_argument(
        "--feed-seconds",
        type=real(0.01, 1e5),
        default=40.0,
        help="time of the run with data; a quarter of it for the others",
    )
    group.add_argument("--image-size", type=whole(1, MOST), default=224)
    group.add_argument("--copies", type=whole(1, MOST), default=4, help="times that every JPEG is written")
    group.add_argument("--threads", type=whole(1, MOST), help="decoding threads (default: as in a run)")
    group.add_argument(
        "--decoded-cache", action="store_true", help="read images from data.cache_decoded_gib, filled before"
    )
    group.add_argument("--compile", action="store_true", help="the step under torch.compile")


@dataclass(frozen=True)
class Speed:
    """Speed of one run."""

    images_per_s: float
    waiting: float
    """Share of the time in which no batch was ready."""
    cores: float
    """CPU seconds per second, all threads."""


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print, and return the figures."""
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory(prefix="feed-") as folder:
        began = time.perf_counter()
        num_bytes = _write(Path(folder), options.images, options.copies)
        made_s = time.perf_counter() - began
        stream = _stream(folder, options, num_bytes)
        if options.decoded_cache:
            for _ in islice(stream.batches(0), stream.num_steps_per_epoch):
                pass
        train = _training(options, device)
        print(
            f"4Ds step, {device_name(device)}, torch {torch.__version__}, batch {options.feed_batch} at "
            f"{options.image_size} px; {options.images * options.copies} JPEGs, {num_bytes / 2**20:.0f} MiB, made in "
            f"{made_s:.0f} s; {len(os.sched_getaffinity(0))} cores, {_threads(options)} decoding threads",
            flush=True,
        )
        first = next(iter(prefetch_to_device(stream.batches(0), device)))
        rows = {
            "one batch on the device": timed(
                repeat(first), train, device, options.feed_seconds / 4, lambda: 0.0
            ),
            "fed from disk": timed(
                prefetch_to_device(stream.batches(1), device),
                train,
                device,
                options.feed_seconds,
                lambda: stream.wait_s,
            ),
            "loader alone": timed(
                stream.batches(2), lambda _: None, torch.device("cpu"), options.feed_seconds / 4, lambda: 0.0
            ),
        }
    return _shown(rows, stream, options)


def timed(
    batches: Iterator[Batch],
    use: Callable[[Batch], object],
    device: torch.device,
    seconds: float,
    wait_s: Callable[[], float],
) -> Speed:
    """Use batches for `seconds`; the host is at most STEPS_AHEAD steps ahead of the device."""
    on_gpu = device.type == "cuda"
    for batch in islice(batches, WARM_UP_STEPS):
        use(batch)
    if on_gpu:
        torch.cuda.synchronize()
    done: list[torch.cuda.Event] = []
    began, waited_s, cpu_s, num_images = time.perf_counter(), wait_s(), time.process_time(), 0
    for batch in batches:
        use(batch)
        num_images += len(batch)
        if on_gpu:
            done.append(torch.cuda.Event())
            done[-1].record()
            if len(done) > STEPS_AHEAD:
                # Sleep, because a busy loop would take a core from decoding.
                event = done.pop(0)
                while not event.query():
                    time.sleep(5e-4)
        if time.perf_counter() - began > seconds:
            break
    if on_gpu:
        torch.cuda.synchronize()
    wall_s = time.perf_counter() - began
    waiting, cores = (wait_s() - waited_s) / wall_s, (time.process_time() - cpu_s) / wall_s
    if hasattr(batches, "close"):
        batches.close()  # pyright: ignore[reportAttributeAccessIssue]
    return Speed(num_images / wall_s, waiting, cores)


def _training(options: argparse.Namespace, device: torch.device) -> Callable[[Batch], None]:
    torch.manual_seed(0)
    task = build_task(FORMS["fast"], options.image_size).to(device)
    world, config = World(0, 1, device), StepConfig(compile=options.compile)
    step = TrainStep(task, world, config, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    optimizers = TaskOptimizers(task.parameter_groups(), OptimConfig(), num_steps=10**6)

    def train(batch: Batch) -> None:
        step(batch)
        optimizers.step()

    return train


def _stream(folder: str, options: argparse.Namespace, num_bytes: int) -> TrainStream:
    config = DataConfig(
        resize_px=options.image_size * 256 // 224,
        crop_px=options.image_size,
        threads=options.threads,
        shuffle_mib=min(
            256.0, num_bytes / 2**20 / 4
        ),  # smaller than the data, so that they are not all in memory
        cache_dir=f"{folder}/cache" if options.decoded_cache else None,
        cache_decoded_gib=64 if options.decoded_cache else 0,
    )
    split = open_split(StreamConfig(url=folder), "train")
    return TrainStream(
        {"target": split}, config, global_batch_size=options.feed_batch, rank=0, world_size=1, seed=0
    )


def _threads(options: argparse.Namespace) -> int:
    from fourds_dist.data.stream.batches import num_threads

    return options.threads or num_threads(1)


def _write(folder: Path, num_images: int, copies: int) -> int:
    """Write shards of photographs, made on all cores; return their bytes."""
    images = photos_by_all_cores(num_images)
    write_dataset(folder, images * copies, num_shards=max(2, num_images * copies // 512))
    return sum(path.stat().st_size for path in folder.glob("*.tar"))


def _shown(rows: dict[str, Speed], stream: TrainStream, options: argparse.Namespace) -> dict[str, Any]:
    lines = [
        [name, f"{speed.images_per_s:.0f}", f"{speed.waiting:.3f}", f"{speed.cores:.2f}"]
        for name, speed in rows.items()
    ]
    print(table(["", "images/s", "waiting", "cores"], lines))
    fixed, fed, alone = rows.values()
    fed_over_fixed = fed.images_per_s / fixed.images_per_s
    reserve = alone.images_per_s / fixed.images_per_s
    per_image_s = alone.cores / alone.images_per_s
    num_cores = per_image_s * fixed.images_per_s
    print(
        f"fed over fixed {fed_over_fixed:.3f}, waiting {fed.waiting:.1%}; the loader alone is {reserve:.2f} times as "
        f"fast as the step; {1e3 * per_image_s:.2f} ms of CPU per image: the step needs {num_cores:.1f} cores of "
        "decoding"
    )
    return {
        "feed": {name: asdict(speed) for name, speed in rows.items()},
        "fed_over_fixed": fed_over_fixed,
        "loader_over_step": reserve,
        "cpu_ms_per_image": 1e3 * per_image_s,
        "faults": dict(stream.counts),
        "batch": options.feed_batch,
        "num_classes": NUM_CLASSES,
    }
