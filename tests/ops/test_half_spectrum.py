"""The half spectrum against the FFT library, by matrix products for small maps and by the library for others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fourds_dist.ops.half_spectrum import (
    Bins,
    away_from_zero_,
    by_products,
    floored_root_,
    invert,
    is_small,
    map_sum,
    maps_first,
    maps_last,
    power,
    power_,
    spectrum,
    without_dc,
)
from fourds_dist.ops.spectrum import EPS, self_conjugate

SIZES = [(1, 1), (2, 2), (3, 5), (8, 7), (16, 16), (6, 18), (17, 4)]


def draw(size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    return torch.randn(3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def complex_of(bins: Bins) -> Tensor:
    return torch.complex(*(maps_first(part) for part in bins)).to(torch.complex128)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_the_spectrum_is_half_of_the_full_one_and_is_inverted(
    size: tuple[int, int], dtype: torch.dtype, tolerance: float
) -> None:
    x = draw(size, dtype)
    assert by_products(x) == (dtype == torch.float32 and max(size) <= 16)
    before = x.clone()
    bins = spectrum(x)
    assert bins.re.dtype == dtype
    expected = torch.fft.rfft2(x.double())
    torch.testing.assert_close(complex_of(bins), expected, rtol=0, atol=tolerance)
    for row, column in self_conjugate(*size):
        assert not bins.im[row, column].any()
        assert not torch.signbit(bins.im[row, column]).any()
    out = torch.empty_like(x)
    invert(bins, out)
    torch.testing.assert_close(out, x, rtol=0, atol=tolerance)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_maps_are_transformed_in_float32(dtype: torch.dtype) -> None:
    x = draw((5, 6), dtype)
    bins = spectrum(x)
    assert bins.re.dtype == torch.float32
    torch.testing.assert_close(complex_of(bins), torch.fft.rfft2(x.double()), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(4, 5), (18, 18)])
def test_without_dc_a_constant_map_has_no_spectrum(size: tuple[int, int]) -> None:
    x = draw(size, torch.float32)
    x[1] = 0.1
    bins = without_dc(x)
    expected = torch.fft.rfft2(x.double())
    expected[:, 0, 0] = 0
    torch.testing.assert_close(complex_of(bins), expected, rtol=0, atol=1e-4)
    assert not bins.re[..., 1].any()
    assert not bins.im[..., 1].any()


def test_products_of_lower_precision_are_not_used() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert not by_products(torch.zeros(1, 4, 4))
    finally:
        torch.set_float32_matmul_precision(before)
    assert not by_products(torch.zeros(1, 4, 4, device="meta"))


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (3, 1), (1, 2)])
def test_a_map_s_sum_counts_every_bin_of_the_full_spectrum(size: tuple[int, int]) -> None:
    x = draw(size, torch.float64)
    amplitude = torch.fft.fft2(x).abs()
    half = maps_last(amplitude[..., : size[1] // 2 + 1])
    torch.testing.assert_close(map_sum(half, size[1]), amplitude.sum((1, 2)))


def test_powers_roots_and_d() -> None:
    bins = Bins(torch.tensor([3.0, 0.0, -1.0]), torch.tensor([4.0, 1e-6, 2.0]))
    expected = torch.tensor([25.0, 1e-12, 5.0])
    torch.testing.assert_close(power(bins), expected)
    assert bins.re.tolist() == [3.0, 0.0, -1.0]
    written = power_(bins)
    torch.testing.assert_close(written, expected)
    assert written.data_ptr() == bins.re.data_ptr()
    torch.testing.assert_close(floored_root_(written), torch.tensor([5.0, EPS**0.5, 5**0.5]))
    v = torch.tensor([0.0, -9e-6, -2e-5, 1.0])
    assert is_small(v).tolist() == [1, 1, 0, 0]
    torch.testing.assert_close(away_from_zero_(v.clone()), torch.tensor([EPS, EPS, -2e-5, 1.0]))
    given = torch.tensor([0.0, 0.0, 0.0, 1.0])
    assert away_from_zero_(v.clone(), given).tolist()[3] == pytest.approx(EPS)
