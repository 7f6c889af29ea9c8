"""The half spectrum of real maps and its inverse, for `eager.py`.

The spectrum of a real map is Hermitian, so columns 0..W/2 are enough. Column l represents two bins of the full spectrum
(c_l = 2) unless it is its own mirror (c_l = 1: column 0, and W/2 of an even width).

Shapes: M maps (images times channels, or a chunk of them), H and W, K = W // 2 + 1 columns. A spectrum is two real
tensors HKM, maps last: `re[row, column]` is one bin of all maps. On a CPU, matrix products over all maps transform
small float32 maps two to four times faster than the FFT library, which transforms one map after the other.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fourds_dist.ops.matrices import column_matrix, inverse_column_matrix, inverse_row_matrix, row_matrix
from fourds_dist.ops.spectrum import EPS, working_dtype

LARGEST_BY_PRODUCTS = 16  # side of a map


class Bins(NamedTuple):
    """A half spectrum: real and imaginary parts, each HKM."""

    re: Tensor
    im: Tensor


def spectrum(x_MHW: Tensor) -> Bins:
    """Return half of the spectrum in the working dtype, with Im = +0 at the self-conjugate bins.

    In float64, which comparisons use, this is a part of the complex transform of the released code. A map with few
    nonzero pixels has more bins that are real and negative up to rounding. The sign of the rounding error decides
    between pi and -pi, so the rounding has to be the same.
    """
    copy = by_products(
        x_MHW
    )  # the products read the maps repeatedly, so a contiguous copy in the cache is faster
    return spectrum_of_working(x_MHW.to(working_dtype(x_MHW.dtype), copy=copy))


def without_dc(x_MHW: Tensor) -> Bins:
    """Return the spectrum without DC. Subtracting the first pixel makes that of a constant map exactly zero."""
    x = x_MHW.to(working_dtype(x_MHW.dtype))
    bins = spectrum_of_working(x - x[:, :1, :1])
    bins.re[0, 0].zero_()
    return bins


def spectrum_of_working(x_MHW: Tensor) -> Bins:
    """Return the `spectrum` of maps in the working dtype."""
    x = x_MHW.contiguous()
    height, width = x.shape[-2:]
    if by_products(x):
        bins = spectrum_by_products(x)
    else:
        X = torch.fft.fft2(x)[..., : width // 2 + 1] if x.dtype == torch.float64 else torch.fft.rfft2(x)
        bins = Bins(maps_last(X.real.contiguous()), maps_last(X.imag.contiguous()))
    clear_self_conjugate_(bins.im, height, width)
    return bins


def invert(bins: Bins, out_MHW: Tensor) -> None:
    """Write the maps of a half spectrum to `out_MHW`, which is contiguous."""
    if by_products(out_MHW):
        invert_by_products(bins, out_MHW)
        return
    Y = torch.fft.ifft(torch.complex(maps_first(bins.re), maps_first(bins.im)), dim=1)
    torch.fft.irfft(Y, n=out_MHW.shape[-1], dim=2, out=out_MHW)  # irfft2 would copy Y


def by_products(x_MHW: Tensor) -> bool:
    """Whether matrix products transform maps like these; False if products may have reduced precision."""
    small = max(x_MHW.shape[-2:]) <= LARGEST_BY_PRODUCTS
    exact = torch.get_float32_matmul_precision() == "highest"
    return small and exact and x_MHW.device.type == "cpu" and x_MHW.dtype == torch.float32


def spectrum_by_products(x_MHW: Tensor) -> Bins:
    """Transform rows, then columns: (2 K x W) by (W x M) for each row, (2 H x 2 H) by (2 H x K M)."""
    num_maps, height, width = x_MHW.shape
    rows = torch.bmm(row_matrix(width, x_MHW.dtype).expand(height, -1, -1), x_MHW.permute(1, 2, 0))
    columns = torch.mm(column_matrix(height, x_MHW.dtype), rows.view(2 * height, -1))
    re, im = columns.view(2, height, width // 2 + 1, num_maps)
    return Bins(re, im)


def invert_by_products(bins: Bins, out_MHW: Tensor) -> None:
    """Invert columns, then rows."""
    num_maps, height, width = out_MHW.shape
    of_re, of_im = inverse_column_matrix(height, out_MHW.dtype)
    columns = torch.mm(of_re, bins.re.view(height, -1)).addmm_(of_im, bins.im.view(height, -1))
    matrix = inverse_row_matrix(width, out_MHW.dtype).expand(height, -1, -1)
    rows = torch.bmm(matrix, columns.view(height, -1, num_maps))
    out_MHW.copy_(rows.permute(2, 0, 1))


def clear_self_conjugate_(x_HKM: Tensor, height: int, width: int) -> None:
    """Set the self-conjugate bins (`spectrum.self_conjugate`) to zero."""
    rows = slice(None, None, height // 2) if height % 2 == 0 else slice(1)
    columns = slice(None, None, width // 2) if width % 2 == 0 else slice(1)
    x_HKM[rows, columns].zero_()


def maps_last(x_MHK: Tensor) -> Tensor:
    """Return a view of shape HKM."""
    return x_MHK.permute(1, 2, 0)


def maps_first(x_HKM: Tensor) -> Tensor:
    """Return a view of shape MHK."""
    return x_HKM.permute(2, 0, 1)


def power(X: Bins) -> Tensor:
    """Return |X|^2."""
    return torch.mul(X.re, X.re).addcmul_(X.im, X.im)


def power_(X: Bins) -> Tensor:
    """Return |X|^2, written to the memory of the real part."""
    return X.re.mul_(X.re).addcmul_(X.im, X.im)


def floored_root_(x: Tensor) -> Tensor:
    """Compute sqrt(max(x, EPS)) in place."""
    return x.clamp_min_(EPS).sqrt_()


def is_small(v: Tensor) -> Tensor:
    """Return 1 where |v| < EPS, else 0, in the dtype of `v`, as on a CPU a product is much faster than a mask."""
    return v.abs().lt_(EPS)


def away_from_zero_(v: Tensor, small: Tensor | None = None) -> Tensor:
    """Apply d(v) of Eq. 1 in place; `small` is `is_small(v)` if already computed."""
    return v.lerp_(v.new_full((), EPS), is_small(v) if small is None else small)


def map_sum(x_HKM: Tensor, width: int) -> Tensor:
    """Return the sum over the full spectrum, computed from its half: one number per map."""
    total = 2.0 * x_HKM.sum((0, 1)) - x_HKM[:, 0].sum(0)
    return total - x_HKM[:, width // 2].sum(0) if width % 2 == 0 else total
