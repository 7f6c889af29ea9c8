"""Images that the tests of several benchmarks share."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.benchmark import data


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos")
    assert data.prepare(path, 24) == sum(p.stat().st_size for p in (path / "folder").glob("*/*.jpg"))
    return path
