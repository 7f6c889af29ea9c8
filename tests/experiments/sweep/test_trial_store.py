"""The state of trials, their files, and the configurations that they make up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fourds_dist.experiments.sweep.trial_store import Configuration, State, Trial, TrialStore

WHOLE: dict[str, Any] = {"name": "a", "number": 0, "seed": 0, "params": {}, "num_epochs": 2, "history": []}


def test_mean_and_spread_over_seeds() -> None:
    trials = tuple(
        Trial(f"a{i}", 0, i, {}, 2, state="done", history=[(1, v), (2, v - 0.1)])
        for i, v in enumerate((0.5, 0.6, 0.7))
    )
    failed = Trial("b", 0, 3, {}, 2, state="failed", history=[(1, 0.1)])
    both = Configuration(0, (*trials, failed), "max")
    assert both.mean == pytest.approx(0.6)
    assert both.spread == pytest.approx(0.1)
    assert Configuration(0, (failed,), "max").mean is None
    cut = Trial("c", 0, 4, {}, 2, state="stopped", history=[(1, 0.9)])
    assert Configuration(0, (*trials, cut), "max").mean == pytest.approx(
        0.6
    )  # one that was not trained to its end


def test_epochs_done_again_count_once() -> None:
    trial = Trial("a", 0, 0, {}, 4, history=[(1, 0.2), (2, 0.5), (3, 0.4)])
    trial.add(2, 0.6)
    assert trial.history == [(1, 0.2), (2, 0.6)]
    assert trial.best("max") == 0.6


def test_the_best_metric_is_the_highest_or_the_lowest() -> None:
    trial = Trial("a", 0, 0, {}, 4)
    assert (trial.best("max"), trial.epoch) == (None, 0)
    for epoch, value in enumerate((0.2, 0.5, 0.4), start=1):
        trial.add(epoch, value)
    assert (trial.best("max"), trial.best("min"), trial.epoch) == (0.5, 0.2, 3)


def test_trials_are_read_as_they_were_written(tmp_path: Path) -> None:
    store = TrialStore(str(tmp_path), "max")
    params = {"lr": 0.1, "stages": ["layer1", None], "flag": True, "width": 3}
    later = Trial("b-0001-s0", 1, 0, params, 4, "failed", [(1, 0.25)], None, ["was killed"])
    first = Trial("b-0000-s1", 0, 1, params, 4, "done", [(1, 0.25), (2, 0.5)], 0.75)
    for trial in (later, first):
        store.write(trial)
    read = TrialStore.read(str(tmp_path), "max")
    assert list(read.trials.values()) == [first, later]
    assert read.num_epochs == 3
    assert TrialStore.read(str(tmp_path / "elsewhere"), "max").trials == {}


def test_keys_of_earlier_versions_are_ignored() -> None:
    assert Trial.from_dict({**WHOLE, "history": [[1, 1]], "rung": 3}).history == [(1, 1.0)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError|ValueError"),
        ("null", "TypeError|ValueError"),
        (json.dumps({"name": "a"}), "number: Field required"),
        (json.dumps(WHOLE | {"state": "over"}), "state: Input should be 'waiting', 'running', 'done'"),
        (json.dumps(WHOLE | {"history": [[1]]}), r"history\.0\.1: Field required"),
        (json.dumps(WHOLE | {"history": [[1, "x"]]}), r"history\.0\.1: Input should be a valid number"),
        (json.dumps(WHOLE | {"params": []}), "params: Input should be a valid dictionary"),
        (json.dumps(WHOLE | {"number": "first"}), "number: Input should be a valid integer"),
        (json.dumps(WHOLE | {"name": "b"}), "it holds trial 'b' in the folder of 'a'"),
    ],
)
def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "trials" / "a" / "trial.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(
        ValueError, match=rf"{path} is no trial of a sweep \(.*({why}).*\); restore it, or remove"
    ):
        TrialStore.read(str(tmp_path), "max")
    path.unlink()
    assert TrialStore.read(str(tmp_path), "max").trials == {}


def trial(number: int, state: State, *values: float, seed: int = 0, tested: float | None = None) -> Trial:
    history = list(enumerate(values, start=1))
    return Trial(f"s-{number}-{seed}", number, seed, {}, 9, state, history, tested)


def test_configurations_that_ran_to_their_end_rank_before_the_others() -> None:
    trials = [
        trial(3, "stopped", 0.9),
        trial(2, "done", 0.5),
        trial(1, "done", 0.7),
        trial(1, "done", 0.1, seed=1),
        trial(0, "failed"),
        trial(4, "running", 0.6),
    ]
    assert [c.number for c in TrialStore("x", "max", trials).ranked()] == [2, 1, 3, 4]
    assert [c.number for c in TrialStore("x", "min", trials).ranked()] == [1, 2, 4, 3]
    store = TrialStore("x", "max", trials)
    assert [t.number for t in store.in_state("done", "failed")] == [2, 1, 1, 0]
    assert [(c.number, c.is_over, c.is_done) for c in store.configurations()] == [
        (0, True, False), (1, True, True), (2, True, True), (3, True, False), (4, False, False),
    ]  # fmt: skip


def test_tested_accuracies_are_those_of_finished_trials() -> None:
    pair = (trial(0, "done", 0.5, tested=0.25), trial(0, "running", 0.4, seed=1))
    configuration = Configuration(0, pair, "max")
    assert configuration.tested == [0.25]
    assert (configuration.values, configuration.spread) == ([0.5], None)
