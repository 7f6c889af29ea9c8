"""Feature hints: the student's maps resemble the teacher's (FitNets, arXiv 1412.6550). A method to compare with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fourds_dist.method.phase import shrink, smaller
from fourds_dist.method.taps import Stage


class FeatureHint(nn.Module):
    """Squared error between maps, the student's through a 1x1 convolution, which leaves with training.

    Args:
        student, teacher: the stages to compare, in pairs.
    """

    def __init__(self, student: Sequence[Stage], teacher: Sequence[Stage]) -> None:
        super().__init__()
        self.regressors = nn.ModuleList(
            nn.Conv2d(s.channels, t.channels, 1, bias=False) for s, t in zip(student, teacher, strict=True)
        )

    def forward(
        self,
        student: Sequence[Float[Tensor, "B _C _H _W"]],
        teacher: Sequence[Float[Tensor, "B _C _H _W"]],
    ) -> Float[Tensor, ""]:
        """Mean over stages of |regressor(s) - t|^2 / |t|^2, so that one weight serves any network.

        Eq. 25; no gradient to t.
        """
        errors = []
        for regressor, s, t in zip(self.regressors, student, teacher, strict=True):
            size = smaller(s, t)
            goal = shrink(t.detach(), size).float()
            error = regressor(shrink(s, size)).float() - goal
            errors.append(error.square().mean() / goal.square().mean().clamp(min=1e-8))
        return torch.stack(errors).mean()
