"""Half spectrum, no trigonometry, backward derived by hand: torch.fft and pointwise passes, on any device and size.

A real map's spectrum is Hermitian, so rfft2 holds all of it: columns 0..W/2, where column l stands for two bins of the
full spectrum (c_l = 2) unless it is its own mirror (c_l = 1: column 0, and W/2 of an even width).

Symbols: X = F(h), A = F(a), G = F(g) for the gradient g of the result, d() the denormal rule,
X' = (d(Re X), Im X), u = X'/|X'| = exp(i angle X) (the phase without an angle),
al = sqrt(max(|A|^2, EPS)), m = sqrt(max(|X|^2, EPS)), amp = w0 al + w1 m. A spectrum is held as two real tensors.

On a CPU the maps are taken in pieces that stay in its cache: the passes over them cost next to nothing there. Shapes:
M maps (images times channels, or a piece of them), H and W, K = W // 2 + 1 columns of the half spectrum.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fourds_dist.ops.spectrum import EPS, self_conjugate, working_dtype

PIECE_ELEMENTS = 2**17  # of a map's tensor on a CPU: about ten such tensors are alive at a time


class Bins(NamedTuple):
    """A half spectrum, MHK: real parts and imaginary parts."""

    re: Tensor
    im: Tensor


def fourier_mix(h_BCHW: Tensor, a_BCHW: Tensor, mix_2: Tensor) -> Tensor:
    """out = F^-1(amp u)."""
    out_BCHW = result_like(h_BCHW)
    w = mix_2.to(out_BCHW.dtype)
    for h, a, out in pieces(h_BCHW, a_BCHW, out_BCHW):
        X, A = spectrum(h), spectrum(a)
        amp = floored_root_(power_(A)).mul_(w[0])
        amp.addcmul_(floored_root_(power(X)), w[1])
        re = away_from_zero_(X.re)
        amp.div_(torch.mul(re, re).addcmul_(X.im, X.im).sqrt_())
        invert(re.mul_(amp), X.im.mul_(amp), out)
    return out_BCHW


def fourier_mix_backward(
    g_BCHW: Tensor, h_BCHW: Tensor, a_BCHW: Tensor, mix_2: Tensor, need_h: bool, need_a: bool, need_mix: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients to h, a and the weights.

    With p + i q = conj(u) G, the parts of G along the phase and across it:
        gA = w0 p A / al                   where |A|^2 >= EPS, else 0
        gX = w1 p X / m  (|X|^2 >= EPS)  +  i u q amp / |X'|, whose real part is 0 where |Re X| < EPS
        gw0 = sum_k c_l p al / HW,   gw1 = sum_k c_l p m / HW
    Column multiplicity and 1/HW cancel between F and F^-1, so gh = F^-1(gX) and ga = F^-1(gA).
    """
    grad_h_BCHW = result_like(h_BCHW) if need_h else None
    grad_a_BCHW = result_like(a_BCHW) if need_a else None
    dtype = working_dtype(h_BCHW.dtype)
    w = mix_2.to(dtype)
    grad_mix = torch.zeros(2, dtype=dtype, device=w.device)
    width = h_BCHW.shape[-1]
    for g, h, a, grad_h, grad_a in pieces(g_BCHW, h_BCHW, a_BCHW, grad_h_BCHW, grad_a_BCHW):
        X, A, G = spectrum(h), spectrum(a), spectrum(g)
        power_X, power_A = power(X), power(A)
        m, al = floored_root_(power_X.clone()), floored_root_(power_A.clone())
        re = away_from_zero_(X.re.clone())
        inverse_length = torch.mul(re, re).addcmul_(X.im, X.im).rsqrt_()
        u_re, u_im = re.mul_(inverse_length), X.im * inverse_length
        p = torch.mul(G.re, u_re).addcmul_(G.im, u_im)
        if need_mix:
            grad_mix += torch.stack([full_sum(p * al, width), full_sum(p * m, width)])
        if need_h:
            q = G.im.mul_(u_re).addcmul_(G.re, u_im, value=-1.0)
            across = q.mul_(inverse_length).mul_(torch.mul(al, w[0]).addcmul_(m, w[1]))
            along = m.reciprocal_().mul_(p).mul_(w[1]).masked_fill_(power_X < EPS, 0.0)
            across_re = u_im.mul_(across).masked_fill_(X.re.abs() < EPS, 0.0)
            grad_re = torch.mul(X.re, along).sub_(across_re)
            invert(grad_re, X.im.mul_(along).addcmul_(across, u_re), grad_h)
        if need_a:
            along = p.div_(al).mul_(w[0]).masked_fill_(power_A < EPS, 0.0)
            invert(A.re.mul_(along), A.im.mul_(along), grad_a)
    return grad_h_BCHW, grad_a_BCHW, grad_mix / math.prod(h_BCHW.shape[-2:]) if need_mix else None


