"""The examples in docstrings run, in a folder like their reader's."""

from __future__ import annotations

import doctest
import shutil
from importlib import import_module
from pathlib import Path

import pytest

MODULES = (
    "fourds_dist",
    "fourds_dist.api",
    "fourds_dist.results.preprocessing",
    "fourds_dist.results.scores",
    "fourds_dist.results.loading",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for entry in ("runs", "shards"):
        shutil.copytree(workplace / entry, tmp_path / entry)
    shutil.copy(workplace / "seven.png", tmp_path)
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(import_module(name), verbose=False)
    assert result.attempted > 0
    assert result.failed == 0
