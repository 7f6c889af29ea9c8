"""Remedies for missing extras: one command for a clone, another for a wheel, and none with another Python's pip."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from fourds_dist.cli import checks
from fourds_dist.io import extras
from fourds_dist.io.storage import locate


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone, with the working folder in it, in an environment that pip made."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(extras, "_FOLDER", tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_in_a_clone_with_pip(clone, monkeypatch):
    assert extras.fix("gcs") == "pip install -e '.[gcs]'"
    monkeypatch.chdir("/")
    assert extras.fix("gcs") == f"pip install -e '{clone}[gcs]'"


def test_in_a_clone_that_uv_set_up(clone, monkeypatch):
    (clone / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\nuv = 0.9\n")
    assert extras.fix("gcs") == "uv sync --inexact --extra gcs"
    monkeypatch.chdir("/")
    assert extras.fix("gcs") == f"uv sync --inexact --extra gcs --project {clone}"


def test_in_a_clone_with_uvs_environment_elsewhere(clone, monkeypatch, tmp_path):
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "pyvenv.cfg").write_text("uv = 0.9\n")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert extras.fix("gcs") == "uv pip install -e '.[gcs]'"
    assert extras.install("torch>=2", upgrade=True) == "uv pip install --upgrade 'torch>=2'"
    assert extras.install("h5py") == "uv pip install h5py"


def test_from_a_wheel(clone):
    (clone / "pyproject.toml").unlink()
    assert extras.fix("gcs") == "pip install 'fourds_dist[gcs]'"


def test_doctor_and_a_missing_driver_have_the_same_message(clone, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gcsfs" else object())
    remedies = [finding.fix for finding in checks.extras()]
    assert remedies[1:] == ["`pip install -e '.[gcs]'` to have it"]
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ValueError, match=r"driver for gs:// is not installed; pip install -e '\.\[gcs\]'"):
        locate("gs://bucket/x")


@pytest.mark.parametrize("error", [ModuleNotFoundError("No module named 'ray'"), OSError("libcuda.so.1: no")])
def test_a_required_package_that_is_missing_or_broken_has_a_remedy(error: Exception) -> None:
    with pytest.raises(RuntimeError) as caught, extras.importing("ray", "use runner=inline"):
        raise error
    told = str(caught.value)
    assert told.startswith(f"ray cannot be imported ({type(error).__name__}: {error}); ")
    assert re.search(r"pip install '?ray\S*'?, or use runner=inline$", told)


def test_requirements_carry_their_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    requires = ["ray-x>=1", "ray[train]<3,>=2.60", "ray>=9; extra == 'a'", "wandb>=0.25"]
    monkeypatch.setattr(extras.metadata, "requires", lambda name: requires)
    assert extras._requirement("ray") == "ray[train]<3,>=2.60"
    assert extras._requirement("torch") == "torch"
    monkeypatch.setattr(extras.metadata, "requires", lambda name: None)
    assert extras._requirement("ray") == "ray"
