"""Findings of the checks of `fourds doctor`: facts, levels and remedies."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

import pytest

from fourds_dist.cli import checks
from fourds_dist.cli.checks import Finding, Level
from fourds_dist.io.extras import fix, install


def test_packages_missing_or_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["numpy>=999", "no-such-thing>=1", "torch>=1.0",
                                                                   "pytest>=999; extra == 'dev'"])  # fmt: skip
    found = list(checks.packages())
    assert [f.level for f in found] == [Level.BAD, Level.BAD, Level.GOOD]
    assert "older than 999" in found[0].what
    assert found[1].fix == install("no-such-thing>=1")


def test_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    (finding,) = checks.tracking()
    assert "online" in finding.what
    assert "kkkk" not in finding.what


def test_the_version_of_python() -> None:
    (finding,) = checks.python()
    assert finding == Finding("Python {}.{}.{}".format(*sys.version_info[:3]))


def test_a_later_version_is_not_older_where_its_text_sorts_first(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"numpy": "2.10.0", "torch": "2.9.1+cu130", "wandb": "0.18"}
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda _: ["numpy>=2.9", "torch>=2.9.1", "wandb>=0.18.1"]
    )
    monkeypatch.setattr(importlib.metadata, "version", versions.__getitem__)
    found = list(checks.packages())
    assert [f.level for f in found] == [Level.BAD, Level.GOOD]
    assert found[0].what == "wandb 0.18 is older than 0.18.1"
    assert found[0].fix == install("wandb>=0.18.1", upgrade=True)
    assert found[1].what == "torch 2.9.1+cu130, and 2 more packages"


def test_a_package_that_runs_from_its_folder_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)
    (finding,) = checks.packages()
    assert finding.level is Level.NOTE
    assert finding.fix.endswith("(or uv sync)")


@pytest.mark.parametrize(
    ("variables", "what", "level"),
    [
        ({"WANDB_MODE": "offline"}, "W&B: offline (set by WANDB_MODE)", Level.GOOD),
        ({"WANDB_DISABLED": "true"}, "W&B: disabled (set by WANDB_DISABLED)", Level.GOOD),
        ({"WANDB_MODE": "online"}, "W&B: runs are logged online (set by WANDB_MODE)", Level.GOOD),
        ({}, "W&B: no API key; runs are logged offline in their folders", Level.NOTE),
    ],
)
def test_the_mode_of_tracking_and_the_variable_that_sets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], what: str, level: Level
) -> None:
    for name in ("WANDB_MODE", "WANDB_DISABLED", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (finding,) = checks.tracking()
    assert (finding.what, finding.level) == (what, level)


def test_missing_extras_have_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("gcsfs", "onnx") else found(name)
    )
    missing = {f.what: f.fix for f in checks.extras() if f.level is Level.NOTE}
    assert missing["without gs://"] == f"`{fix('gcs')}` to have it"
    assert missing["without export to ONNX and int8"] == f"`{fix('export')}` to have it"


def test_storage_is_written_read_and_left_as_it_was(tmp_path: Path) -> None:
    (finding,) = checks.storage(f"{tmp_path}/new/runs/")
    assert finding.level is Level.GOOD
    assert finding.what.startswith(f"{tmp_path}/new/runs/: written, read back and removed in ")
    assert not list(tmp_path.rglob(".fourds*"))
