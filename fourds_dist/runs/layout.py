"""Names of the files, stages and networks in a run's folder, on a local disk or in object storage.

config.yaml          the resolved configuration
lease.json           the driver that holds the folder; removed when the driver ends
images.json          the images that the run started with
metrics.jsonl        one line per event: steps, epochs, faults
wandb.json           the run id of each stage in Weights & Biases; a resumed stage continues that run
mlflow.json          the same in MLflow
tensorboard/         event files for TensorBoard
nonfinite_batch-*.json     the images of steps with non-finite values
source/, adapt/, distill/   checkpoints of the stages: checkpoint-00000120/state.pt
source.json, adapt.json     the last files that these stages write
teacher.safetensors  the teacher trained on the source
teacher_adapted.safetensors the teacher adapted to the target (adapt.method)
student_source.safetensors  the student trained on the source (student.start: source)
student.safetensors, adapters.safetensors   the result
student-NAME.safetensors, student_source-NAME.safetensors   the same of each student, in runs with `students`;
                     student.safetensors is then the best one by validation
summary.json         the final table; the last file of a run
report.html, report/ the report, its pictures, and the predictions of the networks
"""

from __future__ import annotations

import re
from enum import StrEnum

from fourds_dist.config.stage_names import StageName


class RunFile(StrEnum):
    """Names of the files in a run's folder."""

    CONFIG = "config.yaml"
    LEASE = "lease.json"
    IMAGES = "images.json"
    METRICS = "metrics.jsonl"
    WANDB_IDS = "wandb.json"
    MLFLOW_IDS = "mlflow.json"
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

    def of_student(self, name: str) -> str:
        """Return the name of a student's file; the name of a run's only student is empty.

        >>> RunFile.STUDENT.of_student("resnet10"), RunFile.STUDENT.of_student("")
        ('student-resnet10.safetensors', 'student.safetensors')
        """
        stem, suffix = self.value.rsplit(".", 1)
        return f"{stem}-{name}.{suffix}" if name else self.value


REPORT_FOLDER = "report"
"""Folder of the report's pictures and of the data that the report shows."""


DONE: dict[StageName, RunFile] = {
    "source": RunFile.SOURCE_DONE,
    "adapt": RunFile.ADAPT_DONE,
    "distill": RunFile.SUMMARY,
}
"""The last file that a stage writes; a stage with this file is not run again."""


CHECKPOINT_STATE = "state.pt"
"""Name of the file in a checkpoint's folder."""


_CHECKPOINT = re.compile(r"checkpoint-(\d{8,})")


def checkpoint_name(step: int) -> str:
    """Return the name of the checkpoint of a step; sorting names sorts steps.

    >>> checkpoint_name(120)
    'checkpoint-00000120'
    """
    return f"checkpoint-{step:08d}"


def checkpoint_step(name: str) -> int | None:
    """Return the step in a checkpoint's name; None for other names."""
    match = _CHECKPOINT.fullmatch(name)
    return None if match is None else int(match[1])


def bad_batch_name(step: int) -> str:
    """Return the name of the file that lists the images of a step with non-finite values."""
    return f"nonfinite_batch-{step:08d}.json"


class Network(StrEnum):
    """Networks of a run; the value is the key of the network in metrics."""

    TEACHER_SOURCE = "teacher_source"
    TEACHER = "teacher"
    TEACHER_ADAPTED = "teacher_adapted"
    STUDENT_BEFORE = "student_before"
    STUDENT = "student"

    @property
    def display_name(self) -> str:
        """The name in tables, in summary.json and in reports."""
        return _DISPLAY_NAMES[self]

    def of_student(self, name: str) -> str:
        """Return the key of a student in metrics; the name of a run's only student is empty.

        >>> Network.STUDENT.of_student("resnet10"), Network.STUDENT.of_student("")
        ('student/resnet10', 'student')
        """
        return with_student(self.value, name)


_DISPLAY_NAMES = {
    Network.TEACHER_SOURCE: "teacher before adapting",
    Network.TEACHER: "teacher",
    Network.TEACHER_ADAPTED: "teacher with adapters",
    Network.STUDENT_BEFORE: "student before distillation",
    Network.STUDENT: "student",
}


def with_student(key: str, name: str) -> str:
    """Return the key of a student's value in metrics; the name of a run's only student is empty.

    >>> with_student("student_ce", "resnet10")
    'student_ce/resnet10'
    """
    return f"{key}/{name}" if name else key


def display_name(key: str) -> str:
    """Return the display name of a network or parameter group, given its key in metrics.

    >>> display_name("teacher_adapted"), display_name("fusion_gate")
    ('teacher with adapters', 'fusion gate')
    >>> display_name("student/vit_b"), display_name("student_before/vit_b"), display_name("student_ce/vit_b")
    ('student vit_b', 'student vit_b before distillation', 'student ce vit_b')
    """
    key, _, name = key.partition("/")
    shown = Network(key).display_name if key in set(Network) else key.replace("_", " ")
    if not name:
        return shown
    role, _, rest = shown.partition(" ")
    return " ".join(filter(None, (role, name, rest))) if key in set(Network) else f"{shown} {name}"
