"""Half spectrum, no trigonometry, backward derived by hand: torch.fft and pointwise passes, on any device and size.

A real map's spectrum is Hermitian, so rfft2 holds all of it: columns 0..W/2, where column l stands for two bins of the
full spectrum (c_l = 2) unless it is its own mirror (c_l = 1: column 0, and W/2 of an even width).

Symbols: X = F(h), A = F(a), G = F(g) for the gradient g of the result, d() the denormal rule,
X' = (d(Re X), Im X), u = X'/|X'| = exp(i angle X) (the phase without an angle),
al = sqrt(max(|A|^2, EPS)), m = sqrt(max(|X|^2, EPS)), amp = w0 al + w1 m.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from fourds_dist.ops.spectrum import EPS, away_from_zero, self_conjugate, working_dtype


def fourier_mix(h_BCHW: Tensor, a_BCHW: Tensor, mix_2: Tensor) -> Tensor:
    """out = F^-1(amp u)."""
    X, A = half_spectrum(h_BCHW), half_spectrum(a_BCHW)
    w = mix_2.to(X.real.dtype)
    amplitude = power(A).clamp_min_(EPS).sqrt_().mul_(w[0])
    amplitude.add_(power(X).clamp_min_(EPS).sqrt_().mul_(w[1]))
    X.real.copy_(away_from_zero(X.real))
    amplitude.div_(power(X).sqrt_())
    return inverse(X.mul_(amplitude), h_BCHW)


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
    X, A, G = half_spectrum(h_BCHW), half_spectrum(a_BCHW), half_spectrum(g_BCHW)
    w = mix_2.to(X.real.dtype)
    power_X, power_A = power(X), power(A)
    m, al = power_X.clamp_min(EPS).sqrt_(), power_A.clamp_min(EPS).sqrt_()
    replaced = X.real.abs() < EPS  # where the denormal rule replaces Re X
    re, im = away_from_zero(X.real), X.imag
    inverse_length = (re.square() + im.square()).rsqrt_()
    u_re, u_im = re * inverse_length, im * inverse_length
    p = G.real * u_re + G.imag * u_im

    grad_mix = grad_a = grad_h = None
    if need_mix:
        num_bins = math.prod(h_BCHW.shape[-2:])
        width = h_BCHW.shape[-1]
        grad_mix = torch.stack([full_sum(p * al, width), full_sum(p * m, width)]) / num_bins
    if need_h:
        q = G.imag * u_re - G.real * u_im
        across = q.mul_(w[0] * al + w[1] * m).mul_(inverse_length)
        scale = torch.where(power_X < EPS, 0.0, p * w[1] / m)
        grad_re = X.real * scale - torch.where(replaced, 0.0, across * u_im)
        grad_im = X.imag * scale + across * u_re
        grad_h = inverse(torch.complex(grad_re, grad_im), h_BCHW)
    if need_a:
        grad_a = inverse(A.mul_(torch.where(power_A < EPS, 0.0, p.mul_(w[0]).div_(al))), a_BCHW)
    return grad_h, grad_a, grad_mix


def pooled_phase(h_BCHW: Tensor, output_size: tuple[int, int]) -> Tensor:
    """P = R phi Cl^T - Rn phi Cn^T: the second term pools the mirrored half, whose phases are the first's negated."""
    X = half_spectrum(h_BCHW)
    phi = torch.atan2(X.imag, away_from_zero(X.real))
    R, Rn, Cl, Cn = pool_matrices(tuple(h_BCHW.shape[-2:]), output_size, phi.dtype, phi.device)
    return R @ phi @ Cl.mT - Rn @ phi @ Cn.mT


def pooled_phase_backward(g_BCUV: Tensor, h_BCHW: Tensor) -> Tensor:
    """gh = F^-1(gX HW / c), gX = tau (-Im X, d(Re X)), tau = (R^T g Cl - Rn^T g Cn) / |X'|^2; 0 along Re X under EPS."""
    X = half_spectrum(h_BCHW)
    g = g_BCUV.to(X.real.dtype)
    height, width = h_BCHW.shape[-2:]
    R, Rn, Cl, Cn = pool_matrices((height, width), tuple(g.shape[-2:]), g.dtype, g.device)
    re = away_from_zero(X.real)
    tau = (R.mT @ g @ Cl - Rn.mT @ g @ Cn).div_(re.square() + X.imag.square())
    tau.mul_(height * width / multiplicity(width, g))
    for row, column in self_conjugate(height, width):
        tau[..., row, column].zero_()  # a real bin's phase is 0 or pi: it has no slope
    grad_re = torch.where(X.real.abs() < EPS, 0.0, -tau * X.imag)
    return inverse(torch.complex(grad_re, tau.mul_(re)), h_BCHW)


