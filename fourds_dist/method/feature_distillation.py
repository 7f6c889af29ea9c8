"""Feature distillation: the student's maps approach the teacher's (FitNets, arXiv 1412.6550). A baseline."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fourds_dist.method.phase_loss import shrink, smaller
from fourds_dist.models.feature_hooks import StageInfo


class FeatureDistillation(nn.Module):
    """Squared error between the teacher's maps and the student's maps after a 1x1 convolution used in training only.

    Args:
        student, teacher: stages, compared in pairs.
    """

    def __init__(self, student: Sequence[StageInfo], teacher: Sequence[StageInfo]) -> None:
        super().__init__()
        self.regressors = nn.ModuleList(
            nn.Conv2d(s.channels, t.channels, 1, bias=False) for s, t in zip(student, teacher, strict=True)
        )

    def forward(
        self,
        student: Sequence[Float[Tensor, "B _C _H _W"]],
        teacher: Sequence[Float[Tensor, "B _C _H _W"]],
    ) -> Float[Tensor, ""]:
        """Return the mean over stages of |regressor(s) - t|^2 / |t|^2 (Eq. 25), without gradient to t.

        The error is relative, so one weight fits all networks.
        """
        errors = []
        for regressor, s, t in zip(self.regressors, student, teacher, strict=True):
            size = smaller(s, t)
            target = shrink(t.detach(), size).float()
            error = regressor(shrink(s, size)).float() - target
            errors.append(error.square().mean() / target.square().mean().clamp(min=1e-8))
        return torch.stack(errors).mean()
