"""Conventions of all backends: d(v), self-conjugate bins and the working dtype."""

from __future__ import annotations

import math

import pytest
import torch

from fourds_dist.ops.spectrum import EPS, away_from_zero, self_conjugate, working_dtype


def test_small_values_become_eps_whatever_their_sign() -> None:
    v = torch.tensor([0.0, -0.0, 9e-6, -9e-6, 2e-5, -2e-5, -3.0, math.inf, math.nan], dtype=torch.float64)
    expected = torch.tensor([EPS] * 4 + [2e-5, -2e-5, -3.0, math.inf, math.nan], dtype=torch.float64)
    torch.testing.assert_close(away_from_zero(v), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("rows", [1, 2, 3, 6])
@pytest.mark.parametrize("columns", [1, 2, 5, 8])
def test_self_conjugate_bins_are_their_own_mirror(rows: int, columns: int) -> None:
    mirrors = [(k, n) for k in range(rows) for n in range(columns) if (-k % rows, -n % columns) == (k, n)]
    assert self_conjugate(rows, columns) == mirrors


def test_only_float64_is_computed_in_float64() -> None:
    assert working_dtype(torch.float64) == torch.float64
    assert {working_dtype(d) for d in (torch.float32, torch.bfloat16, torch.float16)} == {torch.float32}
