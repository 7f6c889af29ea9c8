"""What launchers of ranks leave in the environment, and what fits it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.cli import tune
from fourds_dist.cli.compare import main as compare_main
from fourds_dist.cli.train import main
from fourds_dist.config.section import ConfigError
from fourds_dist.launch.run import QUICKSTART, load_run
from fourds_dist.launch.torchrun import TASKS
from fourds_dist.training.distributed.rank_variables import GROUP, TORCHRUN

RANK_1_OF_4 = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
INLINE = "launch.runner=inline"


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch):
    """Sets what a launcher sets, and nothing else of that kind."""
    for name in (*GROUP, *TASKS, TORCHRUN):
        monkeypatch.delenv(name, raising=False)

    def by(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return by


def test_torchrun_with_ray_is_refused_before_anything(
    launched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launched(**RANK_1_OF_4, **{TORCHRUN: "none"})
    assert main([f"run.dir={tmp_path}/runs"]) == 1
    describe_failures = capsys.readouterr().err
    assert "torchrun" in describe_failures
    assert "give launch.runner=inline" in describe_failures
    assert tune.main(["sweep.yaml"]) == 1
    assert "a sweep starts its own workers" in capsys.readouterr().err
    assert compare_main(["comparison.yaml"]) == 1
    assert "a comparison starts its own workers" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert load_run(QUICKSTART, [INLINE]).launch.workers == 4


def test_a_number_of_workers_that_inline_cannot_have_is_refused(
    launched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launched()
    for words in ([INLINE, "launch.workers=2"], ["launch={runner: inline, workers: [2, 4]}"]):
        with pytest.raises(
            ConfigError, match=r"trains in this process alone\. Start \d processes by `torchrun"
        ):
            load_run(None, words)
    (tmp_path / "both.yaml").write_text("launch: { runner: inline, workers: 2 }\n")
    with pytest.raises(ConfigError, match=r"launch\.workers=2: launch\.runner=inline trains in this process"):
        load_run(tmp_path / "both.yaml", [])
    assert load_run(tmp_path / "both.yaml", ["launch.workers=1"]).launch.workers == 1
    assert load_run(None, [INLINE, "launch.workers=[1, 4]"]).launch.workers == (1, 4)
    assert capsys.readouterr().err == ""
    # A file's value for Ray is reported, and replaced.
    assert load_run(QUICKSTART, [INLINE]).launch.workers == 1
    assert "quickstart.yaml gives launch.workers=2 for launch.runner=ray" in capsys.readouterr().err
    assert load_run(QUICKSTART, []).launch.workers == 2

    launched(**RANK_1_OF_4)
    assert load_run(None, [INLINE, "launch.workers=4"]).launch.workers == 4
    with pytest.raises(ConfigError, match="trains in the 4 processes of torchrun"):
        load_run(None, [INLINE, "launch.workers=2"])


@pytest.mark.parametrize("name", TASKS)
def test_processes_that_know_nothing_of_each_other_are_refused(launched, name: str) -> None:
    launched(**{name: "4"})
    with pytest.raises(
        ConfigError, match=rf"started 4 processes \({name}=4\), each of which would train a run of its"
    ):
        load_run(None, [INLINE])
    assert (
        load_run(None, ["launch.runner=ray"]).launch.runner == "ray"
    )  # the cluster may have been started so
    launched(**RANK_1_OF_4)
    assert load_run(None, [INLINE]).launch.runner == "inline"
    launched(**{name: "1"})
    assert load_run(None, [INLINE]).launch.runner == "inline"
