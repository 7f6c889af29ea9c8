"""The reference backend: full spectrum, angles, autograd. Tests compare the other backends with this one.

Eq. 1 to 7 of fourds_dist/method/README.md follow the steps of the released code: |z| = sqrt(d(re^2 + im^2)),
angle z = atan2(im, d(re)), out = F^-1(amp exp(i angle F(h))), adaptive average pooling of the full-spectrum angle.
Eq. 11 is an addition of this package. The code is not optimised: forward and backward take about 250 passes over the
tensors.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fourds_dist.ops.spectrum import EPS, away_from_zero, self_conjugate, working_dtype


def fourier_mix(h_BCHW: Tensor, a_BCHW: Tensor, mix_2: Tensor) -> Tensor:
    """See `fourds_dist.ops.fourier_mix`."""
    dtype = working_dtype(h_BCHW.dtype)
    w = mix_2.to(dtype)
    amplitude_h, phase_h = polar(spectrum(h_BCHW))
    amplitude_a, _ = polar(spectrum(a_BCHW))
    amplitude = w[0] * amplitude_a + w[1] * amplitude_h
    mixed = torch.complex(amplitude * torch.cos(phase_h), amplitude * torch.sin(phase_h))
    return torch.fft.ifft2(mixed).real.to(h_BCHW.dtype)


def pooled_phase(h_BCHW: Tensor, output_size: tuple[int, int]) -> Tensor:
    """See `fourds_dist.ops.pooled_phase`."""
    _, phase = polar(spectrum(h_BCHW))
    return F.adaptive_avg_pool2d(phase, output_size)


def phase_distance(h_student_BCHW: Tensor, h_teacher_BCHW: Tensor) -> Tensor:
    """See `fourds_dist.ops.phase_distance`."""
    student_re, student_im = without_dc(h_student_BCHW)
    teacher_re, teacher_im = without_dc(h_teacher_BCHW.detach())
    amplitude = torch.hypot(teacher_re, teacher_im)
    student_amplitude = (student_re.square() + student_im.square()).clamp_min(EPS).sqrt()
    agreement = (student_re * teacher_re + student_im * teacher_im) / student_amplitude
    total = amplitude.sum((-2, -1))
    distance = (amplitude - agreement).sum((-2, -1))
    dead = total < EPS**0.5
    return torch.where(dead, 0.0, distance / torch.where(dead, 1.0, total))


def spectrum(x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return the real and imaginary part of the full spectrum, with Im = +0 at the self-conjugate bins."""
    z = torch.fft.fft2(x_BCHW.to(working_dtype(x_BCHW.dtype)))
    return z.real, z.imag.masked_fill(mask_of(self_conjugate(*x_BCHW.shape[-2:]), x_BCHW), 0.0)


def without_dc(x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return the spectrum without DC. Subtracting the first pixel makes that of a constant map exactly zero."""
    re, im = spectrum(x_BCHW.to(working_dtype(x_BCHW.dtype)) - x_BCHW[..., :1, :1].detach())
    dc = mask_of([(0, 0)], x_BCHW)
    return re.masked_fill(dc, 0.0), im.masked_fill(dc, 0.0)


def mask_of(bins: list[tuple[int, int]], like_BCHW: Tensor) -> Tensor:
    """Return a mask of `bins` of a spectrum, created on the device so that a CUDA graph can capture this."""
    mask = torch.zeros(like_BCHW.shape[-2:], dtype=torch.bool, device=like_BCHW.device)
    for row, column in bins:
        mask[row, column].fill_(True)
    return mask


def polar(z: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the amplitude sqrt(d(re^2 + im^2)) and the angle atan2(im, d(re)) of the released code (Eq. 1)."""
    re, im = z
    return away_from_zero(re.square() + im.square()).sqrt(), torch.atan2(im, away_from_zero(re))
