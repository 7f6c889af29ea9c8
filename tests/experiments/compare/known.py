"""Results of a comparison whose numbers are known, as fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.experiments.compare.plan import Cell, ComparisonPlan
from fourds_dist.experiments.compare.results import Result, Results
from tests.experiments.compare.small import comparison

DOMAINS = {"a": "shards/a", "b": "shards/b"}


# Accuracies by (pair, seed): 4ds - cross_entropy is +.10, +.20, -.05, +.15.
KNOWN = {
    ("a", "b", 0): {"4ds": 0.60, "cross_entropy": 0.50},
    ("a", "b", 1): {"4ds": 0.70, "cross_entropy": 0.50},
    ("b", "a", 0): {"4ds": 0.45, "cross_entropy": 0.50},
    ("b", "a", 1): {"4ds": 0.65, "cross_entropy": 0.50},
}


def result(accuracy: float, train_s: float = 60.0) -> Result:
    return Result(accuracy, 0.5, train_s, 30.0, 100.0, None, "CPU")


@pytest.fixture
def plan(tmp_path: Path) -> ComparisonPlan:
    return comparison(
        tmp_path, DOMAINS, seeds=[0, 1], regimes={"few": {"target.labels_per_class": 2}, "all": {}}
    )


@pytest.fixture
def known(plan: ComparisonPlan) -> Results:
    cells = {
        Cell("few", source, target, seed, method): result(value, 60.0 if method == "4ds" else 120.0)
        for (source, target, seed), by_method in KNOWN.items()
        for method, value in by_method.items()
    }
    return Results(plan, cells)
