"""Half spectrum, no trigonometry, backward by hand: pointwise passes between transforms, on any device and size.

Symbols: X = F(h), A = F(a), G = F(g) for the gradient g of the result, d() the denormal rule, X' = (d(Re X), Im X),
u = X'/|X'| = exp(i angle X) (the phase without an angle), al = sqrt(max(|A|^2, EPS)), m = sqrt(max(|X|^2, EPS)),
amp = w0 al + w1 m. `half_spectrum.py` holds the transforms, the shapes HKM and the multiplicity c_l of a column.

On a CPU the maps are taken in pieces that stay in its cache: the passes over them cost next to nothing there.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fourds_dist.ops.half_spectrum import (
    Bins,
    away_from_zero_,
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
from fourds_dist.ops.spectrum import EPS, self_conjugate, working_dtype

PIECE_ELEMENTS = 2**17
"""Of a map's tensor, for each thread of a CPU: about ten such tensors are alive at a time."""


def fourier_mix(h_BCHW: Tensor, a_BCHW: Tensor, mix_2: Tensor) -> Tensor:
    """out = F^-1(amp u)."""
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
    """P = D phi + N phi', where phi' are the phases of the mirrored half and D and N pool them.

    phi' = -phi, but where Im X = 0 the angle is 0 or pi on both sides (a map with few live pixels has such bins).
    """
    dtype = working_dtype(h_BCHW.dtype)
    pooled = torch.empty(*h_BCHW.shape[:2], *output_size, dtype=dtype, device=h_BCHW.device)
    D, N = pool_matrices((h_BCHW.shape[2], h_BCHW.shape[3]), output_size, dtype, h_BCHW.device)
    for h, out in pieces(h_BCHW, pooled):
        X = spectrum(h)
        phi = torch.atan2(X.im.add_(0.0), away_from_zero_(X.re))  # -0 + 0 = +0
        mirrored = phi * X.im.eq_(0.0).mul_(2.0).sub_(1.0)
        torch.mm(of_each_map(phi), D.mT, out=out.view(len(out), -1)).addmm_(of_each_map(mirrored), N.mT)
    return pooled


def pooled_phase_backward(g_BCUV: Tensor, h_BCHW: Tensor) -> Tensor:
    """gh = F^-1(gX HW / c) with gX = tau (-Im X, d(Re X)) and tau = (D - N)^T g / |X'|^2.

    The real part is 0 where |Re X| < EPS.
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
        re = away_from_zero_(X.re)
        tau = torch.empty_like(re)
        torch.mm(g.flatten(1), pool, out=of_each_map(tau))
        tau.div_(torch.mul(re, re).addcmul_(X.im, X.im))
        for row, column in self_conjugate(height, width):
            tau[row, column].zero_()  # a real bin's phase is 0 or pi: it has no slope
        grad_re = X.im.mul_(tau).neg_()
        invert(Bins(grad_re.addcmul_(grad_re, small, value=-1.0), re.mul_(tau)), grad)
    return grad_BCHW


def phase_disparity(h_student_BCHW: Tensor, h_teacher_BCHW: Tensor) -> Tensor:
    """d = sum_k c_l (|T| - Re(S conj T) / |S|) / sum_k c_l |T|."""
    dtype = working_dtype(h_student_BCHW.dtype)
    distance = torch.empty(h_student_BCHW.shape[:2], dtype=dtype, device=h_student_BCHW.device)
    width = h_student_BCHW.shape[-1]
    for student, teacher, out in pieces(h_student_BCHW, h_teacher_BCHW, distance):
        S, T = without_dc(student), without_dc(teacher)
        agreement = torch.mul(S.re, T.re).addcmul_(S.im, T.im).mul_(power_(S).clamp_min_(EPS).rsqrt_())
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
        scale = (g / total).masked_fill_(total < EPS**0.5, 0.0)
        length = power(S)
        kept = length.ge(EPS).to(length.dtype)
        across = torch.mul(S.re, T.im).addcmul_(S.im, T.re, value=-1.0)
        across.mul_(length.clamp_min_(EPS).pow_(-1.5)).mul_(scale).mul_(kept)
        away = kept.sub_(1.0).mul_(scale / EPS**0.5)  # -1 / sqrt(EPS) where |S|^2 < EPS, else 0
        grad_re = T.re.mul_(away).addcmul_(S.im, across)
        invert(Bins(grad_re, T.im.mul_(away).addcmul_(S.re, across, value=-1.0)), grad)
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
    piece = PIECE_ELEMENTS * torch.get_num_threads()
    step = num_maps if largest.is_cuda else max(1, piece * num_maps // largest.numel())
    flat = [None if x is None else x.flatten(0, 1) for x in tensors]
    for start in range(0, num_maps, step):
        yield tuple(None if x is None else x[start : start + step] for x in flat)


def of_each_map(x_HKM: Tensor) -> Tensor:
    """A spectrum's bins as a matrix M x HK, without a copy."""
    return maps_first(x_HKM).flatten(1) if maps_first(x_HKM).is_contiguous() else x_HKM.flatten(0, 1).mT
