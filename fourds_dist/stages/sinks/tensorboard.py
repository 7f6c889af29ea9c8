"""TensorBoard: event files in tensorboard/STAGE in the run's folder, on a disk or in a store.

tensorboard --logdir runs/NAME/tensorboard

In a store, TensorBoard reads s3:// and gs:// itself; the files are uploaded at the end of each epoch.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fourds_dist.io.storage import is_local, locate
from fourds_dist.runs.events import Event, StageEnded, StageStarted, StageStopped, StepLogged
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.sinks.tracked_values import flat_values

FOLDER = "tensorboard"
FLUSH_S = 30.0
"""Longest time between two writes to the disk while steps are logged."""


class TensorBoard:
    """Sink that writes event files; a resumed stage writes another file, which replaces the steps that run again."""

    def __init__(self, folder: RunFolder, stage: str, settings_text: str) -> None:
        self._url = folder.path(f"{FOLDER}/{stage}")
        fs, path = locate(self._url)
        self._scratch = None if is_local(fs) else tempfile.mkdtemp(prefix="fourds-tensorboard-")
        self._path = self._scratch or path
        self._text = settings_text
        self._writer: Any = None
        self._flushed = 0.0

    def __call__(self, event: Event) -> None:
        """Write one event at its step."""
        if self._writer is None:
            self._writer = self._opened()
            if event.step:
                self._hide_from(event.step + 1, event.time)
            self._write(event.step, event.time, summary=_summary("configuration", self._text))
        for name, value in flat_values(event).items():
            if name in ("step", "time"):
                continue
            self._write(event.step, event.time, summary=_summary(name, value))
        ends = isinstance(event, StageEnded | StageStopped)
        if not isinstance(event, StepLogged) or time.monotonic() - self._flushed > FLUSH_S:
            self._writer.flush()
            self._flushed = time.monotonic()
        if ends:
            self._writer.close()
        if self._scratch is not None and not isinstance(event, StepLogged | StageStarted):
            self._upload(self._scratch, is_last=ends)

    def _opened(self) -> Any:
        # SummaryWriter passes events through a queue to another thread, and its flush() does not wait for them. This
        # sink has a thread of its own (`Background`) and writes the file there.
        from tensorboardX.event_file_writer import EventsWriter

        Path(self._path).mkdir(parents=True, exist_ok=True)
        # The name of a file has whole seconds; the suffix distinguishes two starts within one.
        return EventsWriter(str(Path(self._path, "events")), f".{uuid.uuid4().hex[:8]}")

    def _write(self, step: int, at: float, **content: Any) -> None:
        from tensorboardX.proto import event_pb2

        records: Any = event_pb2  # its classes are made at import
        self._writer.write_event(records.Event(step=step, wall_time=at, **content))

    def _hide_from(self, step: int, at: float) -> None:
        """Make TensorBoard hide what earlier files hold of this step and later ones."""
        self._write(step, at, session_log={"status": "START"})

    def _upload(self, scratch: str, *, is_last: bool) -> None:
        for file in sorted(Path(scratch).iterdir()):
            fs, path = locate(f"{self._url}/{file.name}")
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            fs.put_file(str(file), path)
        if is_last:
            shutil.rmtree(scratch, ignore_errors=True)


def _summary(name: str, value: float | str) -> Any:
    from tensorboardX import summary

    return summary.text(name, value) if isinstance(value, str) else summary.scalar(name, value)


def starter(folder: RunFolder, stage: str, settings_text: str) -> Callable[[], TensorBoard]:
    """Return a function that starts the event files of a stage."""
    return lambda: TensorBoard(folder, stage, f"```yaml\n{settings_text}\n```")