def pooled_phase(h_BCHW: Tensor, output_size: tuple[int, int]) -> Tensor:
    """P = R phi Cl^T + Rn phi' Cn^T, where phi' are the phases of the mirrored half.

    phi' = -phi, but where Im X = 0 the angle is 0 or pi on both sides (a map with few live pixels has such bins).
    """
    dtype = working_dtype(h_BCHW.dtype)
    pooled = torch.empty(*h_BCHW.shape[:2], *output_size, dtype=dtype, device=h_BCHW.device)
    R, Rn, Cl, Cn = pool_matrices((h_BCHW.shape[2], h_BCHW.shape[3]), output_size, dtype, h_BCHW.device)
    for h, out in pieces(h_BCHW, pooled):
        X = spectrum(h)
        phi = torch.atan2(X.im.add_(0.0), away_from_zero_(X.re))  # -0 + 0 = +0
        mirrored = torch.where(X.im == 0, phi, -phi)
        out.copy_(along_rows(phi @ Cl.mT, R.mT).add_(along_rows(mirrored @ Cn.mT, Rn.mT)))
    return pooled


def pooled_phase_backward(g_BCUV: Tensor, h_BCHW: Tensor) -> Tensor:
    """gh = F^-1(gX HW / c) with gX = tau (-Im X, d(Re X)) and tau = (R^T g Cl - Rn^T g Cn) / |X'|^2.

    The real part is 0 where |Re X| < EPS.
    """
    grad_BCHW = result_like(h_BCHW)
    height, width = h_BCHW.shape[-2:]
    cells = (g_BCUV.shape[2], g_BCUV.shape[3])
    R, Rn, Cl, Cn = pool_matrices((height, width), cells, grad_BCHW.dtype, h_BCHW.device)
    weight = height * width / multiplicity(width, grad_BCHW)
    for g, h, grad in pieces(g_BCUV.to(grad_BCHW.dtype), h_BCHW, grad_BCHW):
        X = spectrum(h)
        replaced = X.re.abs() < EPS
        re = away_from_zero_(X.re)
        tau = (along_rows(g, R) @ Cl).sub_(along_rows(g, Rn) @ Cn)
        tau.div_(torch.mul(re, re).addcmul_(X.im, X.im)).mul_(weight)
        for row, column in self_conjugate(height, width):
            tau[..., row, column].zero_()  # a real bin's phase is 0 or pi: it has no slope
        invert(X.im.mul_(tau).neg_().masked_fill_(replaced, 0.0), re.mul_(tau), grad)
    return grad_BCHW


def phase_disparity(h_student_BCHW: Tensor, h_teacher_BCHW: Tensor) -> Tensor:
    """d = sum_k c_l (|T| - Re(S conj T) / |S|) / sum_k c_l |T|."""
    dtype = working_dtype(h_student_BCHW.dtype)
    distance = torch.empty(h_student_BCHW.shape[:2], dtype=dtype, device=h_student_BCHW.device)
    width = h_student_BCHW.shape[-1]
    for student, teacher, out in pieces(h_student_BCHW, h_teacher_BCHW, distance):
        S, T = without_dc(student), without_dc(teacher)
        agreement = torch.mul(S.re, T.re).addcmul_(S.im, T.im).div_(floored_root_(power_(S)))
        amplitude = power_(T).sqrt_()
        total = map_sum(amplitude, width)
        dead = total < EPS**0.5
        out.copy_((map_sum(amplitude.sub_(agreement), width) / total).masked_fill_(dead, 0.0))
    return distance


