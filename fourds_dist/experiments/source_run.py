"""The source stage apart from the run that needs it: who can share one, and the run that trains it for all of them.

A teacher depends on its domain, network and seed, and on no method or target. Sweeps and comparisons train each once.
"""

from __future__ import annotations

import hashlib
import json

from fourds_dist.config.effects import Effect
from fourds_dist.data import StreamConfig
from fourds_dist.method import AdaptConfig, MethodConfig
from fourds_dist.stages.run_identity import depends_on
from fourds_dist.stages.settings import Settings
from fourds_dist.training.loop import StageConfig

IDENTIFYING = {Effect.WEIGHTS, Effect.RATES, Effect.IMAGES, Effect.NUMERICS}
"""Effects of the keys by which source stages are told apart: all that may change a bit of their weights."""


def source_identity(settings: Settings, *, with_student: bool = True) -> str:
    """Tells source stages apart: the same for runs whose weights after it are the same.

    `launch` is no part of it, as runs may change it when they go on.

    Args:
        with_student: also tell apart what the student is that is trained beside the teacher, if one is.
    """
    parts = depends_on(settings, "source", IDENTIFYING)
    if not with_student:
        parts = {key: value for key, value in parts.items() if not key.startswith("student.")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]


def source_run(settings: Settings, folder_url: str) -> Settings:
    """The run that is the source stage of `settings` and nothing else; what later stages depend on is as by default.

    Args:
        folder_url: the folder under which it lies, by its identity.
    """
    student = settings.student
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
