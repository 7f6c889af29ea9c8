"""Data wait of the training step: `python -m fourds_dist.benchmark data --feed`.

The default step of a run (ResNet34 -> ResNet18, batch 256, 224 px) is timed with one batch that stays on the device,
then with a `TrainStream` for every decoder, source and number of cores. A row shows

    images/s   of the step with its data
    fed        the same as a share of the step with one batch
    waiting    share of the time in which the GPU had no step to compute (on a CPU: the host no batch), less that of the
               step with one batch
    slower     by how much a step takes longer on the GPU beside its decoder
    cores      CPU seconds per second, with all processes
    alone      images/s of the loader without a step

Cores are those that the process and its decoders may use, by sched_setaffinity. Rows are printed as they are measured.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice, product, repeat
from pathlib import Path
from typing import Any

import torch

from fourds_dist.benchmark.peers import cpu_s
from fourds_dist.benchmark.photos import photos_by_all_cores, write_dataset
from fourds_dist.benchmark.s3 import s3_server
from fourds_dist.benchmark.step import FORMS, NUM_CLASSES, build_task
from fourds_dist.benchmark.timing import device_name, usable_device
from fourds_dist.cli.option_types import MOST, real, whole
from fourds_dist.data import Batch, DataConfig, StreamConfig, TrainStream, open_split
from fourds_dist.training.device_prefetch import prefetch_to_device
from fourds_dist.training.distributed.world import World
from fourds_dist.training.garbage import rare_collections
from fourds_dist.training.step import StepConfig, TrainStep
from fourds_dist.training.strategies.optim import OptimConfig, TaskOptimizers

WARM_UP_STEPS = 6
STEPS_AHEAD = 2
SOURCES = ("disk", "s3", "cache")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `--feed`."""
    group = parser.add_argument_group("--feed")
    group.add_argument("--feed", action="store_true", help="time the step with and without its data")
    group.add_argument("--device", type=usable_device, default="cuda" if torch.cuda.is_available() else "cpu")
    group.add_argument("--feed-batch", type=whole(1, MOST), default=256)
    group.add_argument("--feed-seconds", type=real(0.01, 1e5), default=4.0, help="time of each measurement")
    group.add_argument("--image-size", type=whole(1, MOST), default=224)
    group.add_argument("--copies", type=whole(1, MOST), default=4, help="times that every JPEG is written")
    group.add_argument(
        "--feed-cores", type=whole(1, MOST), nargs="+", help="numbers of cores (default: 1, 4, 16, or all)"
    )
    group.add_argument(
        "--decoders", nargs="+", default=["auto"], choices=("auto", "threads", "processes", "gpu")
    )
    group.add_argument(
        "--feed-from", nargs="+", default=["disk"], choices=SOURCES, help="sources of the images"
    )
    group.add_argument("--compile", action="store_true", help="the step under torch.compile")


@dataclass(frozen=True)
class Speed:
    """Speed of one measurement."""

    images_per_s: float
    waiting: float
    """Share of the time without a step on the GPU; on a CPU, without a batch."""
    cores: float
    """CPU seconds per second, with all processes."""
    step_ms: float | None = None
    """Time of a step on the GPU."""


@dataclass(frozen=True)
class FeedCase:
    """One row: where images come from, what decodes them, on how many cores."""

    source: str
    decoders: str
    cores: int


@dataclass(frozen=True)
class FeedRow:
    """Figures of a row; see the module."""

    case: FeedCase
    fed: Speed
    alone: Speed
    fixed: Speed
    decoded_by: str

    def text(self) -> str:
        """Return one line of the table."""
        share = self.fed.images_per_s / self.fixed.images_per_s
        slower = "" if self.slower is None else f"{self.slower:.1%}"
        return (
            f"{self.case.source:6} {self.decoded_by:10} {self.case.cores:5} {self.fed.images_per_s:9.0f} {share:6.3f} "
            f"{self.waiting:8.1%} {slower:>7} {self.fed.cores:6.2f} {self.alone.images_per_s:8.0f}"
        )

    @property
    def waiting(self) -> float:
        """Waiting that the data cause."""
        return max(0.0, self.fed.waiting - self.fixed.waiting)

    @property
    def slower(self) -> float | None:
        """Share by which a step takes longer than with one batch; None on a CPU."""
        if self.fed.step_ms is None or self.fixed.step_ms is None:
            return None
        return self.fed.step_ms / self.fixed.step_ms - 1


