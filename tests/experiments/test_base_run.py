"""Words of the command line go to the experiment or to its run, and errors name where a key was given."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.config.section import ConfigError
from fourds_dist.experiments.base_run import is_run_key, read_experiment, with_absolute_base_paths
from fourds_dist.experiments.compare.config import CompareConfig
from fourds_dist.experiments.compare.plan import read_plan as comparison_plan
from fourds_dist.experiments.sweep.config import SweepConfig
from fourds_dist.experiments.sweep.plan import read_plan as sweep_plan
from fourds_dist.stages.settings import Settings

SWEEP = """\
config: run.yaml
changes: { run.seed: 3 }
space: { method.temperature: { uniform: [1, 8] } }
budget: { trials: 4 }
"""
COMPARE = "config: run.yaml\nchanges: { run.seed: 3 }\ndomains: { a: x, b: y }\nmethods: { m: {}, n: {} }\n"


@pytest.mark.parametrize(("root", "text"), [(SweepConfig, SWEEP), (CompareConfig, COMPARE)])
def test_file_changes_and_words_meet(tmp_path: Path, root: type, text: str) -> None:
    (tmp_path / "run.yaml").write_text(
        "run: { seed: 1, dir: results }\nsource: { url: s3://b/s }\ntarget: { url: t }\n"
    )
    (tmp_path / "experiment.yaml").write_text(text)
    words = ["name=other", "launch={workers: 2}", "run.keep_checkpoints=5", "through=processes"]
    config, base = read_experiment(tmp_path / "experiment.yaml", words, root)
    assert (config.name, config.through) == ("other", "processes")
    run = with_absolute_base_paths(base, tmp_path, "the test").build(Settings)
    assert (run.run.seed, run.run.keep_checkpoints, run.launch.workers) == (3, 5, 2)
    assert (run.run.dir, run.source.url, run.target.url) == (
        f"{tmp_path}/results",
        "s3://b/s",
        f"{tmp_path}/t",
    )
    with pytest.raises(
        ConfigError, match=r"'launch.worker' in override 'launch.worker=3'; did you mean 'launch.workers'"
    ):
        read_experiment(tmp_path / "experiment.yaml", ["launch.worker=3"], root)[1].build(Settings)


@pytest.mark.parametrize(("root", "text"), [(SweepConfig, SWEEP), (CompareConfig, COMPARE)])
def test_several_students_are_refused(tmp_path: Path, root: type, text: str) -> None:
    (tmp_path / "run.yaml").write_text(
        "students: [{ arch: resnet10 }, { arch: resnet18 }]\ntarget: { url: t }\n"
    )
    (tmp_path / "experiment.yaml").write_text(text)
    make = sweep_plan if root is SweepConfig else comparison_plan
    with pytest.raises(
        ConfigError,
        match=r"students has 2 entries, and sweeps, comparisons and advice measure one student a run",
    ):
        make(tmp_path / "experiment.yaml", [], folder=tmp_path)


def test_a_misspelt_key_goes_where_the_nearest_name_is() -> None:
    for word, is_of_run in (
        ("lunch.workers=3", True),
        ("budgett.trials=3", False),
        ("run.dir=x", True),
        ("name=x", False),
    ):
        assert is_run_key(word, SweepConfig) == is_of_run
    for word, is_of_run in (
        ("methods.m={}", False),
        ("method.preset=4ds", True),
        ("early_stoping=null", False),
    ):
        assert is_run_key(word, CompareConfig) == is_of_run
