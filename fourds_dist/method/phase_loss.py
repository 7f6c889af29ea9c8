"""Phase losses between the stages of teacher and student (Eq. 8 to 12).

`squared_phase_loss` is the released loss: pooled angles, fused over stages, gated, squared error. `circular_phase_loss`
takes 1 - cos of the angles, weights every frequency by the teacher's amplitude and all stages equally.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fourds_dist.method.fusion_gate import FusionGate
from fourds_dist.ops import phase_distance, pooled_phase


def fused_phases(
    stages: Sequence[Float[Tensor, "B _C _H _W"]], size: tuple[int, int]
) -> Float[Tensor, "B C U V"]:
    """Return the phases of all stages, average-pooled to `size` (U, V) and concatenated over channels (Eq. 8)."""
    return torch.cat([pooled_phase(h, size) for h in stages], dim=1)


def squared_phase_loss(
    student: Sequence[Float[Tensor, "B _C _H _W"]],
    teacher: Sequence[Float[Tensor, "B _C _H _W"]],
    gate: FusionGate,
) -> Float[Tensor, ""]:
    """Return mean((g P_S - g P_T)^2) (Eq. 10), with g computed from P_T. The gradient reaches student and gate.

    Phases are pooled to the size of the last stage, the smaller one of the two networks.
    """
    size = smaller(student[-1], teacher[-1])
    with torch.no_grad():
        phase_T = fused_phases(teacher, size)
    phase_S = fused_phases(student, size)
    return (gate(phase_T) * (phase_S - phase_T)).square().mean()


def circular_phase_loss(
    student: Sequence[Float[Tensor, "B _C _H _W"]],
    teacher: Sequence[Float[Tensor, "B _C _H _W"]],
) -> Float[Tensor, ""]:
    """Return the mean over stages of the amplitude-weighted 1 - cos of the phase difference, in [0, 2] (Eq. 12).

    Phases are compared per frequency: maps of unequal resolution are averaged to the coarser one.
    """
    pairs = [
        (shrink(s, smaller(s, t)), shrink(t, smaller(s, t))) for s, t in zip(student, teacher, strict=True)
    ]
    return torch.stack([phase_distance(s, t.detach()).mean() for s, t in pairs]).mean()


def smaller(a: Float[Tensor, "B _C _H _W"], b: Float[Tensor, "B _C _H _W"]) -> tuple[int, int]:
    """Return the coarser resolution (H, W) of two maps."""
    return min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3])


def shrink(h: Float[Tensor, "B C _H _W"], size: tuple[int, int]) -> Float[Tensor, "B C _U _V"]:
    """Return the map averaged down to `size`; a map of that size is returned as given."""
    return h if tuple(h.shape[2:]) == size else F.adaptive_avg_pool2d(h, size)