def phase_disparity_backward(g_BC: Tensor, h_student_BCHW: Tensor, h_teacher_BCHW: Tensor) -> Tensor:
    """gh = HW F^-1(gS): only the part of T across S turns its phase.

    gS = -i S Im(conj(S) T) / |S|^3 where |S|^2 >= EPS, else -T / sqrt(EPS), times g / sum A. Written with the
    imaginary part of the product, it is exactly zero at the self-conjugate bins.
    """
    grad_BCHW = result_like(h_student_BCHW)
    height, width = h_student_BCHW.shape[-2:]
    g_BC = g_BC.to(grad_BCHW.dtype) * (height * width)
    for g, student, teacher, grad in pieces(g_BC, h_student_BCHW, h_teacher_BCHW, grad_BCHW):
        S, T = without_dc(student), without_dc(teacher)
        total = map_sum(power(T).sqrt_(), width)
        scale = (g / total).masked_fill_(total < EPS**0.5, 0.0)[:, None, None]
        length = power(S)
        clamped = length < EPS
        across = torch.mul(S.re, T.im).addcmul_(S.im, T.re, value=-1.0)
        across.div_(length.mul_(length.sqrt())).mul_(scale)
        away = scale / -(EPS**0.5)
        grad_re = torch.where(clamped, T.re.mul_(away), S.im.mul_(across))
        grad_im = torch.where(clamped, T.im.mul_(away), S.re.mul_(across).neg_())
        invert(grad_re, grad_im, grad)
    return grad_BCHW


def result_like(x_BCHW: Tensor) -> Tensor:
    """An empty contiguous result for maps like `x_BCHW`, in the working dtype."""
    return torch.empty(x_BCHW.shape, dtype=working_dtype(x_BCHW.dtype), device=x_BCHW.device)


