"""Stages of a run: names in their order, which are names of folders too."""

from __future__ import annotations

from fourds_dist.config.stage_names import STAGE_TITLES, STAGES
from fourds_dist.stages.settings import Settings


def test_stages_run_from_the_source_to_the_student() -> None:
    assert STAGES == ("source", "adapt", "distill")
    assert [STAGE_TITLES[name] for name in STAGES] == ["source stage", "adapting the teacher", "distillation"]
    assert all(name.isidentifier() for name in STAGES)


def test_every_stage_has_a_section_of_its_name() -> None:
    sections = [name for name in Settings.model_fields if name.endswith("_stage")]
    assert sections == [f"{name}_stage" for name in STAGES]
