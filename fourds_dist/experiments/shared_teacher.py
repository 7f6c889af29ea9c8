"""The source stage that runs of a sweep or a comparison share: which runs can share one, and the run that trains it.

A teacher depends on its domain, network and seed, and on no method or target. Sweeps and comparisons train each teacher
once: `shared_source` and `shared_sources` give the runs of source stages, and the runs that need one take their teacher
and student from there (`stages.from_source`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TypeVar

from fourds_dist.config.effects import Effect
from fourds_dist.data import StreamConfig
from fourds_dist.io.storage import translate_storage_errors
from fourds_dist.method import AdaptConfig, MethodConfig
from fourds_dist.runs.layout import DONE
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.run_identity import depends_on
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.stages import stages_to_run
from fourds_dist.training.loop import StageConfig

IDENTIFYING = {Effect.WEIGHTS, Effect.RATES, Effect.IMAGES, Effect.NUMERICS}
"""Effects of the keys that identify a source stage: all that may change a bit of its weights."""

Key = TypeVar("Key")


def source_identity(settings: Settings, *, with_student: bool = True) -> str:
    """Identify the source stage of a run: equal for runs whose weights after the stage are equal.

    `launch` is not part of the identity, since a run may change it when it is resumed.

    Args:
        with_student: include the student that is trained beside the teacher, if one is.
    """
    parts = depends_on(settings, "source", IDENTIFYING)
    if not with_student:
        parts = {key: value for key, value in parts.items() if not key.startswith("student.")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]


def source_run(settings: Settings, folder_url: str) -> Settings:
    """The run that consists of the source stage of `settings` alone; the keys of later stages have their defaults.

    Args:
        folder_url: parent folder of the run, whose name is the identity of the stage.
    """
    student = settings.student  # experiments have one
    if student.start != "source":
        student = student.model_copy(update={"start": "random"})
    name = f"source-{source_identity(settings)}"
    return settings.model_copy(
        update={
            "run": settings.run.model_copy(update={"name": name, "dir": folder_url, "until": "source"}),
            "prepare": None,
            "target": StreamConfig(),
            "data": settings.data.model_copy(update={"source_fraction": 0.0}),
            "student": student,
            "method": MethodConfig(),
            "adapt": AdaptConfig(),
            "adapt_stage": StageConfig(),
            "distill_stage": StageConfig(),
        }
    )


def shared_source(settings: Settings, folder_url: str) -> Settings | None:
    """The run whose source stage a run needs; None where the run needs none.

    Args:
        folder_url: parent folder of the runs of source stages.
    """
    return source_run(settings, folder_url) if "source" in stages_to_run(settings) else None


def shared_sources(runs: Mapping[Key, Settings], folder_url: str) -> dict[Key, Settings]:
    """The runs of the source stages that some runs need, where all runs are known; runs that need none are left out.

    A student from the source is trained beside its teacher. A run whose student starts elsewhere takes a teacher that
    was trained beside a student, where there is one. A run whose own source stage is done keeps that one, so that a
    comparison may grow.

    Args:
        folder_url: parent folder of the runs of source stages.
    """
    needing = {key: run for key, run in runs.items() if "source" in stages_to_run(run)}
    identities = {key: source_identity(run) for key, run in needing.items()}
    sources: dict[str, Settings] = {}
    beside_student: dict[str, Settings] = {}
    for key, run in needing.items():
        identity = identities[key]
        if identity not in sources:
            sources[identity] = source_run(run, folder_url)
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
