"""Names and titles of the stages of a run."""

from __future__ import annotations

from typing import Literal

StageName = Literal["source", "adapt", "distill"]


STAGE_TITLES: dict[str, str] = {
    "source": "source stage",
    "adapt": "adapting the teacher",
    "distill": "distillation",
}
"""Name of a stage, which is also the name of its folder -> title in logs and reports, in the order of stages."""


STAGES: tuple[StageName, ...] = ("source", "adapt", "distill")
"""Names of the stages, in their order."""
