"""The folder of a run: its configuration keys, reading and writing its files, and metrics.jsonl.

`runs.layout` lists the files.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from fourds_dist.config import ConfigError, Section
from fourds_dist.effects import COURSE, PLACE, WEIGHTS
from fourds_dist.json_text import parsed_json
from fourds_dist.runs.events import Event, Note, StageEnded, StageStopped, StepLogged, decode, encode
from fourds_dist.runs.layout import RunFile, StageName
from fourds_dist.storage import is_local, is_url, join, locate, plain, write_bytes
from fourds_dist.training.patience import patiently

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

    until: Annotated[StageName, COURSE] = "distill"
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
        """Whether an entry is there.

        Raises:
            PermissionError: this user may not look into the folder.
        """
        fs, path = locate(self.path(name))
        if is_local(fs):
            try:
                Path(path).stat()
            except (FileNotFoundError, NotADirectoryError):
                return False
            return True
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

    def note(self, stage: StageName, text: str) -> None:
        """Add a line for people to metrics.jsonl, and show it."""
        print(f"{self.url} {text}", file=sys.stderr)
        event = Note(step=0, text=text).stamped(stage, time.time())
        before = self.read_text(RunFile.METRICS) if self.exists(RunFile.METRICS) else ""
        if before and not before.endswith("\n"):  # cut short by a kill
            before = before.rpartition("\n")[0] + "\n"
        self.write_text(RunFile.METRICS, f"{before}{encode(event)}\n")

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
        lines = patiently(self._read, f"{folder.path(RunFile.METRICS)} could not be read", **self._patience)
        self._lines = [line for line in lines if _keep(line, stage, from_step)]
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._under_way = self._writer.submit(self._write)
        self._under_way.result()
        self._appends = folder.is_local

    def __call__(self, event: Event) -> None:
        """Add one event; the stage's last one comes back once all is written."""
        line = encode(event)
        self._lines.append(line)
        if self._appends:
            try:
                with Path(self._folder.path(RunFile.METRICS)).open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
            except OSError:  # a full disk; a part of the line may be there
                self._appends = False
        if self._appends or isinstance(event, StepLogged):
            return
        ends = isinstance(event, StageEnded | StageStopped)
        if ends or self._under_way.done():
            self._under_way = self._writer.submit(self._write)
        if ends:
            self._under_way.result()

    def _read(self) -> list[str]:
        return (
            self._folder.read_text(RunFile.METRICS).splitlines()
            if self._folder.exists(RunFile.METRICS)
            else []
        )

    def _write(self) -> None:
        place = self._folder.path(RunFile.METRICS)

        def write() -> None:  # with a patience of its own, that waits for nobody
            write_bytes(place, "".join(f"{line}\n" for line in self._lines).encode())

        patiently(write, f"{place} could not be written", **self._patience)


def _keep(line: str, stage: str, from_step: int) -> bool:
    event = decode(line)
    return event is not None and (event.stage != stage or event.step <= from_step)