def pieces(*tensors: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """The same maps of every tensor, images and channels flattened to one axis: all at once, or by cache's worth."""
    largest = max((x for x in tensors if x is not None), key=Tensor.numel)
    num_maps = largest.shape[0] * largest.shape[1]
    if num_maps == 0:
        return
    step = num_maps if largest.is_cuda else max(1, PIECE_ELEMENTS * num_maps // largest.numel())
    flat = [None if x is None else x.flatten(0, 1) for x in tensors]
    for start in range(0, num_maps, step):
        yield tuple(None if x is None else x[start : start + step] for x in flat)


def spectrum(x_MHW: Tensor) -> Bins:
    """Half of the spectrum in the working dtype, with Im = +0 at the self-conjugate bins.

    In float64, the precision of comparisons, it is cut from the complex transform the released code takes. A map with
    few live pixels has other bins too that are real and negative but for rounding, and the sign of that rounding
    decides between pi and -pi: so it is the same one.
    """
    x = x_MHW.to(working_dtype(x_MHW.dtype)).contiguous()
    X = torch.fft.fft2(x)[..., : x.shape[-1] // 2 + 1] if x.dtype == torch.float64 else torch.fft.rfft2(x)
    bins = Bins(X.real.contiguous(), X.imag.contiguous())
    for row, column in self_conjugate(*x_MHW.shape[-2:]):
        bins.im[:, row, column].zero_()
    return bins


def without_dc(x_MHW: Tensor) -> Bins:
    """The spectrum with DC at zero; a constant map gives zeros exactly, for its first pixel is taken off."""
    x = x_MHW.to(working_dtype(x_MHW.dtype))
    bins = spectrum(x - x[:, :1, :1])
    bins.re[:, 0, 0].zero_()
    return bins


def invert(re: Tensor, im: Tensor, out_MHW: Tensor) -> None:
    """irfft2 into `out_MHW`; on a CPU its last step is a matrix product, several times faster than the library's."""
    height, width = out_MHW.shape[-2:]
    Y = torch.complex(re, im)
    if out_MHW.is_cuda:
        torch.fft.irfft2(Y, s=(height, width), out=out_MHW)
        return
    rows = torch.view_as_real(torch.fft.ifft(Y, dim=-2)).flatten(0, 1).flatten(1)
    torch.mm(rows, inverse_row_matrix(width, re.dtype), out=out_MHW.view(-1, width))


@lru_cache(maxsize=16)
def inverse_row_matrix(width: int, dtype: torch.dtype) -> Tensor:
    """The real inverse DFT of a row as a (2 K, W) matrix: rows c_l cos / W for Re, -c_l sin / W for Im, in turn."""
    columns, pixels = torch.arange(width // 2 + 1), torch.arange(width)
    turns = (columns[:, None] * pixels % width).double() / width
    weight = (multiplicity(width, torch.empty(0, dtype=torch.float64)) / width)[:, None]
    parts = (torch.cos(2 * torch.pi * turns) * weight, -torch.sin(2 * torch.pi * turns) * weight)
    return torch.stack(parts, dim=1).flatten(0, 1).to(dtype)


def power(X: Bins) -> Tensor:
    """|X|^2."""
    return torch.mul(X.re, X.re).addcmul_(X.im, X.im)


def power_(X: Bins) -> Tensor:
    """|X|^2, in the place of the real part."""
    return X.re.mul_(X.re).addcmul_(X.im, X.im)


def floored_root_(x: Tensor) -> Tensor:
    """sqrt(max(x, EPS)), in place."""
    return x.clamp_min_(EPS).sqrt_()


def away_from_zero_(v: Tensor) -> Tensor:
    """The denormal rule, in place."""
    return v.masked_fill_(v.abs() < EPS, EPS)


def along_rows(x: Tensor, matrix: Tensor) -> Tensor:
    """`matrix`^T applied to the rows' axis of x (M, rows, columns), as one product."""
    return (x.mT.contiguous() @ matrix).mT.contiguous()


def map_sum(x_MHK: Tensor, width: int) -> Tensor:
    """Sum over the full spectrum, from its half: one number a map."""
    total = 2.0 * x_MHK.sum((-2, -1)) - x_MHK[..., 0].sum(-1)
    return total - x_MHK[..., width // 2].sum(-1) if width % 2 == 0 else total


def full_sum(x_MHK: Tensor, width: int) -> Tensor:
    """Sum over the full spectrum, from its half, of all maps."""
    return map_sum(x_MHK, width).sum()


def multiplicity(width: int, like: Tensor) -> Tensor:
    """c_l for the columns of the half spectrum: 2, but 1 for columns that are their own mirror."""
    c = like.new_full((width // 2 + 1,), 2.0)
    c[0].fill_(1.0)
    if width % 2 == 0:
        c[-1].fill_(1.0)
    return c


@lru_cache(maxsize=64)
def pool_matrices(
    size: tuple[int, int], output_size: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """R and Rn (U x H: rows and mirrored rows), Cl and Cn (V x (W/2 + 1): columns, and mirrors of interior columns)."""
    (height, width), (num_rows, num_columns) = size, output_size
    rows, columns = pool_matrix(height, num_rows), pool_matrix(width, num_columns)
    Rn = rows[:, [-k % height for k in range(height)]]
    half = range(width // 2 + 1)
    Cn = columns[:, [-column % width for column in half]].clone()
    for column in half:
        if -column % width == column:
            Cn[:, column] = 0.0  # its own mirror: already counted in Cl
    Cl = columns[:, : width // 2 + 1]
    R, Rn, Cl, Cn = (matrix.to(device, dtype).contiguous() for matrix in (rows, Rn, Cl, Cn))
    return R, Rn, Cl, Cn


def pool_matrix(size: int, output_size: int) -> Tensor:
    """A one-dimensional adaptive pool as a matrix: cell u averages floor(u n / U) up to ceil((u + 1) n / U)."""
    matrix = torch.zeros(output_size, size, dtype=torch.float64)
    for u in range(output_size):
        start, stop = u * size // output_size, -(-(u + 1) * size // output_size)
        matrix[u, start:stop] = 1.0 / (stop - start)
    return matrix
