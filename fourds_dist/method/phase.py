"""Phase losses between the stages of teacher and student (METHOD part 3, and what the released form gets wrong).

`squared_phase_loss` is the released one: pooled angles, fused over stages, gated, squared error. `circular_phase_loss`
measures angles as angles, weighs every frequency by the teacher's amplitude and every stage the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fourds_dist.method.gate import ChannelGate
from fourds_dist.ops import phase_disparity, pooled_phase


def fused_phases(stages: Sequence[Float[Tensor, "B _C _H _W"]]) -> Float[Tensor, "B C U V"]:
    """Phases of all stages, average-pooled to the last stage's size (U, V) and joined over channels."""
    size = (stages[-1].shape[2], stages[-1].shape[3])
    return torch.cat([pooled_phase(h, size) for h in stages], dim=1)


def squared_phase_loss(
    student: Sequence[Float[Tensor, "B _C _H _W"]],
    teacher: Sequence[Float[Tensor, "B _C _H _W"]],
    gate: ChannelGate,
) -> Float[Tensor, ""]:
    """mean( (g P_S - g P_T)^2 ), g computed from P_T, which is a constant here; reaches student and gate."""
    with torch.no_grad():
        phase_T = fused_phases(teacher)
    phase_S = fused_phases(student)
    return (gate(phase_T) * (phase_S - phase_T)).square().mean()


def circular_phase_loss(
    student: Sequence[Float[Tensor, "B _C _H _W"]],
    teacher: Sequence[Float[Tensor, "B _C _H _W"]],
) -> Float[Tensor, ""]:
    """Mean over stages of the amplitude-weighted 1 - cos of the angle between their phases; in [0, 2]."""
    disparity = [phase_disparity(s, t.detach()).mean() for s, t in zip(student, teacher, strict=True)]
    return torch.stack(disparity).mean()
