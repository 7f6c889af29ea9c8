"""TensorBoard: event files in tensorboard/STAGE in the run's folder, on a disk or in a store.

tensorboard --logdir runs/NAME/tensorboard

In a store, TensorBoard reads s3:// and gs:// itself; the files are uploaded at the end of each epoch.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fourds_dist.io.storage import is_local, locate
from fourds_dist.runs.events import Event, StageEnded, StageStarted, StageStopped, StepLogged
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.sinks.tracked_values import flat_values

FOLDER = "tensorboard"


class TensorBoard:
    """Sink that writes event files; a resumed stage writes another file, which replaces the steps that run again."""

    def __init__(self, folder: RunFolder, stage: str, settings_text: str) -> None:
        self._url = folder.path(f"{FOLDER}/{stage}")
        fs, path = locate(self._url)
        self._scratch = None if is_local(fs) else tempfile.mkdtemp(prefix="fourds-tensorboard-")
        self._path = self._scratch or path
        self._text = settings_text
        self._writer: Any = None

    def __call__(self, event: Event) -> None:
        """Write one event at its step."""
        if self._writer is None:
            self._writer = self._opened(event.step)
        for name, value in flat_values(event).items():
            if name in ("step", "time"):
                continue
            if isinstance(value, str):
                self._writer.add_text(name, value, event.step, event.time)
            else:
                self._writer.add_scalar(name, value, event.step, event.time)
        ends = isinstance(event, StageEnded | StageStopped)
        if ends:
            self._writer.close()
        elif not isinstance(event, StepLogged):
            self._writer.flush()
        if self._scratch is not None and not isinstance(event, StepLogged | StageStarted):
            self._upload(self._scratch, is_last=ends)

    def _opened(self, step: int) -> Any:
        from tensorboardX import SummaryWriter

        # The name of a file has whole seconds; the suffix distinguishes two starts within one.
        suffix = f".{uuid.uuid4().hex[:8]}"
        writer = SummaryWriter(self._path, purge_step=step + 1 if step else None, filename_suffix=suffix)
        writer.add_text("configuration", self._text, step)
        return writer

    def _upload(self, scratch: str, *, is_last: bool) -> None:
        for file in sorted(Path(scratch).iterdir()):
            fs, path = locate(f"{self._url}/{file.name}")
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            fs.put_file(str(file), path)
        if is_last:
            shutil.rmtree(scratch, ignore_errors=True)


def starter(folder: RunFolder, stage: str, settings_text: str) -> Callable[[], TensorBoard]:
    """Return a function that starts the event files of a stage."""
    return lambda: TensorBoard(folder, stage, f"```yaml\n{settings_text}\n```")
