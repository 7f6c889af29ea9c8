"""Calibration of advice against a comparison."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from fourds_dist.benchmark import advise as benchmark
from fourds_dist.benchmark.advise import Case, add_arguments, markdown, run
from fourds_dist.cli.compare import main as compare
from fourds_dist.config.loading import to_yaml
from fourds_dist.experiments.advise import advisor
from tests.experiments.advise.small import RUN, write_domains


def case(pick: str, *, low: float, high: float) -> Case:
    accuracies = {"a": 0.8, "b": 0.795, "c": 0.5}
    regret = 100 * (0.8 - accuracies[pick])
    return Case("x -> y", "few", accuracies, pick, regret, 0.7, low, high, 100, 10, 0.9, ((0.1, 0.5),))


def test_what_cases_say_together() -> None:
    found = [case("a", low=0.7, high=0.9), case("b", low=0.7, high=0.75), case("c", low=0.4, high=0.6)]
    assert [each.is_close for each in found] == [True, True, False]
    assert [each.is_covered for each in found] == [True, False, True]
    text = markdown(found)
    assert "| x -> y | few | b | a 80.0 | 0.5 | 70.0 [70.0, 75.0] | 79.5 | 10 of 100 s |" in text
    assert text.endswith("best: 2 of 3; mean regret 10.2 points; intervals that have the accuracy: 2 of 3.")


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_advice_on_the_pairs_of_a_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("try_settings", "measure_help"):
        monkeypatch.setattr(advisor, part, lambda trainings, best: None)
    monkeypatch.setattr(benchmark, "LEAST_BUDGET_S", 300.0)  # enough for a race also beside other programs
    domains = write_domains(tmp_path)
    file = tmp_path / "comparison.yaml"
    tree = {
        "name": "small",
        "through": "here",
        "changes": {**RUN, "launch": {"runner": "inline", "workers": 1}},
        "domains": domains,
        "pairs": [["light", "dark"]],
        "methods": {"4ds": {"method.preset": "4ds"}, "adabn": {"method.preset": "adabn"}},
    }
    file.write_text(to_yaml(tree))
    runs = f"run.dir={tmp_path}/runs"
    with pytest.raises(ValueError, match="it has no case whose cells are all done; run the comparison"):
        run(options(str(file), runs))
    assert compare([str(file), runs]) == 0
    run(options(str(file), runs, "--share", "0.5", "--json", str(tmp_path / "cases.json")))
    (found,) = json.loads((tmp_path / "cases.json").read_text())
    assert (found["pair"], found["regime"], found["pick"]) == ("light -> dark", "all", "4ds")
    assert found["full_s"] > 0
    assert "| light -> dark | all | 4ds |" in capsys.readouterr().out
