"""A finished run with its report, as a fixture."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fourds_dist.reports.report import write_report


@pytest.fixture(scope="session")
def reported(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run with its report; not to be changed."""
    copied = Path(
        shutil.copytree(workplace / "runs" / "digits", tmp_path_factory.mktemp("reported") / "digits")
    )
    (copied / "report.html").unlink(missing_ok=True)
    assert write_report(str(copied)) == f"{copied}/report.html"
    return copied


def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")
