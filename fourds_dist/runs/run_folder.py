"""The folder of a run: configuration keys, files and metrics.jsonl. `runs.layout` lists the files."""

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

from fourds_dist.config.effects import COURSE, LOG, PLACE, WEIGHTS
from fourds_dist.config.section import ConfigError, ConfigSection
from fourds_dist.config.stage_names import StageName
from fourds_dist.io.json_text import parse_json
from fourds_dist.io.retry import with_retries
from fourds_dist.io.storage import is_local, is_url, join, locate, plain, write_bytes
from fourds_dist.runs.accuracy import GivenMeasure
from fourds_dist.runs.events import Event, Note, StageEnded, StageStopped, StepLogged, decode, encode
from fourds_dist.runs.layout import RunFile

_log = logging.getLogger(__name__)


class RunConfig(ConfigSection):
    """Name, folder, seed and checkpoints of a run."""

    name: Annotated[str, PLACE] = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run and of its folder under run.dir. The same name with the same configuration resumes the run. Keys
    that change no weight may change on resume (data.threads, launch.workers, step.max_nonfinite_steps, run.until, ...);
    keys of a stage may change until the stage has started."""

    dir: Annotated[str, PLACE] = "runs"
    """Folder or URL (s3://...) of the folders of runs; every node must be able to reach it."""

    seed: Annotated[int, WEIGHTS] = Field(default=0, ge=0)
    """Seed of all randomness: initial weights, order of samples, augmentation."""

    select_by: Annotated[GivenMeasure, WEIGHTS] = "auto"
    """Criterion of the best epoch on the validation split. `auto`: accuracy if the split has labels that may be used,
    otherwise a label-free criterion. With labels: `accuracy` (top-1), `balanced_accuracy` (unweighted mean of the
    accuracies of the classes), or `macro_f1` (unweighted mean of the F1 scores of the classes); among epochs within one
    standard error of the highest value, the lowest loss decides. Without labels of the target, the highest value of
    `source_accuracy`, `entropy` (negative), `infomax` (mutual information of images and classes), `snd` (soft
    neighbourhood density), `bnm` (nuclear norm of the predictions), `agreement` (with the teacher), or `confidence`
    (estimated accuracy, calibrated on the source); these apply to the stages on the target."""

    criteria: Annotated[Literal["auto", "all"], LOG] = "auto"
    """`all`: log the label-free criteria and estimate the accuracy on the target in every run; `auto`: only if a
    label-free criterion selects the epoch, or the validation split has no labels that may be used."""

    until: Annotated[StageName, COURSE] = "distill"
    """The last stage to run. `source` trains only the teacher, for use as teacher.checkpoint of other runs."""

    keep_checkpoints: Annotated[int, COURSE] = Field(default=2, ge=1)
    """Number of newest checkpoints of a stage to keep; older ones are removed after a newer one is complete."""

    retry_timeout_s: Annotated[float, COURSE] = Field(default=300.0, ge=0)
    """How long failed writes to run.dir are retried (storage unreachable, disk full), in seconds."""


class RunFolder:
    """Paths and small files of one run.

    Args:
        url: run.dir/run.name, a path or URL.
        retry_timeout_s: how long failed writes are retried, in seconds; 0: the first error is raised unchanged.
        note: receives one line per storage fault.
    """

    def __init__(
        self, url: str, *, retry_timeout_s: float = 0.0, note: Callable[[str], None] = _log.warning
    ) -> None:
        self.url = plain(url)
        self._retry_timeout_s, self._note = retry_timeout_s, note

    @property
    def is_local(self) -> bool:
        """Whether the folder is on this machine's file system."""
        return not is_url(self.url)

    def path(self, name: str) -> str:
        """Return the path or URL of an entry."""
        return join(self.url, name)

    def exists(self, name: str) -> bool:
        """Return whether an entry exists.

        Raises:
            PermissionError: this user may not read the folder.
        """
        fs, path = locate(self.path(name))
        if is_local(fs):
            try:
                Path(path).stat()
            except (FileNotFoundError, NotADirectoryError):
                return False
            return True
        fs.invalidate_cache(path)  # other processes write to this folder too
        return fs.exists(path)

    def read_text(self, name: str) -> str:
        """Return the text of an entry.

        Raises:
            ValueError: the entry is not text in UTF-8.
        """
        fs, path = locate(self.path(name))
        data = fs.cat_file(path)
        assert isinstance(data, bytes)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{self.path(name)} is not text in UTF-8 (byte {error.start}); restore it"
            ) from None

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write an entry atomically.

        Raises:
            OSError: writing still fails after `retry_timeout_s`.
        """

        def write() -> None:
            write_bytes(self.path(name), data)

        if self._retry_timeout_s == 0:
            write()
            return
        what = f"{self.path(name)} could not be written"
        with_retries(write, what, retry_timeout_s=self._retry_timeout_s, note=self._note)

    def write_text(self, name: str, text: str) -> None:
        """Write a text entry atomically."""
        self.write_bytes(name, text.encode())

    def note(self, stage: StageName, text: str) -> None:
        """Append a note to metrics.jsonl and print it."""
        print(f"{self.url} {text}", file=sys.stderr)
        event = Note(step=0, text=text).stamped(stage, time.time())
        before = self.read_text(RunFile.METRICS) if self.exists(RunFile.METRICS) else ""
        if before and not before.endswith("\n"):  # the last line is truncated
            before = before.rpartition("\n")[0] + "\n"
        self.write_text(RunFile.METRICS, f"{before}{encode(event)}\n")

    def read_json(self, name: str) -> Any:
        """Return the JSON value of an entry.

        Raises:
            ValueError: the entry is not JSON.
        """
        try:
            return parse_json(self.read_text(name))
        except ValueError as error:
            raise ValueError(f"{self.path(name)} is not JSON ({error}); restore it, or remove it") from None

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as a JSON entry atomically."""
        self.write_text(name, json.dumps(value, indent=2) + "\n")


