"""What the adapters do to the teacher's feature maps: how much amplitude they change at which frequency, and that the
phase stays.

An adapter's output is F^-1((w0 |F(a)| + w1 |F(h)|) exp(i angle F(h))): between its input and output only the amplitude
may differ. Both are measured here from the maps themselves, not taken from the formula.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fourds_dist.method import FourDs
from fourds_dist.results.preprocessing import Preprocessing
from fourds_dist.runs.layout import Network

NUM_IMAGES = 16


@dataclass(frozen=True)
class StageView:
    """One adapter, by stage; H x W is the stage's own size.

    Maps are of the example image: the mean over channels of absolute values.
    """

    before: np.ndarray
    """(H, W) what the adapter is given."""
    after: np.ndarray
    """(H, W) what it gives."""
    gain: np.ndarray
    """(H, W) log2 of amplitude after / before, mean over channels and images, frequency zero in the middle."""
    profile: np.ndarray
    """(2, R) distance from frequency zero, as a share of the highest along an axis; mean gain there."""
    phase_kept: float
    """Mean cosine of the phase's change, weighted by amplitude; 1: not changed at all."""


@dataclass(frozen=True)
class AdapterView:
    """All adapters of a teacher."""

    image: np.ndarray
    """(3, H, W) uint8, the example."""
    stages: tuple[StageView, ...]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """By name, for a file."""
        arrays = {"adapter_image": self.image}
        for i, stage in enumerate(self.stages):
            arrays |= {f"adapter{i}_{key}": np.asarray(value) for key, value in vars(stage).items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> AdapterView:
        """What `to_arrays` gave."""
        stages = []
        while f"adapter{len(stages)}_gain" in arrays:
            values = {key: arrays[f"adapter{len(stages)}_{key}"] for key in StageView.__dataclass_fields__}
            stages.append(StageView(**{**values, "phase_kept": float(values["phase_kept"])}))
        return cls(arrays["adapter_image"], tuple(stages))


@torch.inference_mode()
def look_into(task: FourDs, images: Tensor, preprocessing: Preprocessing) -> AdapterView:
    """Run the adapted teacher on some normalised images (B, 3, H, W) and look at both sides of every adapter."""
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def note(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        seen[module] = (given[0].float(), made.float())

    handles = [adapter.register_forward_hook(note) for adapter in task.adapters]
    try:
        task.predictors()[Network.TEACHER_ADAPTED](images[:NUM_IMAGES])
    finally:
        for handle in handles:
            handle.remove()
    mean, std = (
        torch.tensor(v, device=images.device)[:, None, None] for v in (preprocessing.mean, preprocessing.std)
    )
    pixels = ((images[0] * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    return AdapterView(pixels.cpu().numpy(), tuple(_stage_view(*seen[adapter]) for adapter in task.adapters))


def _stage_view(h_BCHW: Tensor, out_BCHW: Tensor) -> StageView:
    before, after = torch.fft.fft2(h_BCHW), torch.fft.fft2(out_BCHW)
    own, new = before.abs(), after.abs()
    floor = 1e-6 * own.mean()
    gain_HW = torch.log2((new + floor) / (own + floor)).mean((0, 1))
    cosine = (before * after.conj()).real.sum() / (own * new).sum().clamp(min=1e-12)
    gain_HW = torch.fft.fftshift(gain_HW).cpu().numpy()
    return StageView(
        h_BCHW[0].abs().mean(0).cpu().numpy(),
        out_BCHW[0].abs().mean(0).cpu().numpy(),
        gain_HW,
        _profile(gain_HW),
        min(1.0, float(cosine)),
    )


def _profile(gain_HW: np.ndarray) -> np.ndarray:
    """(2, R) mean of a centred map over rings of equal frequency."""
    height, width = gain_HW.shape
    v, u = np.meshgrid(np.arange(height) - height // 2, np.arange(width) - width // 2, indexing="ij")
    radius = np.round(np.hypot(v, u)).astype(int)
    reach = max(1, min(height, width) // 2)
    inside = radius <= reach
    total, count = np.bincount(radius[inside], gain_HW[inside]), np.bincount(radius[inside])
    rings = np.flatnonzero(count)
    return np.stack([rings / reach, total[rings] / count[rings]])
