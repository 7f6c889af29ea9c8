"""Cells, what they share, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.config.loading import builtin_config, dump
from fourds_dist.config.section import ConfigError
from fourds_dist.data.datasets.layouts import LAYOUTS
from fourds_dist.experiments.compare.config import CompareConfig
from fourds_dist.experiments.compare.plan import ComparisonPlan, check_runs, read_plan, refuse_others
from fourds_dist.runs.run_folder import RunFolder
from tests.experiments.compare.small import METHODS, comparison, write_domains

DOMAINS = {"a": "shards/a", "b": "shards/b", "c": "shards/c"}
FILES = sorted(builtin_config("compare").glob("*.yaml"))


def test_cells_are_methods_by_pairs_by_seeds_by_regimes(tmp_path: Path) -> None:
    regimes = {"few": {"target": {"labels_per_class": 4}}, "all": {}}
    plan = comparison(tmp_path, DOMAINS, seeds=[3, 5], regimes=regimes)
    assert len(plan.runs) == 3 * 6 * 2 * 2
    cell, run = next(
        item for item in plan.runs.items() if item[0].method == "two_stage" and item[0].seed == 5
    )
    assert (cell.name, run.run.seed, run.adapt.method) == ("a-to-b.few.two_stage.5", 5, "fine_tune")
    assert run.target.labels_per_class == 4
    assert run.source.url is not None
    assert run.source.url.endswith("shards/a")
    assert run.run_url == f"{tmp_path}/runs/small/cells/{cell.name}"
    assert run.method.preset == "distillation"
    assert run.method.phase_loss == "none"  # a preset fills what is left out


def test_words_go_to_the_comparison_or_to_its_runs(tmp_path: Path) -> None:
    plan = comparison(tmp_path, DOMAINS, "seeds=[7]", "distill_stage.optim.lr=0.5", "pairs=[[a, c]]")
    assert {cell.seed for cell in plan.runs} == {7}
    assert {cell.pair for cell in plan.runs} == {"a -> c"}
    assert {run.distill_stage.optim.lr for run in plan.runs.values()} == {0.5}


def teachers(plan: ComparisonPlan) -> set[str]:
    return {source.run_url for source in plan.sources.values()}


def test_a_teacher_is_shared_by_all_that_agree_on_it(tmp_path: Path) -> None:
    regimes = {"all": {}, "scratch": {"student.start": "random"}}
    plan = comparison(tmp_path, DOMAINS, seeds=[0, 1], regimes=regimes)
    assert len(teachers(plan)) == 3 * 2  # by domain and seed; not by target, method or the student's start
    for cell, run in plan.runs.items():
        source = plan.sources[cell]
        assert source.source.url == run.source.url
        assert source.run.seed == cell.seed
        assert source.run.until == "source"
        assert source.target.url is None
        assert run.teacher.checkpoint == f"{source.run_url}/teacher.safetensors"
        start = f"{source.run_url}/student_source.safetensors"
        assert run.student.start == (start if cell.regime == "all" else "random")


def test_a_comparison_grows_without_taking_its_cells_their_teacher(tmp_path: Path) -> None:
    scratch = {"scratch": {"student.start": "random"}}
    before = comparison(tmp_path, DOMAINS, regimes=scratch)
    with_all = comparison(tmp_path, DOMAINS, regimes=scratch | {"all": {}})
    assert not teachers(before) & teachers(with_all)  # nothing is trained yet: one teacher for both
    for url in teachers(before):
        RunFolder(url).write_json("source.json", {})
    with_all = comparison(tmp_path, DOMAINS, regimes=scratch | {"all": {}})
    assert {cell: with_all.runs[cell] for cell in before.runs} == before.runs


def test_a_part_keeps_the_source_stages_of_the_whole(tmp_path: Path) -> None:
    whole = comparison(tmp_path, DOMAINS, regimes={"few": {"target": {"labels_per_class": 4}}, "all": {}})
    part = whole.among(regimes=["few"], methods=["cross_entropy"])
    assert {(cell.regime, cell.method) for cell in part.runs} == {("few", "cross_entropy")}
    assert len(part.runs) < len(whole.runs)
    assert all(part.sources[cell] is whole.sources[cell] for cell in part.sources)
    assert whole.among(regimes=None, methods=None).runs == whole.runs


@pytest.mark.parametrize("asked", [{"regimes": ["fwe"]}, {"methods": ["fwe"]}])
def test_a_part_that_is_not_there_is_refused(tmp_path: Path, asked: dict) -> None:
    with pytest.raises(ConfigError, match="'fwe'; there are "):
        comparison(tmp_path, DOMAINS).among(**({"regimes": None, "methods": None} | asked))


def test_another_teacher_is_another_source_stage(tmp_path: Path) -> None:
    methods = METHODS | {"longer": {"source_stage.epochs": 2}}
    plan = comparison(tmp_path, DOMAINS, methods=methods, pairs=[["a", "b"]])
    assert len(teachers(plan)) == 2


def test_a_teacher_of_one_s_own_is_taken_as_it_is(tmp_path: Path) -> None:
    own = ("teacher.checkpoint=/own.pt", "student.start=random")
    plan = comparison(tmp_path, DOMAINS, *own)
    assert not plan.sources
    assert {run.teacher.checkpoint for run in plan.runs.values()} == {"/own.pt"}
    plan = comparison(tmp_path, DOMAINS, own[0])  # whose student comes from the source
    assert plan.sources
    assert {run.teacher.checkpoint for run in plan.runs.values()} == {"/own.pt"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"pairs": [["a", "x"]]}, "pairs: there is no domain 'x'; there are a, b, c"),
        ({"pairs": [["a", "a"]]}, "is one domain twice"),
        ({"baselines": ["none"]}, "there is no method 'none'"),
        ({"seeds": list(range(10_000))}, "are 180000 cells, and at most 100000 are allowed"),
        ({"baselines": list(METHODS)}, "every method is one"),
        ({"methods": {"a method": {}}}, "'a method' becomes part of a folder's name"),
        ({"methods": {}}, "methods is empty"),
        ({"seeds": [1, 1]}, "seeds: give at least one, and none twice"),
        ({"parallel": 2}, "parallel=2 needs through=ray or processes"),
        ({"through": "processes", "changes": {"launch.runner": "ray"}}, "needs launch.runner=inline"),
        (
            {"methods": {"m": {"method.presett": "fitnets"}}},
            "unknown key 'method.presett' in methods.m; did you mean",
        ),
        ({"regimes": {"few": {"target.labels": 1}}}, "unknown key 'target.labels' in regimes.few"),
        ({"name": "a/b"}, "name"),
    ],
)
def test_refused(tmp_path: Path, keys: dict, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        comparison(tmp_path, DOMAINS, **keys)
    assert message in str(refused.value)


def test_methods_are_checked_before_anything_starts(tmp_path: Path) -> None:
    domains = write_domains(tmp_path, "a", "b")
    check_runs(comparison(tmp_path, domains))
    with pytest.raises(ValueError, match=r"a -> gone, all, seed 0, 4ds: .*gone"):
        check_runs(comparison(tmp_path, domains | {"gone": f"{tmp_path}/gone"}))
    methods = METHODS | {"big_batch": {"distill_stage.global_batch_size": 99}}
    too_big = comparison(tmp_path, domains, methods=methods)
    with pytest.raises(ValueError, match=r"big_batch: distill_stage\.global_batch_size=99"):
        check_runs(too_big)


def test_each_method_is_checked_with_its_own_networks_and_weights(tmp_path: Path) -> None:
    domains = write_domains(tmp_path, "a", "b")
    fewer = {"teacher.stages": ["layer2"], "student.stages": ["layer2"]}
    check_runs(comparison(tmp_path, domains, methods=METHODS | {"fewer": fewer}))
    elsewhere = {"student.start": f"{tmp_path}/gone.safetensors"}
    with pytest.raises(ValueError, match=r"elsewhere: .*gone\.safetensors"):
        check_runs(comparison(tmp_path, domains, methods=METHODS | {"elsewhere": elsewhere}))


def test_keys_that_cells_set_themselves_are_not_overruled_in_silence(tmp_path: Path) -> None:
    methods = METHODS | {"short": {"distill_stage.epochs": 2}}
    regimes = {"few": {"target": {"labels_per_class": 4}}, "all": {}}
    for word, told in (
        (
            "distill_stage.epochs=5",
            r"methods\.short would keep distill_stage\.epochs as it sets it; .* methods\.short\.distill",
        ),
        ("target={labels_per_class: 3}", r"regimes\.few would keep target\.labels_per_class"),
        ("method.preset=fitnets", r"methods\.4ds, methods\.cross_entropy, .* as they set it"),
        ("run.seed=3", r"give seeds=\[\.\.\.\]"),
        ("source.url=x", "give domains and pairs"),
    ):
        with pytest.raises(ConfigError, match=told):
            comparison(tmp_path, DOMAINS, word, methods=methods, regimes=regimes)
    plan = comparison(tmp_path, DOMAINS, "methods.short.distill_stage.epochs=5", methods=methods)
    assert {run.distill_stage.epochs for cell, run in plan.runs.items() if cell.method == "short"} == {5}


def test_cells_of_another_configuration_are_refused(tmp_path: Path) -> None:
    plan = comparison(tmp_path, DOMAINS)
    cell, run = next(iter(plan.runs.items()))
    Path(run.run_url).mkdir(parents=True)
    Path(run.run_url, "config.yaml").write_text(dump(run))
    refuse_others(plan)
    refuse_others(comparison(tmp_path, DOMAINS, "distill_stage.epochs=3"))  # nothing of it has begun
    Path(run.run_url, "summary.json").write_text("{}")
    refuse_others(comparison(tmp_path, DOMAINS, "data.threads=1"))
    with pytest.raises(
        ConfigError, match=rf"{cell}: .* another configuration \(distill_stage.epochs: 1 -> 3\)"
    ):
        refuse_others(comparison(tmp_path, DOMAINS, "distill_stage.epochs=3"))


def test_a_store_that_denies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denies(folder: RunFolder, name: str) -> bool:
        raise PermissionError("Forbidden")

    plan = comparison(tmp_path, write_domains(tmp_path, "a", "b"))
    monkeypatch.setattr(RunFolder, "exists", denies)
    with pytest.raises(ValueError, match=rf"{tmp_path}.*: access denied \(Forbidden\)"):
        refuse_others(plan)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_shipped_can_be_planned(path: Path) -> None:
    plan = read_plan(path)
    assert plan.config.name
    assert "4ds" in plan.config.compared
    assert {"cross_entropy", "no_distillation"} & set(plan.config.all_baselines)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if len(LAYOUTS[name].domains) > 1])
def test_the_paper_s_data_sets_have_all_their_pairs(name: str) -> None:
    plan = read_plan(builtin_config("compare") / f"{name}.yaml")
    domains = LAYOUTS[name].domains
    assert plan.config.domains == {domain: f"shards/{name}-{domain}" for domain in domains}
    assert len(plan.config.all_pairs) == len(domains) * (len(domains) - 1)
    run = next(iter(plan.runs.values()))
    assert (run.distill_stage.epochs, run.distill_stage.global_batch_size, run.run.seed) == (120, 32, 42)
    assert {"4ds_released", "fine_tune_then_distil", "mcc_then_distil", "fitnets"} <= set(plan.config.methods)


def test_the_icons_are_compared_as_they_should() -> None:
    config: CompareConfig = read_plan(builtin_config("compare") / "icons.yaml").config
    assert len(config.all_pairs) >= 6
    assert len(config.seeds) >= 3
    assert {"few", "all", "few-from-scratch", "all-from-scratch"} == set(config.regimes)
