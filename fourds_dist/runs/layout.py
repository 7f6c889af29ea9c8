"""The folder of a run, on a local disk or in object storage: its files, its stages and its networks, each named once.

config.yaml          the resolved configuration
lease.json           the driver that holds the folder, while one does
images.json          the images that the run began with
metrics.jsonl        one line per event: steps, epochs, troubles
wandb.json           each stage's run in Weights & Biases, continued when the stage is
bad_batch-*.json     the images of steps whose numbers were not finite
source/, adapt/, distill/   checkpoints of the stages: checkpoint-00000120/state.pt
source.json, adapt.json     written last by these stages
teacher.safetensors  the teacher trained on the source
teacher_adapted.safetensors the teacher adapted to the target (adapt.method)
student_source.safetensors  the student trained on the source (student.start: source)
student.safetensors, adapters.safetensors   the result
summary.json         the final table, written last
report.html, report/ the page that explains the run, its pictures, and the predictions of the networks
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Literal

StageName = Literal["source", "adapt", "distill"]

STAGE_TITLES: dict[str, str] = {
    "source": "source stage",
    "adapt": "adapting the teacher",
    "distill": "distillation",
}
"""Name of a stage, of its folder and of its events -> its title in logs and reports; in the order of the stages."""

STAGES: tuple[StageName, ...] = ("source", "adapt", "distill")
"""Names of a run's stages, in their order."""


class RunFile(StrEnum):
    """Files of a run, by their names in its folder."""

    CONFIG = "config.yaml"
    LEASE = "lease.json"
    IMAGES = "images.json"
    METRICS = "metrics.jsonl"
    WANDB_IDS = "wandb.json"
    SOURCE_DONE = "source.json"
    ADAPT_DONE = "adapt.json"
    TEACHER = "teacher.safetensors"
    TEACHER_ADAPTED = "teacher_adapted.safetensors"
    STUDENT_SOURCE = "student_source.safetensors"
    STUDENT = "student.safetensors"
    ADAPTERS = "adapters.safetensors"
    SUMMARY = "summary.json"
    REPORT = "report.html"
    EXAMINATION = "report/examination.npz"


REPORT_FOLDER = "report"
"""Pictures of the report, and what it was made from."""

DONE: dict[StageName, RunFile] = {
    "source": RunFile.SOURCE_DONE,
    "adapt": RunFile.ADAPT_DONE,
    "distill": RunFile.SUMMARY,
}
"""The file that a stage writes last; a stage whose file is there is not run again."""

CHECKPOINT_STATE = "state.pt"
"""A checkpoint's file in its folder."""
RAY_CHECKPOINTS = "checkpoint_manager_snapshot.json"
"""Ray Train's list of the checkpoints of a stage, in the stage's folder."""

_CHECKPOINT = re.compile(r"checkpoint-(\d{8,})")


def checkpoint_name(step: int) -> str:
    """Name of the checkpoint of a step; sorted by name, checkpoints are sorted by step.

    >>> checkpoint_name(120)
    'checkpoint-00000120'
    """
    return f"checkpoint-{step:08d}"


def checkpoint_step(name: str) -> int | None:
    """The step of a checkpoint of this name; None for other names."""
    match = _CHECKPOINT.fullmatch(name)
    return None if match is None else int(match[1])


def bad_batch_name(step: int) -> str:
    """Name of the file that lists the images of a step whose numbers were not finite."""
    return f"bad_batch-{step:08d}.json"


class Network(StrEnum):
    """Networks of a run. The value is the key of the network in metrics, `display_name` its name for people."""

    TEACHER_SOURCE = "teacher_source"
    TEACHER = "teacher"
    TEACHER_ADAPTED = "teacher_adapted"
    STUDENT_BEFORE = "student_before"
    STUDENT = "student"

    @property
    def display_name(self) -> str:
        """The name in tables, in summary.json and in reports."""
        return _DISPLAY_NAMES[self]


_DISPLAY_NAMES = {
    Network.TEACHER_SOURCE: "teacher before adapting",
    Network.TEACHER: "teacher",
    Network.TEACHER_ADAPTED: "teacher with adapters",
    Network.STUDENT_BEFORE: "student before distillation",
    Network.STUDENT: "student",
}


def display_name(key: str) -> str:
    """The name for people of a network or a parameter group, given its key in metrics.

    >>> display_name("teacher_adapted"), display_name("fusion_gate")
    ('teacher with adapters', 'fusion gate')
    """
    return Network(key).display_name if key in set(Network) else key.replace("_", " ")
