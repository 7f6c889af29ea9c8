"""Source stages that cells share, and which of them a cell begins from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from fourds_dist.experiments.source_run import source_identity, source_run
from fourds_dist.io.storage import translate_storage_errors
from fourds_dist.runs.layout import DONE
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.stages import stages_to_run

Key = TypeVar("Key")


def source_runs(runs: Mapping[Key, Settings], url: str) -> dict[Key, Settings]:
    """The run whose source stage serves each of some runs; runs that agree on it get the same one.

    A student from the source is trained beside its teacher. A run whose student starts elsewhere takes a teacher that
    was trained beside a student, where there is such a one; but one of its own that is done stays its own, so that a
    comparison may grow.

    Args:
        url: the folder under which they lie.
    """
    needing = {key: run for key, run in runs.items() if "source" in stages_to_run(run)}
    identities = {key: source_identity(run) for key, run in needing.items()}
    sources: dict[str, Settings] = {}
    beside_student: dict[str, Settings] = {}
    for key, run in needing.items():
        identity = identities[key]
        if identity not in sources:
            sources[identity] = source_run(run, url)
            if run.student.start == "source":
                beside_student.setdefault(source_identity(run, with_student=False), sources[identity])

    serving: dict[str, Settings] = {}
    for key, run in needing.items():
        identity = identities[key]
        if identity not in serving:
            own = sources[identity]
            other = beside_student.get(source_identity(run, with_student=False), own)
            stays = other is own or run.student.start == "source" or _is_done(own)
            serving[identity] = own if stays else other
    return {key: serving[identity] for key, identity in identities.items()}


def _is_done(source: Settings) -> bool:
    with translate_storage_errors(source.run_url):
        return RunFolder(source.run_url).exists(DONE["source"])
