"""Matrices of the DFT and of the adaptive pool against PyTorch's transforms and pool."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fourds_dist.ops.matrices import (
    column_matrix,
    inverse_column_matrix,
    inverse_row_matrix,
    multiplicity,
    pool_matrices,
    pool_matrix,
    row_matrix,
)

SIDES = [1, 2, 3, 4, 7, 8]
CPU = torch.device("cpu")


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def close(x: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(x, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("side", SIDES)
def test_rows_and_columns_are_transformed_there_and_back(side: int) -> None:
    x = draw(side)
    X = torch.fft.rfft(x)
    parts = torch.cat([X.real, X.imag])
    close(row_matrix(side, torch.float64) @ x, parts)
    close(inverse_row_matrix(side, torch.float64) @ parts, x)
    z = torch.complex(draw(side), draw(side + 1)[:-1])
    Z = torch.fft.fft(z)
    interleaved = torch.view_as_real(z).flatten()
    close(column_matrix(side, torch.float64) @ interleaved, torch.cat([Z.real, Z.imag]))
    of_re, of_im = inverse_column_matrix(side, torch.float64)
    close(of_re @ Z.real + of_im @ Z.imag, interleaved)


@pytest.mark.parametrize("side", SIDES)
def test_columns_of_the_half_spectrum_count_for_their_mirrors(side: int) -> None:
    weights = multiplicity(side, torch.float64)
    assert weights.sum() == side
    x = draw(side)
    close((weights * torch.fft.rfft(x).abs().square()).sum(), side * x.square().sum())  # Parseval


@pytest.mark.parametrize(("size", "output"), [(7, 7), (7, 3), (8, 4), (3, 5), (1, 1)])
def test_a_pool_is_pytorch_s_adaptive_pool(size: int, output: int) -> None:
    x = draw(size)
    close(pool_matrix(size, output) @ x, F.adaptive_avg_pool1d(x[None], output)[0])


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (6, 5), (1, 8), (2, 2)])
@pytest.mark.parametrize("output", [(1, 1), (2, 3), (7, 7)])
def test_a_full_spectrum_is_pooled_from_its_half(size: tuple[int, int], output: tuple[int, int]) -> None:
    """An angle of a real map is odd: the mirrored bins have the opposite sign, apart from those at pi."""
    half = size[1] // 2 + 1
    angle = torch.fft.fft2(draw(*size)).imag
    direct, mirrored = pool_matrices(size, output, torch.float64, CPU)
    own = angle[:, :half].flatten()
    pooled = F.adaptive_avg_pool2d(angle[None], output).flatten()
    close(direct @ own - mirrored @ own, pooled)
    even = torch.fft.fft2(draw(*size)).real
    own = even[:, :half].flatten()
    close((direct + mirrored) @ own, F.adaptive_avg_pool2d(even[None], output).flatten())


def test_matrices_have_the_dtype_asked_for() -> None:
    assert row_matrix(4, torch.float32).dtype == torch.float32
    assert pool_matrices((4, 4), (2, 2), torch.float32, CPU)[1].dtype == torch.float32
    assert row_matrix(4, torch.float32) is row_matrix(4, torch.float32)  # computed once
