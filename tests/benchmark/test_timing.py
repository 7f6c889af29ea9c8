"""Timing of calls, names of devices, and plain-text tables."""

from __future__ import annotations

import argparse

import pytest
import torch

from fourds_dist.benchmark import timing
from fourds_dist.benchmark.timing import device_name, is_number, table, usable_device


def test_columns_line_up() -> None:
    lines = table(("name", "ms"), [["a", "1.00"], ["longer", "123.45"]]).splitlines()
    assert lines == ["name        ms", "------  ------", "a         1.00", "longer  123.45"]


def test_medians_of_warm_and_cold_calls_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call warms up; then three calls follow with warm caches and three with cold ones."""
    monkeypatch.setattr(timing, "FLUSH_BYTES", 64)
    took_s, now_s = iter([100.0, 0.001, 0.003, 0.2, 0.01, 0.5, 0.04]), [0.0]

    def call() -> None:
        now_s[0] += next(took_s)

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now_s[0])
    measured = timing.time_call(call, torch.device("cpu"), 3)
    assert (measured.hot_ms, measured.cold_ms) == pytest.approx((3.0, 40.0))
    assert next(took_s, None) is None


def test_a_device_that_cannot_be_used_is_refused() -> None:
    assert usable_device("cpu") == "cpu"
    for text in ("abacus", "cuda:99"):
        with pytest.raises(
            argparse.ArgumentTypeError, match=rf"{text} cannot be used \(.*\); give cpu or cuda"
        ):
            usable_device(text)


def test_the_name_of_a_cpu_has_its_threads() -> None:
    assert device_name(torch.device("cpu")) == f"cpu, {torch.get_num_threads()} threads"


@pytest.mark.parametrize(
    ("cell", "numeric"),
    [("12", True), ("0.5", True), ("1.2.3", False), ("", False), ("-", False), ("a1", False)],
)
def test_cells_with_numbers(cell: str, numeric: bool) -> None:
    assert is_number(cell) is numeric
