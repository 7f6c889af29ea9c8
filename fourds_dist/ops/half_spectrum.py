"""Half of a real map's spectrum and the way back, as `eager.py` works on it.

A real map's spectrum is Hermitian, so columns 0..W/2 hold all of it; column l stands for two bins of the full spectrum
(c_l = 2) unless it is its own mirror (c_l = 1: column 0, and W/2 of an even width).

Shapes: M maps (images times channels, or a piece of them), H and W, K = W // 2 + 1 columns. A spectrum is two real
tensors HKM, maps last: `re[row, column]` is one bin of every map. On a CPU, float32 maps of few pixels are transformed
by matrix products over all maps at once, two to four times faster than by the FFT library, which takes them one by one.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fourds_dist.ops.matrices import column_matrix, inverse_column_matrix, inverse_row_matrix, row_matrix
from fourds_dist.ops.spectrum import EPS, working_dtype

LARGEST_BY_PRODUCTS = 16  # side of a map


class Bins(NamedTuple):
    """A half spectrum, HKM: real parts and imaginary parts."""

    re: Tensor
    im: Tensor


def spectrum(x_MHW: Tensor) -> Bins:
    """Half of the spectrum in the working dtype, with Im = +0 at the self-conjugate bins.

    In float64, the precision of comparisons, it is cut from the complex transform the released code takes. A map with
    few live pixels has other bins too that are real and negative but for rounding, and the sign of that rounding
    decides between pi and -pi: so it is the same one.
    """
    copy = by_products(x_MHW)  # which reads its maps in bits: rather from the cache than from memory
    return spectrum_of_working(x_MHW.to(working_dtype(x_MHW.dtype), copy=copy))


def without_dc(x_MHW: Tensor) -> Bins:
    """The spectrum with DC at zero; a constant map gives zeros exactly, for its first pixel is taken off."""
    x = x_MHW.to(working_dtype(x_MHW.dtype))
    bins = spectrum_of_working(x - x[:, :1, :1])
    bins.re[0, 0].zero_()
    return bins


def spectrum_of_working(x_MHW: Tensor) -> Bins:
    """`spectrum` of maps that are in the working dtype."""
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
    """The maps of a half spectrum into `out_MHW`, which is contiguous."""
    if by_products(out_MHW):
        invert_by_products(bins, out_MHW)
        return
    Y = torch.fft.ifft(torch.complex(maps_first(bins.re), maps_first(bins.im)), dim=1)
    torch.fft.irfft(Y, n=out_MHW.shape[-1], dim=2, out=out_MHW)  # irfft2 would copy Y


def by_products(x_MHW: Tensor) -> bool:
    """Whether maps like these are transformed by matrix products: not where those may be rounded to fewer bits."""
    small = max(x_MHW.shape[-2:]) <= LARGEST_BY_PRODUCTS
    exact = torch.get_float32_matmul_precision() == "highest"
    return small and exact and x_MHW.device.type == "cpu" and x_MHW.dtype == torch.float32


def spectrum_by_products(x_MHW: Tensor) -> Bins:
    """Rows, then columns: (2 K x W) by (W x M) for each row, (2 H x 2 H) by (2 H x K M)."""
    num_maps, height, width = x_MHW.shape
    rows = torch.bmm(row_matrix(width, x_MHW.dtype).expand(height, -1, -1), x_MHW.permute(1, 2, 0))
    columns = torch.mm(column_matrix(height, x_MHW.dtype), rows.view(2 * height, -1))
    re, im = columns.view(2, height, width // 2 + 1, num_maps)
    return Bins(re, im)


def invert_by_products(bins: Bins, out_MHW: Tensor) -> None:
    """Columns, then rows."""
    num_maps, height, width = out_MHW.shape
    of_re, of_im = inverse_column_matrix(height, out_MHW.dtype)
    columns = torch.mm(of_re, bins.re.view(height, -1)).addmm_(of_im, bins.im.view(height, -1))
    matrix = inverse_row_matrix(width, out_MHW.dtype).expand(height, -1, -1)
    rows = torch.bmm(matrix, columns.view(height, -1, num_maps))
    out_MHW.copy_(rows.permute(2, 0, 1))


def clear_self_conjugate_(x_HKM: Tensor, height: int, width: int) -> None:
    """Zero at the bins that are their own mirror (`spectrum.self_conjugate`)."""
    rows = slice(None, None, height // 2) if height % 2 == 0 else slice(1)
    columns = slice(None, None, width // 2) if width % 2 == 0 else slice(1)
    x_HKM[rows, columns].zero_()


def maps_last(x_MHK: Tensor) -> Tensor:
    """A view of the shape HKM."""
    return x_MHK.permute(1, 2, 0)


def maps_first(x_HKM: Tensor) -> Tensor:
    """A view of the shape MHK."""
    return x_HKM.permute(2, 0, 1)


def power(X: Bins) -> Tensor:
    """|X|^2."""
    return torch.mul(X.re, X.re).addcmul_(X.im, X.im)


def power_(X: Bins) -> Tensor:
    """|X|^2, in the place of the real part."""
    return X.re.mul_(X.re).addcmul_(X.im, X.im)


def floored_root_(x: Tensor) -> Tensor:
    """sqrt(max(x, EPS)), in place."""
    return x.clamp_min_(EPS).sqrt_()


def is_small(v: Tensor) -> Tensor:
    """1 where |v| < EPS, else 0, in the dtype of `v`: on a CPU a product is several times faster than a mask."""
    return v.abs().lt_(EPS)


def away_from_zero_(v: Tensor, small: Tensor | None = None) -> Tensor:
    """The denormal rule, in place; `small` is `is_small(v)` where it is known."""
    return v.lerp_(v.new_full((), EPS), is_small(v) if small is None else small)


def map_sum(x_HKM: Tensor, width: int) -> Tensor:
    """Sum over the full spectrum, from its half: one number a map."""
    total = 2.0 * x_HKM.sum((0, 1)) - x_HKM[:, 0].sum(0)
    return total - x_HKM[:, width // 2].sum(0) if width % 2 == 0 else total
