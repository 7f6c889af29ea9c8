"""A run of two epochs of two steps each, which stops after its first epoch where it is asked to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fourds_dist.stages.settings import Settings
from tests.experiments.compare.small import CHANGES, STAGE, comparison, write_domains


def short_run(folder: Path) -> Settings:
    """The source stage of one small cell, with its data."""
    changes: dict[str, Any] = CHANGES | {"source_stage": STAGE | {"epochs": 2}}
    domains = write_domains(folder, "a", "b")
    plan = comparison(folder, domains, pairs=[["a", "b"]], changes=changes)
    return next(iter(plan.sources.values()))
