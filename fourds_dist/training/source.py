"""The source stage apart from the run that needs it: who can share one, and the run that trains it for all of them.

A teacher depends on its domain, network and seed, and on no method or target. Sweeps and comparisons train each once.
"""

from __future__ import annotations

import hashlib
import json

from fourds_dist.data import StreamConfig
from fourds_dist.method import AdaptConfig, MethodConfig
from fourds_dist.settings import Settings
from fourds_dist.training.loop import StageConfig

HOW_DATA_COME = {"source_fraction", "threads", "decoders", "read_threads", "prefetch_batches", "patience_s",
                 "cache_dir", "cache_gib", "max_megapixels"}  # fmt: skip
"""Keys of `data` that change no batch of the source stage."""

ADAMW = {"adapter_lr", "adapter_eps", "adapter_weight_decay"}
"""Keys of `optim` for adapters, which the source stage has none of."""


def source_identity(settings: Settings, *, with_student: bool = True) -> str:
    """Tells source stages apart: the same for runs whose weights after it are the same.

    `launch` is no part of it, as runs may change it when they go on.

    Args:
        with_student: also tell apart what the student is that is trained beside the teacher, if one is.
    """
    teacher, student = settings.teacher, settings.student
    unset = set() if settings.data.grey_range else {"grey_range"}  # as before the key was there
    parts = {
        "seed": settings.run.seed,
        "source": settings.source.model_dump(mode="json"),
        "data": settings.data.model_dump(mode="json", exclude=HOW_DATA_COME | unset),
        "teacher": None
        if teacher.checkpoint is not None
        else teacher.model_dump(mode="json", exclude={"checkpoint", "stages"}),
        "student": student.model_dump(mode="json", exclude={"stages"})
        if with_student and student.start == "source"
        else None,
        "source_stage": settings.source_stage.model_dump(
            mode="json", exclude={"checkpoint_every_steps": True, "optim": ADAMW}
        ),
        "step": settings.step.model_dump(mode="json", exclude={"log_every_steps"}),
    }
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
            "distill": StageConfig(),
        }
    )