def phase_disparity(h_student_BCHW: Tensor, h_teacher_BCHW: Tensor) -> Tensor:
    """d = sum_k c_l (|T| - Re(S conj T) / |S|) / sum_k c_l |T|."""
    S, T = without_dc(h_student_BCHW), without_dc(h_teacher_BCHW)
    width = h_student_BCHW.shape[-1]
    amplitude = power(T).sqrt_()
    agreement = (S.real * T.real).addcmul_(S.imag, T.imag).div_(power(S).clamp_min_(EPS).sqrt_())
    total = map_sum(amplitude, width)
    dead = total < EPS**0.5
    return torch.where(dead, 0.0, map_sum(amplitude.sub_(agreement), width) / torch.where(dead, 1.0, total))


def phase_disparity_backward(g_BC: Tensor, h_student_BCHW: Tensor, h_teacher_BCHW: Tensor) -> Tensor:
    """gh = HW F^-1(gS): only the part of T across S turns its phase.

    gS = -i S Im(conj(S) T) / |S|^3 where |S|^2 >= EPS, else -T / sqrt(EPS), times g / sum A. Written with the
    imaginary part of the product, it is exactly zero at the self-conjugate bins.
    """
    S, T = without_dc(h_student_BCHW), without_dc(h_teacher_BCHW)
    height, width = h_student_BCHW.shape[-2:]
    total = map_sum(power(T).sqrt_(), width)
    dead = total < EPS**0.5
    scale = torch.where(dead, 0.0, g_BC.to(total.dtype) * (height * width) / torch.where(dead, 1.0, total))
    length = power(S)
    clamped = length < EPS
    across = (S.real * T.imag).addcmul_(S.imag, T.real, value=-1.0)
    across.div_(length.sqrt_().pow(3)).mul_(scale[..., None, None])
    away = scale[..., None, None] / -(EPS**0.5)
    grad_re = torch.where(clamped, T.real * away, S.imag * across)
    grad_im = torch.where(clamped, T.imag * away, -S.real * across)
    return inverse(torch.complex(grad_re, grad_im), h_student_BCHW)


def half_spectrum(x_BCHW: Tensor) -> Tensor:
    """rfft2 in the working dtype, with Im = +0 at the self-conjugate bins; an empty batch has an empty spectrum."""
    x = x_BCHW.to(working_dtype(x_BCHW.dtype)).contiguous()
    if x.numel() == 0:
        return torch.empty((*x.shape[:3], x.shape[3] // 2 + 1), dtype=x.dtype.to_complex(), device=x.device)
    X = torch.fft.rfft2(x)
    for row, column in self_conjugate(*x.shape[-2:]):
        X.imag[..., row, column].zero_()
    return X


def without_dc(x_BCHW: Tensor) -> Tensor:
    """The half spectrum with its DC bin at zero; a constant map gives zeros exactly, for its first pixel is taken off."""
    x = x_BCHW.to(working_dtype(x_BCHW.dtype))
    X = half_spectrum(x - x[..., :1, :1])
    X[..., 0, 0].zero_()
    return X


def inverse(Y: Tensor, like_BCHW: Tensor) -> Tensor:
    """irfft2 to the height and width of `like_BCHW`."""
    if like_BCHW.numel() == 0:
        return torch.empty(like_BCHW.shape, dtype=Y.real.dtype, device=Y.device)
    return torch.fft.irfft2(Y, s=tuple(like_BCHW.shape[-2:]))


def power(Z: Tensor) -> Tensor:
    """|Z|^2."""
    return Z.real.square().addcmul_(Z.imag, Z.imag)


def map_sum(x: Tensor, width: int) -> Tensor:
    """Sum over the full spectrum, from its half: per image and channel."""
    total = 2.0 * x.sum((-2, -1)) - x[..., 0].sum(-1)
    return total - x[..., width // 2].sum(-1) if width % 2 == 0 else total


def full_sum(x: Tensor, width: int) -> Tensor:
    """Sum over the full spectrum, from its half, of all images and channels."""
    return map_sum(x, width).sum()


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
    return tuple(matrix.to(device, dtype).contiguous() for matrix in (rows, Rn, Cl, Cn))


def pool_matrix(size: int, output_size: int) -> Tensor:
    """The averaging matrix of a one-dimensional adaptive pool: cell u covers floor(u n / U) up to ceil((u + 1) n / U)."""
    matrix = torch.zeros(output_size, size, dtype=torch.float64)
    for u in range(output_size):
        start, stop = u * size // output_size, -(-(u + 1) * size // output_size)
        matrix[u, start:stop] = 1.0 / (stop - start)
    return matrix
