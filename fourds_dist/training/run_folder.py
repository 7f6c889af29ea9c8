"""The folder of a run, on a local disk or in object storage, and what lies in it.

config.yaml          the resolved configuration
metrics.jsonl        one line per event: steps, epochs, what was survived
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
from pathlib import Path
from typing import Any, Literal

import fsspec
from pydantic import Field

from fourds_dist.config import Section
from fourds_dist.storage import write_bytes


class RunConfig(Section):
    """The run's name and place."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run and of its folder under run.dir; the same name with the same configuration goes on where it
    stopped."""

    dir: str = "runs"
    """Folder or URL (s3://...) under which runs lie; must be reachable from every node."""

    seed: int = Field(default=0, ge=0)
    """Seed of everything random: initial weights, order of samples, augmentation."""

    until: Literal["source", "adapt", "distill"] = "distill"
    """The last stage to run. `source` leaves a trained teacher, which other runs take as teacher.checkpoint."""

    keep_checkpoints: int = Field(default=2, ge=1)
    """The newest checkpoints of a stage that stay; older ones go once a newer one is whole."""

    patience_s: float = Field(default=300.0, ge=0)
    """Seconds for which writing to run.dir is tried again where it fails: a store that is away, a disk that is full."""


class RunFolder:
    """Names and small files of one run.

    Args:
        url: run.dir/run.name, a path or URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether the folder lies on this machine's file system."""
        return "://" not in self.url

    def path(self, name: str) -> str:
        """Path or URL of an entry."""
        return f"{self.url}/{name}"

    def exists(self, name: str) -> bool:
        """Whether an entry is there."""
        fs, path = fsspec.core.url_to_fs(self.path(name))
        return fs.exists(path)

    def read_text(self, name: str) -> str:
        """An entry's text."""
        fs, path = fsspec.core.url_to_fs(self.path(name))
        return fs.cat_file(path).decode()

    def write_text(self, name: str, text: str) -> None:
        """Write an entry, whole or not at all."""
        write_bytes(self.path(name), text.encode())

    def read_json(self, name: str) -> Any:
        """An entry's JSON."""
        return json.loads(self.read_text(name))

    def write_json(self, name: str, value: Any) -> None:
        """Write an entry as JSON, whole or not at all."""
        self.write_text(name, json.dumps(value, indent=2) + "\n")


class MetricsFile:
    """metrics.jsonl: every event a line. Appended on a local disk; elsewhere uploaded whole at the end of epochs.

    Args:
        folder: of the run.
        stage: whose events follow.
        from_step: this stage's lines past it are dropped first: they belong to steps that are now done again.
    """

    def __init__(self, folder: RunFolder, stage: str, from_step: int) -> None:
        self._folder = folder
        lines = folder.read_text("metrics.jsonl").splitlines() if folder.exists("metrics.jsonl") else []
        self._lines = [line for line in lines if _keep(line, stage, from_step)]
        folder.write_text("metrics.jsonl", "".join(f"{line}\n" for line in self._lines))

    def __call__(self, row: dict[str, Any]) -> None:
        """Add one event."""
        line = json.dumps(row)
        if self._folder.is_local:
            with Path(self._folder.path("metrics.jsonl")).open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            return
        self._lines.append(line)
        if row["event"] != "step":
            self._folder.write_text("metrics.jsonl", "".join(f"{line}\n" for line in self._lines))


def _keep(line: str, stage: str, from_step: int) -> bool:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:  # a line cut short by a kill
        return False
    return row.get("stage") != stage or row.get("step", 0) <= from_step
