"""Effect of the adapters on the teacher's feature maps: amplitude gain by frequency, and phase preservation.

An adapter's output is F^-1((w0 |F(a)| + w1 |F(h)|) exp(i angle F(h))): only the amplitude may differ from the input's.
Gain and phase are measured on the maps, not derived from the formula.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fourds_dist.method import FourDs
from fourds_dist.runs.layout import Network

NUM_IMAGES = 16


@dataclass(frozen=True)
class StageView:
    """Measurements of one stage's adapter; H x W is the size of the stage's feature maps.

    `before` and `after` are of the first image: mean over channels of absolute values.
    """

    before: np.ndarray
    """(H, W) input of the adapter."""
    after: np.ndarray
    """(H, W) output of the adapter."""
    gain: np.ndarray
    """(H, W) log2 of output / input amplitude, mean over channels and images, frequency zero in the middle."""
    profile: np.ndarray
    """(2, R) frequency, 1 at the Nyquist frequency of the shorter side; mean gain at this frequency."""
    phase_kept: float
    """Amplitude-weighted mean cosine of the phase change; 1: phase unchanged."""


@torch.inference_mode()
def inspect_adapters(task: FourDs, images: Tensor) -> tuple[StageView, ...]:
    """Run the adapted teacher on normalised images (B, 3, H, W) and measure each adapter's input and output."""
    maps: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        maps[module] = (inputs[0].float(), output.float())

    handles = [adapter.register_forward_hook(record) for adapter in task.adapters]
    try:
        task.predictors()[Network.TEACHER_ADAPTED](images[:NUM_IMAGES])
    finally:
        for handle in handles:
            handle.remove()
    return tuple(_stage_view(*maps[adapter]) for adapter in task.adapters)


def _stage_view(h_BCHW: Tensor, out_BCHW: Tensor) -> StageView:
    before, after = torch.fft.fft2(h_BCHW), torch.fft.fft2(out_BCHW)
    amplitude_in, amplitude_out = before.abs(), after.abs()
    floor = 1e-6 * amplitude_in.mean()
    gain_HW = torch.log2((amplitude_out + floor) / (amplitude_in + floor)).mean((0, 1))
    cosine = (before * after.conj()).real.sum() / (amplitude_in * amplitude_out).sum().clamp(min=1e-12)
    gain_HW = torch.fft.fftshift(gain_HW).cpu().numpy()
    return StageView(
        h_BCHW[0].abs().mean(0).cpu().numpy(),
        out_BCHW[0].abs().mean(0).cpu().numpy(),
        gain_HW,
        _profile(gain_HW),
        min(1.0, float(cosine)),
    )


def _profile(gain_HW: np.ndarray) -> np.ndarray:
    """Return (2, R): frequency, and the mean of a centred map over the ring of this frequency."""
    height, width = gain_HW.shape
    v, u = np.meshgrid(np.arange(height) - height // 2, np.arange(width) - width // 2, indexing="ij")
    radius = np.round(np.hypot(v, u)).astype(int)
    reach = max(1, min(height, width) // 2)
    inside = radius <= reach
    total, count = np.bincount(radius[inside], gain_HW[inside]), np.bincount(radius[inside])
    rings = np.flatnonzero(count)
    return np.stack([rings / reach, total[rings] / count[rings]])