HEADER = (
    f"{'from':6} {'decoded by':10} {'cores':>5} {'images/s':>9} {'fed':>6} {'waiting':>8} "
    f"{'slower':>7} {'cores':>6} {'alone':>8}"
)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print, and return the figures."""
    device = torch.empty(0, device=options.device).device  # with its index
    all_cores = sorted(os.sched_getaffinity(0))
    cores = options.feed_cores or sorted({min(n, len(all_cores)) for n in (1, 4, 16)})
    if max(cores) > len(all_cores):
        raise ValueError(f"--feed-cores {max(cores)}: this process may run on {len(all_cores)} cores")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="feed-")))
        began = time.perf_counter()
        num_bytes = _write(folder / "shards", options.images, options.copies)
        made_s = time.perf_counter() - began
        urls = {"disk": str(folder / "shards"), "cache": str(folder / "shards")}
        if "s3" in options.feed_from:
            os.environ.update(stack.enter_context(s3_server(folder, avoid=all_cores[: max(cores)])))
            urls["s3"] = "s3://photos/shards"
        train = _training(options, device)
        print(
            f"4Ds step, {device_name(device)}, torch {torch.__version__}, batch {options.feed_batch} at "
            f"{options.image_size} px; {options.images * options.copies} JPEGs, {num_bytes / 2**20:.0f} MiB, made in "
            f"{made_s:.0f} s",
            flush=True,
        )
        first = next(iter(_stream(urls["disk"], options, num_bytes, "threads", device).batches(0)))
        fixed = timed(repeat(first.to(device)), train, device, options.feed_seconds, lambda: 0.0)
        print(f"the step with one batch: {fixed.images_per_s:.0f} images/s\n{HEADER}", flush=True)
        rows = []
        cases = [FeedCase(*case) for case in product(options.feed_from, options.decoders, cores)]
        for case in cases:
            source, decoders, number = case.source, case.decoders, case.cores
            if source == "cache" and decoders == "gpu":
                continue  # the cache holds images that CPUs decode
            cache = folder / "cache" if source == "cache" else None
            if cache and not cache.exists():
                _read_an_epoch(_stream(urls[source], options, num_bytes, decoders, device, cache))
            # Threads and processes that start from now on are bound, too.
            os.sched_setaffinity(0, all_cores[:number])
            stream = _stream(urls[source], options, num_bytes, decoders, device, cache)
            if cache:  # cached images are compared with their checksums in a stream's first epoch
                _read_an_epoch(stream)
            fed = timed(
                prefetch_to_device(stream.batches(1), device),
                train,
                device,
                options.feed_seconds,
                lambda stream=stream: stream.wait_s,
            )
            alone = timed(
                stream.batches(2), lambda _: None, torch.device("cpu"), options.feed_seconds / 2, lambda: 0.0
            )
            by = "gpu" if stream.gpu else decoders
            rows.append(FeedRow(case, fed, alone, fixed, by))
            print(rows[-1].text(), flush=True)
            os.sched_setaffinity(0, all_cores)
    return {"fixed": asdict(fixed), "rows": [asdict(row) for row in rows], "num_classes": NUM_CLASSES}


@rare_collections()
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
    steps: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
    if on_gpu:
        torch.cuda.synchronize()
    began, waited_s, cpu_before_s, num_images = time.perf_counter(), wait_s(), cpu_s(), 0
    for batch in batches:
        if on_gpu:
            steps.append((torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)))
            steps[-1][0].record()
        use(batch)
        num_images += len(batch)
        if on_gpu:
            steps[-1][1].record()
            if len(steps) > STEPS_AHEAD:
                # Sleep, because a busy loop would take a core from decoding.
                while not steps[-1 - STEPS_AHEAD][1].query():
                    time.sleep(5e-4)
        if time.perf_counter() - began > seconds:
            break
    if on_gpu:
        torch.cuda.synchronize()
    wall_s = time.perf_counter() - began
    waiting, step_ms = (wait_s() - waited_s) / wall_s, None
    if on_gpu:
        busy_ms = sum(start.elapsed_time(end) for start, end in steps)
        waiting, step_ms = max(0.0, 1 - busy_ms / 1e3 / wall_s), busy_ms / len(steps)
    cores = (cpu_s() - cpu_before_s) / wall_s
    if hasattr(batches, "close"):
        batches.close()  # pyright: ignore[reportAttributeAccessIssue]
    return Speed(num_images / wall_s, waiting, cores, step_ms)


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


def _stream(
    url: str,
    options: argparse.Namespace,
    num_bytes: int,
    decoders: Any,
    device: torch.device,
    cache: Path | None = None,
) -> TrainStream:
    config = DataConfig(
        resize_px=options.image_size * 256 // 224,
        crop_px=options.image_size,
        decoders=decoders,
        cache_dir=cache and str(cache),
        cache_decoded_gib=64 if cache else 0,
        # Smaller than the data, so that they are not all in memory.
        shuffle_mib=min(256.0, 0.75 * num_bytes / 2**20),
    )
    split = open_split(StreamConfig(url=url), "train")
    return TrainStream(
        {"target": split},
        config,
        global_batch_size=options.feed_batch,
        rank=0,
        world_size=1,
        seed=0,
        device=device,
    )


def _read_an_epoch(stream: TrainStream) -> None:
    for _ in islice(stream.batches(0), stream.num_steps_per_epoch + 1):
        pass


def _write(folder: Path, num_images: int, copies: int) -> int:
    """Write shards of photographs, made on all cores; return their bytes."""
    images = photos_by_all_cores(num_images)
    write_dataset(folder, images * copies, num_shards=max(2, num_images * copies // 512))
    return sum(path.stat().st_size for path in folder.glob("*.tar"))
