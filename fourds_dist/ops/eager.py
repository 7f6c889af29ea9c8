"""The eager backend: half spectrum without trigonometry and hand-derived backward, for any device and size.

Symbols: X = F(h), A = F(a), G = F(g) for the gradient g of the result, d() of Eq. 1, X' = (d(Re X), Im X), u = X'/|X'|
= exp(i angle X), al = sqrt(max(|A|^2, EPS)), m = sqrt(max(|X|^2, EPS)), amp = w0 al + w1 m. `half_spectrum.py` has the
transforms, and defines the shape HKM and the multiplicity c_l of a column.

On a CPU the maps are processed in chunks that fit into the cache, where pointwise passes are cheap.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fourds_dist.ops.half_spectrum import (
    Bins,
    away_from_zero_,
    clear_self_conjugate_,
    floored_root_,
    invert,
    is_small,
    map_sum,
    maps_first,
    power,
    power_,
    spectrum,
    without_dc,
)
from fourds_dist.ops.matrices import multiplicity, pool_matrices
from fourds_dist.ops.spectrum import EPS, working_dtype

PIECE_ELEMENTS = 2**18
"""Elements per chunk and CPU thread; about ten tensors of this size are alive at a time."""


def fourier_mix(h_BCHW: Tensor, a_BCHW: Tensor, mix_2: Tensor) -> Tensor:
    """Return out = F^-1(amp u)."""
    out_BCHW = result_like(h_BCHW)
    w = mix_2.to(out_BCHW.dtype)
    for h, a, out in pieces(h_BCHW, a_BCHW, out_BCHW):
        X, A = spectrum(h), spectrum(a)
        amp = floored_root_(power_(A)).mul_(w[0])
        amp.addcmul_(floored_root_(power(X)), w[1])
        re = away_from_zero_(X.re)
        amp.mul_(torch.mul(re, re).addcmul_(X.im, X.im).rsqrt_())
        invert(Bins(re.mul_(amp), X.im.mul_(amp)), out)
    return out_BCHW


def fourier_mix_backward(
    g_BCHW: Tensor, h_BCHW: Tensor, a_BCHW: Tensor, mix_2: Tensor, need_h: bool, need_a: bool, need_mix: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients to h, a and the weights.

    With p + i q = conj(u) G, the components of G parallel and orthogonal to the phase:
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
        small = is_small(X.re)
        re = torch.lerp(X.re, X.re.new_full((), EPS), small)
        inverse_length = torch.mul(re, re).addcmul_(X.im, X.im).rsqrt_()
        u_re, u_im = re.mul_(inverse_length), X.im * inverse_length
        p = torch.mul(G.re, u_re).addcmul_(G.im, u_im)
        if need_mix:
            grad_mix += torch.stack([map_sum(p * al, width).sum(), map_sum(p * m, width).sum()])
        if need_h:
            q = G.im.mul_(u_re).addcmul_(G.re, u_im, value=-1.0)
            across = q.mul_(inverse_length).mul_(torch.mul(al, w[0]).addcmul_(m, w[1]))
            along = m.reciprocal_().mul_(p).mul_(w[1]).mul_(power_X.ge_(EPS))
            across_re = u_im.mul_(across)
            across_re.addcmul_(across_re, small, value=-1.0)
            grad_re = torch.mul(X.re, along).sub_(across_re)
            invert(Bins(grad_re, X.im.mul_(along).addcmul_(across, u_re)), grad_h)
        if need_a:
            along = p.div_(al).mul_(w[0]).mul_(power_A.ge_(EPS))
            invert(Bins(A.re.mul_(along), A.im.mul_(along)), grad_a)
    return grad_h_BCHW, grad_a_BCHW, grad_mix / math.prod(h_BCHW.shape[-2:]) if need_mix else None


def pooled_phase(h_BCHW: Tensor, output_size: tuple[int, int]) -> Tensor:
    """Return P = D phi + N phi', where phi' are the phases of the mirrored half and D and N pool the phases.

    phi' = -phi, except where Im X = 0 and the angle is 0 or pi on both sides. Maps with few nonzero pixels have such
    bins. Other maps have only the self-conjugate ones, which N excludes.
    """
    dtype = working_dtype(h_BCHW.dtype)
    pooled = torch.empty(*h_BCHW.shape[:2], *output_size, dtype=dtype, device=h_BCHW.device)
    height, width = h_BCHW.shape[-2:]
    D, N = pool_matrices((height, width), output_size, dtype, h_BCHW.device)
    opposite = (D - N).mT
    for h, out in pieces(h_BCHW, pooled):
        X = spectrum(h)
        phi = torch.atan2(X.im.add_(0.0), away_from_zero_(X.re))  # -0 + 0 = +0
        P = torch.mm(of_each_map(phi), opposite, out=out.view(len(out), -1))
        same = phi.mul_(X.im.eq_(0.0))
        clear_self_conjugate_(same, height, width)
        if same.is_cuda or same.any():  # no synchronisation with a GPU
            P.addmm_(of_each_map(same), N.mT, alpha=2.0)
    return pooled


def pooled_phase_backward(g_BCUV: Tensor, h_BCHW: Tensor) -> Tensor:
    """Return gh = F^-1(gX HW / c) with gX = tau (-Im X, d(Re X)) and tau = (D - N)^T g / |X'|^2.

    The real part of gX is 0 where |Re X| < EPS.
    """
    grad_BCHW = result_like(h_BCHW)
    height, width = h_BCHW.shape[-2:]
    cells = (g_BCUV.shape[2], g_BCUV.shape[3])
    D, N = pool_matrices((height, width), cells, grad_BCHW.dtype, h_BCHW.device)
    weight = height * width / multiplicity(width, grad_BCHW.dtype, h_BCHW.device)
    pool = ((D - N).unflatten(1, (height, -1)) * weight).flatten(1)
    for g, h, grad in pieces(g_BCUV.to(grad_BCHW.dtype), h_BCHW, grad_BCHW):
        X = spectrum(h)
        small = is_small(X.re)
        re = away_from_zero_(X.re, small)
        tau = torch.empty_like(re)
        torch.mm(g.flatten(1), pool, out=of_each_map(tau))
        tau.div_(torch.mul(re, re).addcmul_(X.im, X.im))
        clear_self_conjugate_(tau, height, width)  # the phase of a real bin is 0 or pi, with gradient 0
        grad_re = X.im.mul_(tau).neg_()
        invert(Bins(grad_re.addcmul_(grad_re, small, value=-1.0), re.mul_(tau)), grad)
    return grad_BCHW


def phase_distance(h_student_BCHW: Tensor, h_teacher_BCHW: Tensor) -> Tensor:
    """Return d = sum_k c_l (|T| - Re(S conj T) / |S|) / sum_k c_l |T|."""
    dtype = working_dtype(h_student_BCHW.dtype)
    distance = torch.empty(h_student_BCHW.shape[:2], dtype=dtype, device=h_student_BCHW.device)
    for student, teacher, out in pieces(h_student_BCHW, h_teacher_BCHW, distance):
        S, T = without_dc(student), without_dc(teacher)
        write_distance(S, T, power(S).clamp_min_(EPS).rsqrt_(), student.shape[-1], out)
    return distance


def phase_distance_and_slope(h_student_BCHW: Tensor, h_teacher_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance and its gradient to the student's map, HW F^-1(gS), from the same spectra.

    Only the component of T orthogonal to S changes the phase: gS = -i S Im(conj(S) T) / |S|^3 where |S|^2 >= EPS, else
    -T / sqrt(EPS), divided by sum A. The imaginary part of the product is exactly zero at the self-conjugate bins.
    """
    slope_BCHW = result_like(h_student_BCHW)
    distance = slope_BCHW.new_empty(slope_BCHW.shape[:2])
    size = math.prod(slope_BCHW.shape[-2:])
    for student, teacher, out, slope in pieces(h_student_BCHW, h_teacher_BCHW, distance, slope_BCHW):
        S, T = without_dc(student), without_dc(teacher)
        length = power(S)
        above = length.clone().ge_(EPS)
        inverse = length.clamp_min_(EPS).rsqrt_()
        total = write_distance(S, T, inverse, student.shape[-1], out)
        scale = (size / total).masked_fill_(total < EPS**0.5, 0.0)
        across = torch.mul(S.re, T.im).addcmul_(S.im, T.re, value=-1.0)
        across.mul_(inverse.pow_(3)).mul_(scale).mul_(above)
        below = above.sub_(1.0).mul_(scale / EPS**0.5)  # -1 / sqrt(EPS) where |S|^2 < EPS, else 0
        grad_re = T.re.mul_(below).addcmul_(S.im, across)
        invert(Bins(grad_re, T.im.mul_(below).addcmul_(S.re, across, value=-1.0)), slope)
    return distance, slope_BCHW


