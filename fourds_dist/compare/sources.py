"""Source stages that cells share: a teacher depends on its domain, networks and seed, and on no method or target."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TypeVar

from fourds_dist.data import StreamConfig
from fourds_dist.method import AdaptConfig, MethodConfig
from fourds_dist.settings import Settings
from fourds_dist.training.loop import StageConfig
from fourds_dist.training.stages import stages_to_run

Key = TypeVar("Key")


def source_runs(runs: Mapping[Key, Settings], url: str) -> dict[Key, Settings]:
    """The run whose source stage serves each of some runs; runs that agree on it get the same one.

    A student from the source is trained beside its teacher. A run whose student starts elsewhere takes a teacher that
    was trained beside a student, where there is such a one.

    Args:
        url: the folder under which they lie.
    """
    needing = {key: _source_run(run, url) for key, run in runs.items() if "source" in stages_to_run(run)}
    with_student = {
        _identity(run, student=False): run for run in needing.values() if run.student.start == "source"
    }
    return {
        key: run if run.student.start == "source" else with_student.get(_identity(run, student=False), run)
        for key, run in needing.items()
    }


def _source_run(settings: Settings, url: str) -> Settings:
    """The run's source stage alone; what later stages depend on is as by default."""
    bare = settings.model_copy(
        update={
            "target": StreamConfig(),
            "data": settings.data.model_copy(update={"source_fraction": 0.0}),
            "method": MethodConfig(),
            "adapt": AdaptConfig(),
            "adapt_stage": StageConfig(),
            "distill": StageConfig(),
        }
    )
    if bare.student.start != "source":
        bare = bare.model_copy(update={"student": bare.student.model_copy(update={"start": "random"})})
    name = f"source-{_identity(bare, student=True)}"
    run = settings.run.model_copy(update={"name": name, "dir": url, "until": "source"})
    return bare.model_copy(update={"run": run})


def _identity(settings: Settings, *, student: bool) -> str:
    """Of all that a source stage depends on, with or without the student that is trained beside the teacher."""
    tree = settings.model_dump(mode="json", include={"source", "data", "teacher", "source_stage", "step"})
    tree |= {"seed": settings.run.seed, "strategy": settings.launch.strategy}
    if student and settings.student.start == "source":
        tree["student"] = settings.student.model_dump(mode="json")
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:10]
