"""What the parts of `benchmark host` share: commands in processes of their own until the time limit, and their data."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from safetensors.torch import save_file

from fourds_dist.benchmark.photos import NUM_CLASSES, photos_by_all_cores, write_folder
from fourds_dist.cli.pack import main as pack
from fourds_dist.config.loading import to_yaml
from fourds_dist.models.backbones import BackboneConfig, build_backbone
from fourds_dist.processes.parent_death import bound

UNSHOWN = ("rounds", "is_captured")
"""Fields of `benchmark scaling` that are not in the rows."""
Row = dict[str, Any]


class PartFailedError(Exception):
    """A part ended without its rows."""


class Host:
    """What the parts share: the options, a scratch folder, the time that is left, and the rows so far."""

    def __init__(self, options: argparse.Namespace, folder: Path, end_s: float, rows: list[Row]) -> None:
        self.options, self.folder, self.rows = options, folder, rows
        self._end_s = end_s
        self.workers = sorted(options.workers)

    @property
    def left_s(self) -> float:
        """Seconds until the time limit."""
        return self._end_s - time.monotonic()

    @property
    def shards(self) -> Path:
        """A packed data set of JPEGs."""
        packed = self.folder / "shards"
        if not packed.exists():
            write_folder(self.folder / "photos", photos_by_all_cores(self.options.images))
            if pack(["folder", str(self.folder / "photos"), str(packed)]):
                raise PartFailedError("the JPEGs could not be packed")
        return packed

    def do(self, name: str, words: list[str]) -> None:
        """Run a command of this environment until its end or the time limit.

        Raises:
            PartFailedError: the command failed or was ended; the error has its last lines.
        """
        with self.started(name, words) as process:
            self.finish(name, process)

    @contextmanager
    def started(self, name: str, words: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        """Start a command; what is left of it when the block ends is killed."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                bound([sys.executable, "-m", *words]),
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.folder,
            )
            try:
                yield process
            finally:
                below: list[psutil.Process] = []
                with suppress(psutil.NoSuchProcess):
                    below = psutil.Process(process.pid).children(recursive=True)
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                for each in below:
                    with suppress(psutil.NoSuchProcess):
                        each.kill()
                process.wait()

    def finish(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Wait for a command.

        Raises:
            PartFailedError: the command failed, or the time is over.
        """
        try:
            code = process.wait(max(0.0, self.left_s))
        except subprocess.TimeoutExpired:
            raise PartFailedError("ended by the time limit") from None
        if code:
            lines = (self.folder / f"{name}.log").read_text("utf-8", "replace").splitlines()
            raise PartFailedError("failed: " + " | ".join(lines[-4:]))

    def scaling(self, name: str, *words: str, workers: list[int] | None = None) -> list[Row]:
        """Return the rows of `benchmark scaling` through torchrun, unless the words give another launcher."""
        options, file = self.options, self.folder / f"{name}.json"
        numbers = (str(num) for num in workers or self.workers)
        networks = (
            "--teacher",
            options.teacher,
            "--student",
            options.student,
            "--image-px",
            str(options.image_px),
        )
        common = ("--workers", *numbers, *networks, "--through", "torchrun", "--json", str(file))
        self.do(name, ["fourds_dist.benchmark", "scaling", *common, *words])
        rows = json.loads(file.read_text())["rows"]
        return [{key: value for key, value in row.items() if key not in UNSHOWN} for row in rows]

    def run_config(
        self, name: str, *, epochs: int, batch: int, images: int, workers: int, gpus: float = 1
    ) -> Path:
        """Write the configuration of a run that distils on the JPEGs, and return its path."""
        options = self.options
        teacher = self.folder / "teacher.safetensors"
        if not teacher.exists():
            save_file(build_backbone(BackboneConfig(arch=options.teacher), NUM_CLASSES).state_dict(), teacher)
        optim = {"lr": 0.02}
        tree = {
            "run": {"dir": str(self.folder / "runs"), "name": name},
            "target": {"url": str(self.shards), "train_images": images, "val_images": 64, "test_images": 64},
            "data": {"resize_px": options.image_px, "crop_px": options.image_px},
            "teacher": {"arch": options.teacher, "checkpoint": str(teacher)},
            "student": {"arch": options.student, "start": "random"},
            "distill_stage": {"epochs": epochs, "global_batch_size": batch, "optim": optim},
            "step": {"log_every_steps": 5},
            "launch": {"workers": workers, "cpus_per_worker": 0.5, "gpus_per_worker": gpus},
            "tracking": {"tools": []},
        }
        file = self.folder / f"{name}.yaml"
        file.write_text(to_yaml(tree))
        return file