def phase_distance_backward(g_BC: Tensor, h_student_BCHW: Tensor, h_teacher_BCHW: Tensor) -> Tensor:
    """Return gh = g slope, as a channel of the student's map affects only its own distance."""
    _, slope_BCHW = phase_distance_and_slope(h_student_BCHW, h_teacher_BCHW)
    return slope_BCHW.mul_(g_BC[..., None, None])


def write_distance(S: Bins, T: Bins, inverse_HKM: Tensor, width: int, out_M: Tensor) -> Tensor:
    """Write the distances of a chunk to `out_M`, from both spectra and 1 / |S|; return sum A."""
    agreement = torch.mul(S.re, T.re).addcmul_(S.im, T.im).mul_(inverse_HKM)
    amplitude = power(T).sqrt_()
    total = map_sum(amplitude, width)
    distance = map_sum(amplitude.sub_(agreement), width) / total
    out_M.copy_(distance.masked_fill_(total < EPS**0.5, 0.0))
    return total


def result_like(x_BCHW: Tensor) -> Tensor:
    """Return an empty contiguous tensor for the result, of the shape of `x_BCHW` and in the working dtype."""
    return torch.empty(x_BCHW.shape, dtype=working_dtype(x_BCHW.dtype), device=x_BCHW.device)


def pieces(*tensors: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Yield the same maps of every tensor, with images and channels as one axis: all on a GPU, chunks on a CPU."""
    largest = max((x for x in tensors if x is not None), key=Tensor.numel)
    num_maps = largest.shape[0] * largest.shape[1]
    if num_maps == 0:
        return
    piece = PIECE_ELEMENTS * torch.get_num_threads()
    step = num_maps if largest.is_cuda else max(1, piece * num_maps // largest.numel())
    flat = [None if x is None else x.flatten(0, 1) for x in tensors]
    for start in range(0, num_maps, step):
        yield tuple(None if x is None else x[start : start + step] for x in flat)


def of_each_map(x_HKM: Tensor) -> Tensor:
    """Return the bins of a spectrum as a matrix M x HK, without a copy."""
    return maps_first(x_HKM).flatten(1) if maps_first(x_HKM).is_contiguous() else x_HKM.flatten(0, 1).mT
