"""The walk over timm's families: some members as teacher and student, and the table."""

from __future__ import annotations

import pytest

pytest.importorskip("timm")

from fourds_dist.benchmark import families
from fourds_dist.benchmark.families import Row, line, members, shares, table, walk

HANDFUL = {
    "convnext": ("test_convnext", ("stages.0", "stages.1", "stages.2", "stages.3")),
    "vision_transformer": ("test_vit", ("blocks.0", "blocks.2", "blocks.3", "blocks.4")),
    "mobilevit": ("mobilevit_xxs", ("stages.1", "stages.2", "stages.3", "stages.4")),
    "vgg": ("vgg11", ("features.9", "features.14", "features.19", "features.20")),
}


@pytest.mark.parametrize("family", HANDFUL)
def test_members_are_teachers_and_students(family: str) -> None:
    model, stages = HANDFUL[family]
    row = walk(family, model)
    assert (row.teacher, row.student) == (None, None)
    assert row.stages is not None
    assert tuple(stage.name for stage in row.stages.stages) == stages


def test_models_without_a_classifier_are_refused() -> None:
    row = walk("test", "test_vitt")
    assert row.teacher == row.student
    assert "timm has no model 'test_vitt'; did you mean 'timm/test_vit" in (row.teacher or "")


def test_the_table_counts_its_lines() -> None:
    lines = [
        line(Row("b", "b_tiny.x", 1_500_000, 224, None, None, None)),
        line(Row("a", "a_tiny", 0, None, None, "ValueError: no stages", None)),
    ]
    text = table(lines)
    assert (
        f"2 of {len(families.families())} families: 1 as teacher, 2 as student, 75.0 % of both roles." in text
    )
    assert members(text) == {"a": "a_tiny", "b": "b_tiny.x"}
    assert "| b | `timm/b_tiny.x` | 1.5 | 224 |  | yes | yes |" in text


def test_the_written_table_has_few_refusals() -> None:
    num, teachers, students = shares(families.TABLE.read_text())
    assert teachers + students >= 0.95 * 2 * num
