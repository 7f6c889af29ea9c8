"""The examples in docstrings run, in a folder like their reader's."""

from __future__ import annotations

import doctest
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import fourds_dist

MODULES = (
    "fourds_dist",
    "fourds_dist.api",
    "fourds_dist.method.adapter",
    "fourds_dist.method.fourds",
    "fourds_dist.ops.operators",
    "fourds_dist.data.stream.preprocessing",
    "fourds_dist.inference.metrics",
    "fourds_dist.inference.loading",
    "fourds_dist.stages.finished_run",
)


def test_every_public_name_has_an_example() -> None:
    for name in fourds_dist.__all__:
        thing = getattr(fourds_dist, name)
        assert ">>>" in (thing.__doc__ or ""), name
        assert thing.__module__ in MODULES


def test_importing_the_package_takes_no_time() -> None:
    code = "import fourds_dist, sys; assert not {'torch', 'ray', 'matplotlib', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for entry in ("runs", "shards"):
        shutil.copytree(workplace / entry, tmp_path / entry)
    shutil.copy(workplace / "seven.png", tmp_path)
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(import_module(name), verbose=False)
    assert result.attempted > 0
    assert result.failed == 0
