"""A run from configuration to table: its configuration, the hold of its folder, and what happens again."""

# ruff: noqa: F401, F811  (an imported fixture)

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from fourds_dist.config.loading import load
from fourds_dist.config.section import ConfigError
from fourds_dist.launch.observer import RunObserver
from fourds_dist.launch.run import QUICKSTART, load_run, prepare, run, train
from fourds_dist.runs.events import Event
from fourds_dist.runs.lease import HeldError, held
from fourds_dist.stages.settings import Settings
from tests.stages.test_stages import data, settings


def test_the_quickstart_is_a_configuration_for_ray() -> None:
    given = load_run(QUICKSTART, ["run.name=mine"])
    assert (given.run.name, given.launch.runner, given.prepare) == ("mine", "ray", "digits")


def test_a_configuration_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"{tmp_path}/none\.yaml cannot be read: no such file"):
        load_run(tmp_path / "none.yaml", [])


def test_a_run_that_ends_early_has_no_table_and_says_so(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = settings(data, tmp_path, "run.name=early", "run.until=source")
    assert train(given) is None
    assert capsys.readouterr().out.splitlines()[-1] == f"run.until=source: done, in {tmp_path}/early"
    assert (tmp_path / "early" / "teacher.safetensors").exists()
    assert not (tmp_path / "early" / "lease.json").exists()


def test_without_ray_a_run_on_ray_is_refused_before_anything_is_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fourds_dist.launch.ray.train", None)  # as where Ray is missing
    given = settings(data, tmp_path, "run.name=missing", "launch.runner=ray")
    with pytest.raises(RuntimeError, match=r"^ray cannot be imported .*with launch\.runner=inline$"):
        run(given)
    assert not (tmp_path / "missing").exists()


def test_a_run_that_is_done_needs_its_data_no_more(data: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(data, tmp_path / "data"))
    given = settings(moved, tmp_path / "runs", "run.name=done")
    events: list[Event] = []
    assert run(given, observer=RunObserver(sink=events.append, is_quiet=True))
    assert events
    shutil.rmtree(moved)
    files = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    events.clear()
    assert run(given, observer=RunObserver(sink=events.append, is_quiet=True))
    assert events == []
    assert {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()} == files


def test_a_folder_that_is_held_is_refused(data: Path, tmp_path: Path) -> None:
    given = settings(data, tmp_path, "run.name=busy")
    with held(given.run_url), pytest.raises(HeldError, match="busy is in use by this very process"):
        run(given)
    assert not (tmp_path / "busy" / "config.yaml").exists()


def test_nothing_is_packed_for_a_configuration_that_cannot_work(tmp_path: Path) -> None:
    words = ["prepare=digits", f"source.url={tmp_path}/s", f"target.url={tmp_path}/t", "launch.runner=inline"]
    network = "{arch: 'tests.method.networks:convolutions', stages: [a, b]}"
    words += [f"teacher={network}", f"student={network}", "data={resize_px: 16, crop_px: 16}"]
    works, fails = load(Settings, None, words), load(Settings, None, [*words, "teacher.stages=[a, nowhere]"])
    with pytest.raises(ValueError, match="nowhere"):
        prepare(fails)
    with pytest.raises(ValueError, match="nowhere"):
        prepare(works, runs=[works, fails])
    assert not list(tmp_path.iterdir())
    prepare(load(Settings, None, []))  # a run without built-in domains
