"""MLflow: runs read back from a real store."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("mlflow")
from mlflow import MlflowClient

from fourds_dist.runs.events import Note, StageEnded, StageStopped
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.runs.layout import RunFile
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.sinks.mlflow import OBEYED, Mlflow, log_results
from fourds_dist.stages.sinks.tracking_config import TrackingConfig
from tests.stages.sinks.test_tensorboard import EPOCH, step

SETTINGS = {"data": {"crop_px": 16, "threads": None}, "x": {f"key {n}": n for n in range(150)}}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/store")
    for name in (*OBEYED[1:], "WANDB_TAGS", "WANDB_RUN_GROUP"):
        monkeypatch.delenv(name, raising=False)
    return MlflowClient(f"file://{tmp_path}/store")


def test_a_stage_and_its_resumption_are_one_run(client: MlflowClient, tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    config = TrackingConfig(group="sweep", tags=("nightly", "team=vision"))
    sink = Mlflow(config, folder, "distill", SETTINGS)
    for event in (step(2), Note(step=2, stage="distill", text="slow disk")):
        sink(event)
    stopped = StageStopped(step=2, stage="distill", reason=StopReason(StopKind.CTRL_C))
    sink(stopped)
    experiment = client.get_experiment_by_name("fourds_dist")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "run/distill"
    assert run.info.status == "KILLED"
    assert run.data.tags.items() >= {
        ("group", "sweep"),
        ("stage", "distill"),
        ("nightly", ""),
        ("team", "vision"),
    }
    assert run.data.tags["note"] == stopped.text
    assert run.data.params.items() >= {("data.crop_px", "16"), ("x.key 149", "149")}

    sink = Mlflow(config, folder, "distill", SETTINGS | {"data": {"crop_px": 16, "threads": 2}, "y": 1})
    for event in (step(4), EPOCH, StageEnded(step=4, stage="distill", peak_memory_bytes=7)):
        sink(event)
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params.items() >= {("data.threads", "None"), ("y", "1")}
    assert [(m.step, m.value, m.timestamp) for m in client.get_metric_history(run.info.run_id, "loss")] == [
        (2, 1.0, 2000), (4, 2.0, 4000), (4, 2.5, 4000)
    ]  # fmt: skip
    assert run.data.metrics.items() >= {("val/teacher", 0.5), ("is_best", 1.0), ("peak_memory_bytes", 7.0)}

    folder.write_text(RunFile.REPORT, "<html>")
    log_results(folder)
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["report.html"]


def test_a_deleted_run_and_an_unknown_one_are_started_anew(client: MlflowClient, tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    Mlflow(TrackingConfig(project="mine"), folder, "source", {"a": 1})
    first = folder.read_json(RunFile.MLFLOW_IDS)["source"]
    client.delete_run(first)
    Mlflow(TrackingConfig(project="mine"), folder, "source", {"a": 1})
    second = folder.read_json(RunFile.MLFLOW_IDS)["source"]
    assert second != first
    folder.write_json(RunFile.MLFLOW_IDS, {"source": "0" * 32, "distill": "1" * 32})
    Mlflow(TrackingConfig(project="mine"), folder, "source", {"a": 1})
    ids = folder.read_json(RunFile.MLFLOW_IDS)
    assert ids["source"] not in (first, second)
    assert ids["distill"] == "1" * 32
    log_results(folder)  # logs a warning, as the store has no such run
