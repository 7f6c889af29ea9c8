"""The folder of a run, on a local disk or in object storage, and what lies in it.

config.yaml          the resolved configuration
lease.json           which driver holds the folder, while one does
images.json          which images the run began with
metrics.jsonl        one line per event: steps, epochs, what was survived
wandb.json           each stage's run in Weights & Biases, which goes on where the stage does
source/, adapt/, distill/   checkpoints of the stages
teacher.safetensors  the teacher trained on the source
teacher_adapted.safetensors the teacher adapted to the target (adapt.method)
student_source.safetensors  the student trained on the source (student.start: source)
student.safetensors, adapters.safetensors   the result
summary.json         the final table
report.html, report/ the page that explains it, its pictures, and what the networks saw
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from fourds_dist.config import ConfigError, Section
from fourds_dist.effects import COURSE, PLACE, WEIGHTS
from fourds_dist.json_text import parsed_json
from fourds_dist.storage import is_url, join, locate, plain, write_bytes
from fourds_dist.training.patience import patiently

CONFIG, METRICS = "config.yaml", "metrics.jsonl"

_log = logging.getLogger(__name__)


class RunConfig(Section):
    """The run's name and place."""

    name: Annotated[str, PLACE] = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run and of its folder under run.dir; the same name with the same configuration goes on where it
    stopped. Keys that change no weight may have other values then (data.threads, launch.workers, step.max_bad_steps,
    run.until, ...), and those of a stage until it has begun."""

    dir: Annotated[str, PLACE] = "runs"
    """Folder or URL (s3://...) under which runs lie; must be reachable from every node."""

    seed: Annotated[int, WEIGHTS] = Field(default=0, ge=0)
    """Seed of everything random: initial weights, order of samples, augmentation."""

    until: Annotated[Literal["source", "adapt", "distill"], COURSE] = "distill"
    """The last stage to run. `source` leaves a trained teacher, which other runs take as teacher.checkpoint."""

    keep_checkpoints: Annotated[int, COURSE] = Field(default=2, ge=1)
    """The newest checkpoints of a stage that stay; older ones go once a newer one is whole."""

    patience_s: Annotated[float, COURSE] = Field(default=300.0, ge=0)
    """Seconds for which writing to run.dir is tried again where it fails: a store that is away, a disk that is full."""


class RunFolder:
    """Names and small files of one run.

    Args:
        url: run.dir/run.name, a path or URL.
        patience_s: how long a failing write is tried again; 0: it fails at once, as it is.
        note: told of storage trouble, in one line each.
    """

    def __init__(
        self, url: str, *, patience_s: float = 0.0, note: Callable[[str], None] = _log.warning
    ) -> None:
        self.url = plain(url)
        self._patience_s, self._note = patience_s, note

    @property
    def is_local(self) -> bool:
        """Whether the folder lies on this machine's file system."""
        return not is_url(self.url)

    def path(self, name: str) -> str:
        """Path or URL of an entry."""
        return join(self.url, name)

    def exists(self, name: str) -> bool:
        """Whether an entry is there."""
        fs, path = locate(self.path(name))
        fs.invalidate_cache(path)  # other processes write here too
        return fs.exists(path)

    def read_text(self, name: str) -> str:
        """An entry's text.

        Raises:
            ValueError: it is no text.
        """
        fs, path = locate(self.path(name))
        data = fs.cat_file(path)
        assert isinstance(data, bytes)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{self.path(name)} is no text in UTF-8 (byte {error.start}); restore it"
            ) from None

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write an entry, whole or not at all.

        Raises:
            OSError: for longer than the folder has patience.
        """

        def write() -> None:
            write_bytes(self.path(name), data)

        if self._patience_s == 0:
            write()
            return
        what = f"{self.path(name)} could not be written"
        patiently(write, what, patience_s=self._patience_s, note=self._note)

    def write_text(self, name: str, text: str) -> None:
        """Write an entry, whole or not at all."""
        self.write_bytes(name, text.encode())

    def note(self, stage: str, text: str) -> None:
        """Add a line for people to metrics.jsonl, and show it."""
        print(f"{self.url} {text}", file=sys.stderr)
        row = {"stage": stage, "time": round(time.time(), 3), "event": "note", "step": 0, "text": text}
        before = self.read_text(METRICS) if self.exists(METRICS) else ""
        if before and not before.endswith("\n"):  # cut short by a kill
            before = before.rpartition("\n")[0] + "\n"
        self.write_text(METRICS, before + json.dumps(row) + "\n")

    def read_json(self, name: str) -> Any:
        """An entry's JSON.

        Raises:
            ValueError: it holds something else.
        """
        try:
            return parsed_json(self.read_text(name))
        except ValueError as error:
            raise ValueError(f"{self.path(name)} is no JSON ({error}); restore it, or remove it") from None

    def write_json(self, name: str, value: Any) -> None:
        """Write an entry as JSON, whole or not at all."""
        self.write_text(name, json.dumps(value, indent=2) + "\n")


def refuse_memory(url: str, *, is_one_process: bool) -> None:
    """Refuse memory:// for what runs in several processes, each of which has a memory of its own.

    Raises:
        ConfigError: always then.
    """
    if url.startswith("memory:") and not is_one_process:
        raise ConfigError(
            f"{url} lies in the memory of one process; give run.dir a folder or a store's URL, or train in this "
            "process alone (launch.runner=inline; for comparisons also through=here)"
        )


class MetricsFile:
    """metrics.jsonl: every event a line. Appended on a local disk; elsewhere uploaded whole, beside training, at what
    are no steps. What cannot be written is tried again, and comes with the next upload; the last one is waited for.

    Args:
        folder: of the run.
        stage: whose events follow.
        from_step: this stage's lines past it are dropped first: they belong to steps that are now done again.
        patience_s: how long a failing write is tried again.
        note: told of storage trouble, in one line each; called from the writing thread.

    Raises:
        OSError: at the start or the end of a stage, out of patience.
    """

    def __init__(
        self,
        folder: RunFolder,
        stage: str,
        from_step: int,
        *,
        patience_s: float = 300.0,
        note: Callable[[str], None] = _log.warning,
    ) -> None:
        self._folder = folder
        self._patience: dict[str, Any] = {"patience_s": patience_s, "note": note}
        lines = patiently(self._read, f"{folder.path(METRICS)} could not be read", **self._patience)
        self._lines = [line for line in lines if _keep(line, stage, from_step)]
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._under_way = self._writer.submit(self._write)
        self._under_way.result()
        self._appends = folder.is_local

    def __call__(self, row: dict[str, Any]) -> None:
        """Add one event; the stage's last one comes back once all is written."""
        line = json.dumps(row)
        self._lines.append(line)
        if self._appends:
            try:
                with Path(self._folder.path(METRICS)).open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
            except OSError:  # a full disk; a part of the line may be there
                self._appends = False
        if self._appends or row["event"] == "step":
            return
        ends = row["event"] in ("end", "stopped")
        if ends or self._under_way.done():
            self._under_way = self._writer.submit(self._write)
        if ends:
            self._under_way.result()

    def _read(self) -> list[str]:
        return self._folder.read_text(METRICS).splitlines() if self._folder.exists(METRICS) else []

    def _write(self) -> None:
        place = self._folder.path(METRICS)

        def write() -> None:  # with a patience of its own, that waits for nobody
            write_bytes(place, "".join(f"{line}\n" for line in self._lines).encode())

        patiently(write, f"{place} could not be written", **self._patience)


def _keep(line: str, stage: str, from_step: int) -> bool:
    row = event_of(line)
    if row is None:
        return False
    return row.get("stage") != stage or row.get("step", 0) <= from_step


def event_of(line: str) -> dict[str, Any] | None:
    """The event that a line of metrics.jsonl holds; None for what is none: a line cut short by a kill, or edited."""
    try:
        row = parsed_json(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("event"), str):
        return None
    texts = all(isinstance(row.get(key, ""), str) for key in ("stage", "text"))
    numbers = all(is_number(row.get(key, 0)) for key in ("step", "epoch", "time", "num_bad_samples"))
    return row if texts and numbers else None


def is_number(value: Any) -> bool:
    """Whether a value in an event is a number of a size that steps, times and accuracies have; not NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e12 < value < 1e12
