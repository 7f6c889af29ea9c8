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
from fourds_dist.training.distributed.rank_variables import GROUP, TORCHRUN, group_size, local_rank

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


@pytest.mark.parametrize(
    ("variables", "size"),
    [
        ({}, None),
        ({"WORLD_SIZE": "1"}, None),
        ({"WORLD_SIZE": "4", "LOCAL_RANK": "0", "NODE_RANK": "0"}, None),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "2"}, None),
        ({"MASTER_ADDR": "node-0", "MASTER_PORT": "29500", "WORLD_SIZE": "1"}, None),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        (RANK_1_OF_4, 4),
        (RANK_1_OF_4 | {TORCHRUN: "none"}, 4),
        ({**RANK_1_OF_4, "RANK": "0", "WORLD_SIZE": "1"}, 1),
    ],
)
def test_only_all_variables_together_make_a_rank(variables: dict[str, str], size: int | None) -> None:
    assert group_size(variables) == size


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"RANK": "1", "WORLD_SIZE": "4"},
            "MASTER_ADDR, MASTER_PORT is not set; start the ranks by torchrun",
        ),
        ({TORCHRUN: "none", "WORLD_SIZE": "4"}, "RANK, MASTER_ADDR, MASTER_PORT is not set"),
        (RANK_1_OF_4 | {"RANK": "4"}, "RANK=4 is not one of the ranks 0 to 3"),
        (RANK_1_OF_4 | {"WORLD_SIZE": "four"}, "WORLD_SIZE=four in the environment is not a number"),
    ],
)
def test_incomplete_rank_variables_are_refused(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        group_size(variables)


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ({}, 0),
        ({"LOCAL_RANK": "3"}, 3),
        ({"LOCAL_RANK": "3", "SLURM_LOCALID": "0"}, 3),  # torchrun under srun
        ({"SLURM_LOCALID": "2", "SLURM_PROCID": "6"}, 2),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "1", "LOCAL_RANK": ""}, 1),
        ({"MPI_LOCALRANKID": "1"}, 1),
    ],
)
def test_a_rank_has_the_gpu_of_its_number_on_its_machine(variables: dict[str, str], rank: int) -> None:
    assert local_rank(RANK_1_OF_4 | variables) == rank


def test_a_local_rank_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="SLURM_LOCALID=first in the environment is not a number"):
        local_rank({"SLURM_LOCALID": "first"})


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
