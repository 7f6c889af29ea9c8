"""Conventions of all backends: the function d(v) of Eq. 1 and the self-conjugate bins.

The released code makes divisions and angles finite by d(v) = EPS where |v| < EPS, else v (Eq. 1). This affects the
method's numbers, so every backend applies d(v). At a self-conjugate bin (row 0 or H/2, column 0 or W/2) the spectrum of
a real map is real. Rounding leaves noise in the imaginary part, whose sign would change the angle of a negative bin
from pi to -pi, so every backend writes Im = +0 there.
"""

import torch
from torch import Tensor

EPS = 1e-5


def away_from_zero(v: Tensor) -> Tensor:
    """Return d(v) of Eq. 1: EPS where |v| < EPS, else v. NaN stays NaN."""
    return torch.where(v.abs() < EPS, EPS, v)


def self_conjugate(num_rows: int, num_columns: int) -> list[tuple[int, int]]:
    """Return the bins that are their own mirror: row 0 (and H/2 if H is even), column 0 (and W/2 if W is even)."""
    rows = range(0, num_rows, num_rows // 2) if num_rows % 2 == 0 else range(1)
    columns = range(0, num_columns, num_columns // 2) if num_columns % 2 == 0 else range(1)
    return [(row, column) for row in rows for column in columns]


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the transforms: float64 for float64, else float32, as phases of weak bins need precision."""
    return torch.float64 if dtype == torch.float64 else torch.float32
