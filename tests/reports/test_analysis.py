"""The analysis of a run's networks on its test images, and its file."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fourds_dist.cli.report import main
from fourds_dist.reports import analysis as examine
from fourds_dist.reports.analysis import ADAPTED, BEFORE, STUDENT, TEACHER, PredictionAnalysis
from fourds_dist.reports.report import write_report
from fourds_dist.runs.layout import RunFile
from fourds_dist.stages.finished_run import Run
from tests.reports.known_analysis import known_analysis
from tests.reports.reported import page
from tests.stages.test_network_inputs import losses
from tests.stages.test_network_inputs import runs as runs  # a fixture
from tests.stages.test_stages import data as data  # a fixture


def test_analysis_agrees_with_the_summary(reported: Path) -> None:
    analysis, _ = PredictionAnalysis.from_bytes((reported / RunFile.EXAMINATION).read_bytes())
    table = {
        line["network"]: line["target"]
        for line in json.loads((reported / "summary.json").read_text())["lines"]
    }
    assert set(table) == set(analysis.probabilities) == {TEACHER, BEFORE, ADAPTED, STUDENT}
    for network, line in table.items():
        assert int(analysis.scores(network).right.sum()) == line["num_correct"], network


def test_mistakes_are_those_of_the_highest_confidence(reported: Path) -> None:
    analysis, _ = PredictionAnalysis.from_bytes((reported / RunFile.EXAMINATION).read_bytes())
    scores = analysis.scores(STUDENT)
    surest = np.sort(scores.confidence[~scores.right])[::-1][: examine.MOST_MISTAKES]
    assert [m.confidence for m in analysis.mistakes] == pytest.approx(surest.tolist(), abs=1e-5)
    assert all(m.truth != m.predicted for m in analysis.mistakes)


def test_the_stored_analysis_is_read_as_it_was_written(reported: Path) -> None:
    stored = (reported / RunFile.EXAMINATION).read_bytes()
    analysis, identity = PredictionAnalysis.from_bytes(stored)
    again, its_identity = PredictionAnalysis.from_bytes(analysis.to_bytes(identity))
    assert its_identity == identity
    for key, value in vars(analysis).items():
        np.testing.assert_equal(plain(getattr(again, key)), plain(value))


def plain(value: object) -> object:
    return (
        [vars(item) for item in value]
        if isinstance(value, list | tuple) and value and hasattr(value[0], "__dict__")
        else value
    )


def test_analysis_ends_at_the_time_limit_and_is_repeated_for_more_images(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(run_folder / "report")
    monkeypatch.setattr(examine, "TIME_LIMIT_S", 1e-9)
    assert write_report(str(run_folder))
    analysis, _ = PredictionAnalysis.from_bytes((run_folder / RunFile.EXAMINATION).read_bytes())
    assert len(analysis.labels) == examine.ROUND - 1 or len(analysis.labels) == examine.ROUND
    assert f"Evaluated on {len(analysis.labels)} of the 359 images of" in page(run_folder)
    assert (
        len(set(analysis.labels.tolist())) >= 8
    )  # spread over the split, which lies in order of classes or not
    assert main([str(run_folder)]) == 0
    assert f"Evaluated on {len(analysis.labels)} of the 359 images of" in page(run_folder)
    assert main([str(run_folder), "--images", "5000"]) == 0
    assert "Evaluated on all 359 images of" in page(run_folder)


def test_scores_are_those_of_the_predictions() -> None:
    analysis = known_analysis()
    assert [int(analysis.scores(n).right.sum()) for n in (STUDENT, TEACHER, ADAPTED)] == [5, 2, 3]
    assert analysis.scores(STUDENT).confusion.tolist() == [[2, 0, 0], [0, 3, 1], [0, 0, 0]]


def test_an_analysis_without_mistakes_and_adapters_is_stored() -> None:
    plainest = replace(known_analysis(num_adapters=0), mistakes=[])
    again, identity = PredictionAnalysis.from_bytes(plainest.to_bytes("me"))
    assert (identity, again.mistakes, again.adapters) == ("me", [], ())
    assert again.classes == plainest.classes
    np.testing.assert_equal(again.probabilities, plainest.probabilities)


def test_a_damaged_file_is_no_analysis() -> None:
    """Every truncated file is refused; a changed byte is, unless it is one that the archive does not use."""
    data = known_analysis().to_bytes("x")
    for length in (0, 1, 4, *range(5, len(data), 101), len(data) - 1):
        with pytest.raises(ValueError, match="no analysis of a run"):
            PredictionAnalysis.from_bytes(data[:length])
    random, num_refused = np.random.default_rng(0), 0
    for place in random.integers(0, len(data), 200):
        changed = bytearray(data)
        changed[place] ^= 0x55
        try:
            PredictionAnalysis.from_bytes(bytes(changed))
        except ValueError:
            num_refused += 1
    assert num_refused > 100


def test_a_truncated_file_is_analysed_again(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run_folder / RunFile.EXAMINATION
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(known_analysis().to_bytes("x")[:-40])
    monkeypatch.setattr(examine, "analyse", lambda *_: known_analysis())
    loaded = examine.load_or_analyse(Run(str(run_folder)))
    assert loaded.where == "shards/b (test)"
    assert PredictionAnalysis.from_bytes(path.read_bytes())[1] != "x"


def test_networks_with_images_of_their_own_are_measured_as_in_the_run(runs: Path) -> None:
    found = examine.analyse(Run(str(runs / "own")), 1000)
    measured = losses(runs / "own")
    assert set(found.probabilities) == {TEACHER, BEFORE, ADAPTED, STUDENT}
    for name, probabilities in found.probabilities.items():
        rows = probabilities[np.arange(len(found.labels)), found.labels]
        assert -np.log(rows).mean() == pytest.approx(measured[name], rel=1e-4), name
