"""What trials share; and a small sweep that really trains (`--slow`)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fourds_dist.config.loading import load
from fourds_dist.experiments.epochs import epochs_of
from fourds_dist.experiments.shared_teacher import source_identity, source_run
from fourds_dist.experiments.sweep.trial import TrialTask
from fourds_dist.runs.layout import Network, RunFile
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.stages import from_source, stages_to_run


def settings(*overrides: str) -> Settings:
    return load(Settings, None, ["source.url=s", "target.url=t", *overrides])


def test_a_trial_begins_where_the_shared_source_stage_ended() -> None:
    own = settings("run.name=small-0000-s0", "run.dir=runs/small/trials")
    of = source_run(own, "runs/small/teachers")
    assert of.run_url == f"runs/small/teachers/source-{source_identity(own)}"
    assert stages_to_run(of) == ("source",)
    trial = from_source(own, of.run_url)
    assert stages_to_run(trial) == ("distill",)
    assert trial.teacher.checkpoint == f"{of.run_url}/teacher.safetensors"
    assert trial.student.start == f"{of.run_url}/student_source.safetensors"
    assert from_source(settings("student.start=random"), "x").student.start == "random"
    two_stages = settings("adapt.method=mcc")
    assert source_identity(two_stages) == source_identity(own)
    assert stages_to_run(from_source(two_stages, of.run_url)) == ("adapt", "distill")


def test_a_job_goes_through_tune_and_back() -> None:
    job = TrialTask("small-0000-s1", 1, {"distill_stage.optim.lr": 0.1})
    assert TrialTask.from_config(job.as_config()) == job


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_a_sweep_that_trains(local_ray: None, tmp_path: Path, capsys) -> None:
    from fourds_dist.cli.tune import main
    from tests.harness.kill import SHORT, pack, places

    shards = pack(tmp_path / "shards")
    given = [word for word in SHORT if not word.startswith(("launch.", "distill_stage.checkpoint"))]
    words = [*given, *places(shards, tmp_path)]
    words += ["launch.workers=2", "launch.cpus_per_worker=0.5", "budget.trials=2", "scheduler.name=none"]
    words += [
        "space.adapt.method={grid: [none, fine_tune]}",
        "adapt_stage={epochs: 1, global_batch_size: 64}",
    ]
    sweep = "configs/sweeps/quickstart.yaml"
    assert main([sweep, *words]) == 0
    folder = tmp_path / "quickstart-sweep"
    assert len(list((folder / "teachers").iterdir())) == 1
    trials = sorted((folder / "trials").iterdir())
    assert [t.name for t in trials] == ["quickstart-sweep-0000-s0", "quickstart-sweep-0001-s0"]
    for trial in trials:
        known = json.loads((trial / "trial.json").read_text())
        assert known["state"] == "done"
        assert [e for e, _ in known["history"]] == [1, 2]
        stages = {json.loads(line)["stage"] for line in (trial / "metrics.jsonl").read_text().splitlines()}
        adapts = known["params"]["adapt.method"] != "none"
        assert stages == ({"adapt", "distill"} if adapts else {"distill"})
        assert (trial / RunFile.TEACHER_ADAPTED).exists() == adapts
    assert (folder / "report.html").exists()

    # The best configuration, trained from its file alone, reaches the accuracy that the sweep reported.
    best = max(json.loads((t / "trial.json").read_text())["history"][-1][1] for t in trials)
    from fourds_dist.cli.train import main as train

    assert train([str(folder / "best.yaml")]) == 0
    again = list(epochs_of(RunFolder(str(tmp_path / "quickstart-sweep-best")), Network.STUDENT))
    assert max(value for _, value in again) == pytest.approx(best, abs=1e-6)
    told = capsys.readouterr().out
    assert "quickstart-sweep-0001-s0: epoch 1 of 2, val/student" in told
    assert "quickstart-sweep-0001-s0: done, val/student" in told
