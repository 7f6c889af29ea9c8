"""Source stages that cells share, and which of them a cell begins from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from fourds_dist.settings import Settings
from fourds_dist.training.source import source_identity, source_run
from fourds_dist.training.stages import stages_to_run

Key = TypeVar("Key")


def source_runs(runs: Mapping[Key, Settings], url: str) -> dict[Key, Settings]:
    """The run whose source stage serves each of some runs; runs that agree on it get the same one.

    A student from the source is trained beside its teacher. A run whose student starts elsewhere takes a teacher that
    was trained beside a student, where there is such a one.

    Args:
        url: the folder under which they lie.
    """
    needing = {key: run for key, run in runs.items() if "source" in stages_to_run(run)}
    sources: dict[str, Settings] = {}
    beside_student: dict[str, Settings] = {}
    for run in needing.values():
        source = sources.setdefault(source_identity(run), source_run(run, url))
        if run.student.start == "source":
            beside_student.setdefault(source_identity(run, with_student=False), source)

    def serving(run: Settings) -> Settings:
        own = sources[source_identity(run)]
        if run.student.start == "source":
            return own
        return beside_student.get(source_identity(run, with_student=False), own)

    return {key: serving(run) for key, run in needing.items()}
