"""The DFT and the adaptive pool as matrices, for `half_spectrum.py` and `eager.py`; each is made once.

F(k) = sum_n x(n) exp(-2 pi i k n / N), in real parts and imaginary parts. H and W rows and columns of a map,
K = W // 2 + 1 columns of its half spectrum, U and V rows and columns of a pooled spectrum.
"""

from functools import lru_cache

import torch
from torch import Tensor


def multiplicity(width: int, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """c_l for the columns of the half spectrum: 2, but 1 for columns that are their own mirror."""
    c = torch.full((width // 2 + 1,), 2.0, dtype=dtype, device=device)
    c[0].fill_(1.0)
    if width % 2 == 0:
        c[-1].fill_(1.0)
    return c


@lru_cache(maxsize=64)
def row_matrix(width: int, dtype: torch.dtype) -> Tensor:
    """Pixels of a row to its half spectrum: (2 K) x W, first the real parts, then the imaginary ones."""
    cos, sin = turns(width // 2 + 1, width)
    return torch.cat([cos, -sin]).to(dtype)


@lru_cache(maxsize=64)
def column_matrix(height: int, dtype: torch.dtype) -> Tensor:
    """A complex column, its parts in turn, to its spectrum, real parts and then imaginary ones: (2 H) x (H 2)."""
    cos, sin = turns(height, height)
    to_re, to_im = torch.stack([cos, sin], dim=-1), torch.stack([-sin, cos], dim=-1)
    return torch.cat([to_re, to_im]).flatten(1).to(dtype)


@lru_cache(maxsize=64)
def inverse_column_matrix(height: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A column's spectrum, by its real and its imaginary parts, to its pixels, their parts in turn: (H 2) x H each."""
    cos, sin = (part / height for part in turns(height, height))
    of_re, of_im = torch.stack([cos, sin], dim=1), torch.stack([-sin, cos], dim=1)
    return of_re.flatten(0, 1).to(dtype), of_im.flatten(0, 1).to(dtype)


@lru_cache(maxsize=64)
def inverse_row_matrix(width: int, dtype: torch.dtype) -> Tensor:
    """A row's half spectrum, real parts and then imaginary ones, to its pixels: W x (2 K)."""
    cos, sin = turns(width, width // 2 + 1)
    weight = multiplicity(width, torch.float64) / width
    return torch.cat([cos * weight, -sin * weight], dim=1).to(dtype)


def turns(num_rows: int, num_columns: int) -> tuple[Tensor, Tensor]:
    """cos and sin of 2 pi r c / N for rows r and columns c, where N is the larger number."""
    products = torch.arange(num_rows)[:, None] * torch.arange(num_columns)
    angles = 2 * torch.pi * (products % max(num_rows, num_columns)).double() / max(num_rows, num_columns)
    return torch.cos(angles), torch.sin(angles)


@lru_cache(maxsize=64)
def pool_matrices(
    size: tuple[int, int], output_size: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(U V) x (H K) matrices that pool half a spectrum: as it stands, and as the mirror of its other half.

    Over rows and columns they are R (x) Cl and Rn (x) Cn: R and C pool a full axis, Cl is C's part for columns 0..W/2,
    Rn takes row k from row -k, Cn takes column l from column -l where that is another one.
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
    """A one-dimensional adaptive pool as a matrix: cell u averages floor(u n / U) up to ceil((u + 1) n / U)."""
    matrix = torch.zeros(output_size, size, dtype=torch.float64)
    for u in range(output_size):
        start, stop = u * size // output_size, -(-(u + 1) * size // output_size)
        matrix[u, start:stop] = 1.0 / (stop - start)
    return matrix
