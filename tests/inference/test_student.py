"""Predictions of a student, and the metadata of its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.inference.loading import load_student
from tests.finished_run import one_of_each


def test_it_predicts_files_and_folders_alike(workplace: Path, tmp_path: Path) -> None:
    student = load_student(workplace / "runs" / "digits")
    for label, data in one_of_each(workplace / "shards" / "digits").items():
        (tmp_path / f"{label}.png").write_bytes(data)
    found = student.predict([tmp_path], top=10)
    assert [Path(p.file).stem for p in found] == [str(k) for k in range(10)]
    assert sum(p.label == Path(p.file).stem for p in found) >= 6
    assert all(sum(c for _, c in p.ranking) == pytest.approx(1) for p in found)
    (alone,) = student.predict(tmp_path / "7.png", top=10)
    assert dict(alone.ranking) == pytest.approx(dict(found[7].ranking), abs=1e-5)
