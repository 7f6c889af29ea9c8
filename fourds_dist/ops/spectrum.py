"""The numbers every backend agrees on: the denormal rule and the self-conjugate bins.

The released code keeps divisions and angles finite with d(v) = EPS where |v| < EPS, else v; it is part of the method's
numbers, so every backend follows it. At a self-conjugate bin (row 0 or H/2, column 0 or W/2) the spectrum of a real map
is real. Rounding leaves noise in its imaginary part, and the sign of that noise would turn the angle of a negative bin
from pi to -pi, so every backend writes Im = +0 there.
"""

import torch
from torch import Tensor

EPS = 1e-5


def away_from_zero(v: Tensor) -> Tensor:
    """The denormal rule d(v): EPS where |v| < EPS, else v. NaN stays NaN."""
    return torch.where(v.abs() < EPS, EPS, v)


def self_conjugate(num_rows: int, num_columns: int) -> tuple[list[int], list[int]]:
    """Rows and columns whose crossings are self-conjugate bins: 0, and the half where the size is even."""
    rows = [0] if num_rows % 2 else [0, num_rows // 2]
    columns = [0] if num_columns % 2 else [0, num_columns // 2]
    return rows, columns


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype transforms run in: float64 for float64, float32 for everything narrower (phases are ill-conditioned)."""
    return torch.float64 if dtype == torch.float64 else torch.float32
