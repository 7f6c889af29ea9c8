"""W&B: an offline run holds what was logged; tracking that fails never stops a run."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fourds_dist.io.storage import locate
from fourds_dist.runs.events import (
    EpochEnded,
    Note,
    StageEnded,
    StageStopped,
    StepLogged,
    TimeShares,
    Validation,
)
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.sinks.wandb import KEYS, OBEYED, TrackingConfig, Wandb, automatic_mode, flat_values

KEY = "0" * 40
STEP = StepLogged(
    step=1,
    stage="source",
    time=2.0,
    epoch=0.5,
    loss=2.5,
    losses={"teacher_ce": 1.5},
    images_per_s=32.0,
    shares=TimeShares(0.25, host_busy=0.5),
    learning_rates={"teacher": 0.1},
    method_values={"mix/adapter1": 0.5},
)
END = StageEnded(step=1, stage="source", peak_memory_bytes=7)
OWN = "http://wandb.example:8080"


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of W&B's, and no file of a user's."""
    for name in (*OBEYED, *KEYS, "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()


@pytest.mark.parametrize(
    ("variables", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": KEY}, "online"),
        ({"WANDB_IDENTITY_TOKEN_FILE": "/token"}, "online"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "dryrun"}, "offline"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "disabled"}, "disabled"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "Disabled "}, "disabled"),
        ({"WANDB_MODE": "online"}, "online"),
        ({"WANDB_API_KEY": KEY, "WANDB_DISABLED": "true"}, "disabled"),
        ({"WANDB_MODE": "online", "WANDB_DISABLED": "1"}, "disabled"),
        ({"WANDB_API_KEY": KEY, "WANDB_DISABLED": "false"}, "online"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "of"}, "online"),
    ],
)
def test_auto_obeys_the_variables_of_wandb(
    variables: dict[str, str], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", OWN)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert automatic_mode() == mode


def test_a_key_in_netrc_counts_for_its_own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(name: str, *hosts: str) -> None:
        text = "".join(f"machine {host}\n login user\n password {KEY}\n" for host in hosts)
        (tmp_path / "home" / name).write_text(text)
        (tmp_path / "home" / name).chmod(0o600)

    monkeypatch.setenv("WANDB_BASE_URL", OWN)
    held(".netrc", "api.wandb.ai", "github.com")
    assert automatic_mode() == "offline"
    for host in ("wandb.example:8080", "wandb.example"):
        held(".netrc", host)
        assert automatic_mode() == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://api.wandb.ai")
    assert automatic_mode() == "offline"
    held("keys", "api.wandb.ai")
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "keys"))
    assert automatic_mode() == "online"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of every `wandb.init`; none is online."""
    import wandb

    options: list[dict[str, Any]] = []

    def init(**given: Any) -> SimpleNamespace:
        options.append(given)
        if given["mode"] == "online":
            raise RuntimeError("context deadline\nexceeded")
        return SimpleNamespace(log=lambda *_, **__: None, finish=lambda: None)

    monkeypatch.setattr(wandb, "init", init)
    return options


def test_names_are_the_configuration_s_then_the_environment_s(
    tmp_path: Path, started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(config: TrackingConfig) -> list[str | None]:
        Wandb(config, RunFolder(str(tmp_path / "run")), "source", {})
        return [started[-1][name] for name in ("project", "entity", "group")]

    assert names(TrackingConfig()) == ["fourds_dist", None, "run"]
    assert started[-1]["tags"] == []
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_TAGS", "nightly, few labels,")
        names(TrackingConfig())
    assert started[-1]["tags"] == ["nightly", "few labels"]
    names(TrackingConfig(tags=("a", "b")))
    assert started[-1]["tags"] == ["a", "b"]
    for name in ("WANDB_PROJECT", "WANDB_ENTITY", "WANDB_RUN_GROUP"):
        monkeypatch.setenv(name, name.rpartition("_")[2].lower())
    assert names(TrackingConfig()) == ["project", "entity", "group"]
    assert names(TrackingConfig(project="a", entity="b", group="c")) == ["a", "b", "c"]


def test_without_the_server_the_stage_continues_offline(
    tmp_path: Path, started: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    track = Wandb(TrackingConfig(wandb="online"), RunFolder(str(tmp_path)), "source", {})
    track(END)
    assert [options.pop("mode") for options in started] == ["online", "offline"]
    assert started[0]["id"] == started[1]["id"]
    assert [record.getMessage() for record in caplog.records] == [
        "W&B cannot be reached; this stage is tracked offline (`wandb sync` uploads it later): "
        "context deadline exceeded"
    ]


@pytest.mark.filterwarnings("ignore")
def test_files_of_a_run_in_a_store_come_there_at_the_stage_s_end(tmp_path: Path) -> None:
    folder = RunFolder(f"memory://{tmp_path.name}/run")
    track = Wandb(TrackingConfig(), folder, "source", {"a": 1})
    scratch = Path(str(track._scratch))
    track(STEP)
    assert scratch.exists()
    track(END)
    fs, path = locate(folder.url)
    (file,) = fs.glob(f"{path}/wandb/offline-run-*/run-*.wandb")
    assert b"loss" in fs.cat_file(file)
    assert not scratch.exists()


@pytest.mark.filterwarnings("ignore")
def test_tags_of_the_environment_reach_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_TAGS", "nightly,few labels")
    for tags, expected in (((), {"nightly", "few labels"}), (("mine",), {"mine"})):
        track = Wandb(TrackingConfig(tags=tags), RunFolder(f"{tmp_path}/{len(tags)}"), "source", {})
        assert set(track._run.tags) == expected
        track(END)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("prefix", ["", "file://"])
def test_an_offline_run_is_stored_in_the_run_s_folder(tmp_path: Path, prefix: str) -> None:
    track = Wandb(TrackingConfig(wandb="auto"), RunFolder(f"{prefix}{tmp_path}/my.run"), "source", {"a": 1})
    track(STEP)
    track(END)
    files = list((tmp_path / "my.run").rglob("run-*.wandb"))
    assert len(files) == 1
    until_s = time.monotonic() + 120
    # W&B's process writes it, sometimes after `finish` has returned.
    while b"loss" not in files[0].read_bytes():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def test_numbers_have_flat_names() -> None:
    assert flat_values(STEP) == {
        "step": 1, "time": 2.0, "epoch": 0.5, "loss": 2.5, "teacher_ce": 1.5, "images_per_s": 32.0,
        "data_wait_share": 0.25, "host_busy_share": 0.5, "num_bad_samples": 0, "lr/teacher": 0.1, "mix/adapter1": 0.5,
    }  # fmt: skip
    epoch = EpochEnded(
        step=2, epoch=1, loss=2.5, images_per_s=32.0,
        validation={"teacher": Validation(0.5, 1.5), "student": Validation(0.25)}, num_evaluated=4, is_best=True,
        left_s=3.0,
    )  # fmt: skip
    assert flat_values(epoch) == {
        "step": 2, "time": 0.0, "epoch": 1, "loss": 2.5, "images_per_s": 32.0, "val/teacher": 0.5, "val/student": 0.25,
        "val_loss/teacher": 1.5, "num_evaluated": 4, "is_best": True, "left_s": 3.0,
    }  # fmt: skip
    assert flat_values(END) == {"step": 1, "time": 0.0, "peak_memory_bytes": 7}
    assert flat_values(Note(step=1, text="a")) == {"step": 1, "time": 0.0, "note": "a"}
    stopped = StageStopped(step=1, reason=StopReason(StopKind.CTRL_C))
    assert flat_values(stopped) == {"step": 1, "time": 0.0, "note": stopped.text}


def test_a_resumed_stage_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    started: list[tuple[object, object]] = []
    monkeypatch.setattr(wandb, "init", lambda **options: started.append((options["id"], options["resume"])))
    for place, stage in (("a", "source"), ("a", "source"), ("a", "distill"), ("b", "source")):
        Wandb(TrackingConfig(wandb="online"), RunFolder(str(tmp_path / place / "run")), stage, {})
    first, again, other_stage, other_run = (run_id for run_id, _ in started)
    assert first == again
    assert len({first, other_stage, other_run}) == 3
    assert {resume for _, resume in started} == {"allow"}


@pytest.mark.parametrize("value", ["OFFLINE", " offline", "ofline"])
def test_a_mode_in_another_spelling_starts_a_run(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    started: list[tuple[object, str | None]] = []
    monkeypatch.setattr(
        wandb, "init", lambda **options: started.append((options["mode"], os.environ["WANDB_MODE"]))
    )
    monkeypatch.setenv("WANDB_MODE", value)
    Wandb(TrackingConfig(), RunFolder(str(tmp_path / "run")), "source", {})
    assert started == [("offline", "offline")]
    assert os.environ["WANDB_MODE"] == value


def test_a_failure_is_logged_once_and_not_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    def fail(**kwargs: object) -> None:
        raise RuntimeError("no network\nat all")

    monkeypatch.setattr(wandb, "init", fail)
    track = Wandb(TrackingConfig(wandb="online"), RunFolder(str(tmp_path)), "source", {})
    for step in range(3):
        track(replace(STEP, step=step))
    assert [record.getMessage() for record in caplog.records] == [
        "W&B tracking is off for the rest of this stage: no network at all"
    ]


def test_disabled_does_not_import_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    Wandb(TrackingConfig(wandb="disabled"), RunFolder(str(tmp_path)), "source", {})(END)