def refuse_memory(url: str, *, is_one_process: bool) -> None:
    """Refuse memory:// for work in several processes, which do not share memory.

    Raises:
        ConfigError: `url` is memory:// and there are several processes.
    """
    if url.startswith("memory:") and not is_one_process:
        raise ConfigError(
            f"{url} is in the memory of one process; set run.dir to a folder or a store's URL, or train in this "
            "process only (launch.runner=inline; for sweeps and comparisons also through=here)"
        )


class MetricsFile:
    """metrics.jsonl, with one line per event.

    On a local disk each line is appended. Elsewhere a thread uploads the whole file at all events except logging steps.
    Failed writes are retried; their lines are part of the next upload. The end of a stage waits for the last upload.

    Args:
        folder: folder of the run.
        stage: stage of the events.
        from_step: step at which the stage starts; its lines of later steps are dropped, since these steps run again.
        retry_timeout_s: how long failed writes are retried, in seconds.
        note: receives one line per storage fault; called from the writing thread.

    Raises:
        OSError: at the start or end of a stage, writing still fails after `retry_timeout_s`.
    """

    def __init__(
        self,
        folder: RunFolder,
        stage: str,
        from_step: int,
        *,
        retry_timeout_s: float = 300.0,
        note: Callable[[str], None] = _log.warning,
    ) -> None:
        self._folder = folder
        self._retries: dict[str, Any] = {"retry_timeout_s": retry_timeout_s, "note": note}
        lines = with_retries(self._read, f"{folder.path(RunFile.METRICS)} could not be read", **self._retries)
        self._lines = [line for line in lines if _keep(line, stage, from_step)]
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._pending = self._writer.submit(self._write)
        self._pending.result()
        self._appends = folder.is_local

    def __call__(self, event: Event) -> None:
        """Add one event; at the last event of a stage, return after all lines are written."""
        line = encode(event)
        self._lines.append(line)
        if self._appends:
            try:
                with Path(self._folder.path(RunFile.METRICS)).open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
            except OSError:  # e.g. a full disk; the line may be written in part
                self._appends = False
        if self._appends or isinstance(event, StepLogged):
            return
        ends = isinstance(event, StageEnded | StageStopped)
        if ends or self._pending.done():
            self._pending = self._writer.submit(self._write)
        if ends:
            self._pending.result()

    def _read(self) -> list[str]:
        return (
            self._folder.read_text(RunFile.METRICS).splitlines()
            if self._folder.exists(RunFile.METRICS)
            else []
        )

    def _write(self) -> None:
        path = self._folder.path(RunFile.METRICS)

        def write() -> None:
            write_bytes(path, "".join(f"{line}\n" for line in self._lines).encode())

        with_retries(write, f"{path} could not be written", **self._retries)


def _keep(line: str, stage: str, from_step: int) -> bool:
    event = decode(line)
    return event is not None and (event.stage != stage or event.step <= from_step)
