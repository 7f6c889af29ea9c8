"""Differences, means and costs from cells whose numbers are known."""

from __future__ import annotations

import pytest

from fourds_dist.config.stage_names import StageName
from fourds_dist.experiments.compare.plan import Cell, ComparisonPlan
from fourds_dist.experiments.compare.results import Results, read_results
from fourds_dist.runs.accuracy import Accuracy
from fourds_dist.runs.events import Event, StageEnded, StageStarted, StepLogged, TimeShares, encode
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.runs.summary import NetworkResult, RunSummary
from tests.experiments.compare.known import result


def test_paired_differences(known: Results) -> None:
    found = known.differences("few", "4ds", "cross_entropy")
    assert sorted(found.values()) == pytest.approx([-0.05, 0.10, 0.15, 0.20])
    by_pair = known.difference_by_pair("few", "4ds", "cross_entropy")
    assert by_pair["a -> b"].value == pytest.approx(0.15)
    assert by_pair["b -> a"].value == pytest.approx(0.05)
    assert known.differences("all", "4ds", "cross_entropy") == {}
    assert known.differences("few", "4ds", "two_stage") == {}


def test_a_mean_over_pairs_takes_whole_seeds(known: Results) -> None:
    mean = known.over_pairs("few", "4ds")
    assert mean is not None
    # Seeds 0 and 1: (.60 + .45) / 2 and (.70 + .65) / 2.
    assert mean.value == pytest.approx((0.525 + 0.675) / 2)
    assert mean.half_width == pytest.approx(12.7062 * 0.075, rel=1e-4)  # t(1), standard error .075
    del known.cells[Cell("few", "b", "a", 1, "4ds")]
    mean = known.over_pairs("few", "4ds")
    assert mean is not None
    assert (mean.value, mean.num, mean.low) == (pytest.approx(0.525), 1, None)


def test_times_are_compared_where_both_are_done(known: Results) -> None:
    assert known.time_ratio("few", "4ds", "cross_entropy") == pytest.approx(0.5)
    del known.cells[Cell("few", "a", "b", 0, "4ds")]
    long = Cell("few", "a", "b", 0, "cross_entropy")
    known.cells[long] = result(0.5, 6000.0)
    assert known.time_ratio("few", "4ds", "cross_entropy") == pytest.approx(0.5)
    assert known.time_ratio("few", "4ds", "two_stage") is None


def test_costs_are_read_from_what_was_measured(plan: ComparisonPlan) -> None:
    """Steps of 16 images at 32 images/s on two workers: one device-second a step, over a stop too."""
    cell = next(cell for cell in plan.runs if cell.method == "two_stage")
    folder = RunFolder(plan.runs[cell].run_url)
    accuracy = Accuracy(30, 40, 1.0)
    outcome = RunSummary("x", (NetworkResult("student", 1, None, accuracy),), 0.2, 1, 0.8, 32.0, 2)

    def stage(name: StageName, *steps: int, begin: int = 0) -> list[Event]:
        length = {"num_epochs": 1, "num_steps_per_epoch": 20, "global_batch_size": 16}
        start = StageStarted(step=begin, **length, num_workers=2, device="a card")
        end = StageEnded(step=steps[-1], peak_memory_bytes=2**30 if name == "adapt" else 2**20)
        between = [
            StepLogged(step=step, epoch=1.0, loss=1.0, losses={}, images_per_s=32.0, shares=TimeShares(0.0))
            for step in steps
        ]
        return [event.stamped(name, 0) for event in (start, *between, end)]

    def write(folder: RunFolder, *events: Event) -> None:
        folder.write_text("config.yaml", "run: {name: x}\n")
        folder.write_text("metrics.jsonl", "".join(encode(event) + "\n" for event in events))

    write(folder, *stage("adapt", 4, 5), *stage("distill", 10)[:-1], *stage("distill", 15, 20, begin=10))
    folder.write_json("summary.json", outcome.as_dict())
    write(RunFolder(plan.sources[cell].run_url), *stage("source", 3))
    found = read_results(plan).cells[cell]
    assert found.accuracy == 0.75
    assert found.train_s == pytest.approx(5 + 20)
    assert found.source_s == pytest.approx(3)
    assert (found.peak_memory_bytes, found.device) == (2**30, "a card")
