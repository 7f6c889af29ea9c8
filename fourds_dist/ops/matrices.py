"""Cached matrices of the DFT and of the adaptive pool, for `half_spectrum.py` and `eager.py`.

F(k) = sum_n x(n) exp(-2 pi i k n / N), in real parts and imaginary parts. H and W rows and columns of a map,
K = W // 2 + 1 columns of its half spectrum, U and V rows and columns of a pooled spectrum.
"""

from functools import lru_cache

import torch
from torch import Tensor


def multiplicity(width: int, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """Return c_l for the columns of the half spectrum: 1 for columns that are their own mirror, else 2."""
    c = torch.full((width // 2 + 1,), 2.0, dtype=dtype, device=device)
    c[0].fill_(1.0)
    if width % 2 == 0:
        c[-1].fill_(1.0)
    return c


@lru_cache(maxsize=64)
def row_matrix(width: int, dtype: torch.dtype) -> Tensor:
    """Return the matrix from the pixels of a row to its half spectrum: (2 K) x W, real parts, then imaginary parts."""
    cos, sin = turns(width // 2 + 1, width)
    return torch.cat([cos, -sin]).to(dtype)


@lru_cache(maxsize=64)
def column_matrix(height: int, dtype: torch.dtype) -> Tensor:
    """Return the matrix from a complex column (interleaved parts) to its spectrum (real, then imaginary parts).

    Its shape is (2 H) x (H 2).
    """
    cos, sin = turns(height, height)
    to_re, to_im = torch.stack([cos, sin], dim=-1), torch.stack([-sin, cos], dim=-1)
    return torch.cat([to_re, to_im]).flatten(1).to(dtype)


@lru_cache(maxsize=64)
def inverse_column_matrix(height: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the matrices from the real and the imaginary parts of a column's spectrum to its complex pixels.

    Each has the shape (H 2) x H; the parts of a pixel are interleaved.
    """
    cos, sin = (part / height for part in turns(height, height))
    of_re, of_im = torch.stack([cos, sin], dim=1), torch.stack([-sin, cos], dim=1)
    return of_re.flatten(0, 1).to(dtype), of_im.flatten(0, 1).to(dtype)


@lru_cache(maxsize=64)
def inverse_row_matrix(width: int, dtype: torch.dtype) -> Tensor:
    """Return the matrix from a row's half spectrum (real, then imaginary parts) to its pixels: W x (2 K)."""
    cos, sin = turns(width, width // 2 + 1)
    weight = multiplicity(width, torch.float64) / width
    return torch.cat([cos * weight, -sin * weight], dim=1).to(dtype)


def turns(num_rows: int, num_columns: int) -> tuple[Tensor, Tensor]:
    """Return cos and sin of 2 pi r c / N for rows r and columns c, where N is the larger of both numbers."""
    products = torch.arange(num_rows)[:, None] * torch.arange(num_columns)
    angles = 2 * torch.pi * (products % max(num_rows, num_columns)).double() / max(num_rows, num_columns)
    return torch.cos(angles), torch.sin(angles)


@lru_cache(maxsize=64)
def pool_matrices(
    size: tuple[int, int], output_size: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the (U V) x (H K) matrices that pool the half spectrum: its own bins, and the mirrored bins.

    They are Kronecker products of row and column matrices, R (x) Cl and Rn (x) Cn. R and C pool a full axis, Cl is C
    for columns 0..W/2, Rn maps row k from row -k, Cn maps column l from column -l if both differ.
    """
    (height, width), (num_rows, num_columns) = size, output_size
    rows, columns = pool_matrix(height, num_rows), pool_matrix(width, num_columns)
    half = range(width // 2 + 1)
    of_mirrors = columns[:, [-column % width for column in half]]
    for column in half:
        if -column % width == column:
            of_mirrors[:, column] = 0.0  # already counted
    direct = torch.kron(rows, columns[:, : width // 2 + 1].contiguous())
    mirrored = torch.kron(rows[:, [-k % height for k in range(height)]], of_mirrors)
    return direct.to(device, dtype), mirrored.to(device, dtype)


def pool_matrix(size: int, output_size: int) -> Tensor:
    """Return the matrix of a 1-D adaptive pool: cell u averages floor(u n / U) up to ceil((u + 1) n / U)."""
    matrix = torch.zeros(output_size, size, dtype=torch.float64)
    for u in range(output_size):
        start, stop = u * size // output_size, -(-(u + 1) * size // output_size)
        matrix[u, start:stop] = 1.0 / (stop - start)
    return matrix
