"""The reference backend against numpy's transforms and the steps of Eq. 1 to 7 and 11, one bin after the other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fourds_dist.ops import reference
from fourds_dist.ops.spectrum import EPS
from tests.ops.inputs import draw_maps


def d(v: float) -> float:
    return EPS if abs(v) < EPS else v


def polar(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes and angles of one map, bin by bin."""
    X = np.fft.fft2(x)
    amplitude, angle = np.zeros(x.shape), np.zeros(x.shape)
    for (k, n), z in np.ndenumerate(X):
        mirrored = (2 * k % x.shape[0], 2 * n % x.shape[1]) == (0, 0)
        imag = 0.0 if mirrored else z.imag
        amplitude[k, n] = math.sqrt(d(z.real**2 + imag**2))
        angle[k, n] = math.atan2(imag, d(z.real))
    return amplitude, angle


@pytest.mark.parametrize("size", [(1, 1), (4, 6), (5, 3)])
def test_the_steps_of_the_released_code(size: tuple[int, int]) -> None:
    h, a, _ = draw_maps((1, 2, *size))
    out = reference.fourier_mix(h, a, torch.tensor([0.3, 0.7]))
    pooled = reference.pooled_phase(h, size)
    for channel in range(2):
        amplitude_h, angle_h = polar(h[0, channel].numpy())
        amplitude_a, _ = polar(a[0, channel].numpy())
        w = torch.tensor([0.3, 0.7]).double().tolist()
        mixed = (w[0] * amplitude_a + w[1] * amplitude_h) * np.exp(1j * angle_h)
        np.testing.assert_allclose(out[0, channel].numpy(), np.fft.ifft2(mixed).real, rtol=0, atol=1e-12)
        np.testing.assert_allclose(pooled[0, channel].numpy(), angle_h, rtol=0, atol=1e-12)


def test_a_spectrum_by_hand() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]], dtype=torch.float64)
    re, im = reference.spectrum(x)
    assert re[0, 0].tolist() == [[11, -3], [-5, 1]]
    assert im[0, 0].tolist() == [[0, 0], [0, 0]]
    assert reference.without_dc(x)[0][0, 0].tolist() == [[0, -3], [-5, 1]]
    amplitude, angle = reference.polar((re, im))
    torch.testing.assert_close(amplitude, re.abs())
    torch.testing.assert_close(angle, torch.tensor([[[[0.0, math.pi], [math.pi, 0.0]]]], dtype=torch.float64))
    assert reference.pooled_phase(x, (1, 1)).item() == pytest.approx(math.pi / 2)


def test_a_phase_distance_by_hand() -> None:
    """The bins apart from DC: -3, -5 and 1 of the teacher, with signs + - - in the student."""
    teacher = torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]], dtype=torch.float64, requires_grad=True)
    spectrum = torch.tensor([[0.0, 7.0], [-0.1, -2.0]], dtype=torch.float64)
    student = torch.fft.ifft2(spectrum).real[None, None].requires_grad_()
    distance = reference.phase_distance(student, teacher)
    assert distance.shape == (1, 1)
    assert distance.item() == pytest.approx((2 * 3 + 0 * 5 + 2 * 1) / 9)
    distance.sum().backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_a_mask_has_its_bins() -> None:
    mask = reference.mask_of([(0, 0), (1, 2)], torch.zeros(5, 1, 2, 3))
    assert mask.tolist() == [[True, False, False], [False, False, True]]
