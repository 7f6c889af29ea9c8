"""The conditional domain adversary of CDAN+E: a discriminator of domains on features and predictions (Eq. 29, 30).

Source: Long et al. 2018, arXiv 1705.10667; the gradient reversal is that of Ganin and Lempitsky, arXiv 1409.7495.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

MOST_OUTER = 4096
"""Largest size of the outer product of features and predictions; larger ones are randomised."""
RANDOM_DIM = 1024
"""Size of the randomised map."""
RAMP = 10.0
"""Steepness of the ramp of the reversed gradient."""


class DomainAdversary(nn.Module):
    """A discriminator of domains, whose reversed gradient makes the features of both domains indistinguishable.

    Args:
        num_features: channels C of the features.
        num_classes: classes K.
        hidden: width of the two hidden layers.
        ramp_steps: training steps over which the reversed gradient grows from 0 to almost 1.
    """

    num_steps: Tensor
    """Training steps so far; a buffer, so that a resumed run continues the ramp."""
    of_features: Tensor
    """(C, RANDOM_DIM) of the randomised map."""
    of_classes: Tensor
    """(K, RANDOM_DIM) of the randomised map."""

    def __init__(self, num_features: int, num_classes: int, *, hidden: int, ramp_steps: int) -> None:
        super().__init__()
        self._ramp_steps = ramp_steps
        self._is_random = num_features * num_classes > MOST_OUTER
        size = num_features * num_classes
        if self._is_random:
            size = RANDOM_DIM
            self.register_buffer("of_features", torch.randn(num_features, size))
            self.register_buffer("of_classes", torch.randn(num_classes, size))
        self.layers = nn.Sequential(
            nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )
        self.register_buffer("num_steps", torch.zeros(()))

    def forward(
        self, features_BC: Float[Tensor, "B C"], logits_BK: Float[Tensor, "B K"], target_B: Bool[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """Return the loss of the discriminator; its gradient reaches the features with the opposite sign.

        The predictions get no gradient. Images with confident predictions have more weight, and both domains have equal
        weights; a domain without images has none.

        Args:
            target_B: mask of the images of the target.
        """
        p_BK = logits_BK.detach().float().softmax(1)
        joint_BD = self.joint(self._reversed(features_BC.float()), p_BK)
        domain_B = self.layers(joint_BD).squeeze(1)
        loss_B = F.binary_cross_entropy_with_logits(domain_B.float(), target_B.float(), reduction="none")
        entropy_B = -(p_BK * p_BK.clamp(min=1e-12).log()).sum(1)
        weight_B = 1 + torch.exp(-entropy_B)
        if self.training:
            self.num_steps += 1
        return (_mean(loss_B, weight_B * target_B) + _mean(loss_B, weight_B * ~target_B)) / 2

    def joint(self, features_BC: Float[Tensor, "B C"], p_BK: Float[Tensor, "B K"]) -> Float[Tensor, "B D"]:
        """Return the multilinear map of features and predictions: the outer product, or its randomised form."""
        if self._is_random:
            return (features_BC @ self.of_features) * (p_BK @ self.of_classes) / math.sqrt(RANDOM_DIM)
        return (features_BC[:, :, None] * p_BK[:, None, :]).flatten(1)

    def coefficient(self) -> Float[Tensor, ""]:
        """Return the factor of the reversed gradient, in [0, 1)."""
        return 2 / (1 + torch.exp(-RAMP * self.num_steps / self._ramp_steps)) - 1

    def _reversed(self, x: Tensor) -> Tensor:
        """Return x, with its gradient multiplied by -coefficient."""
        c = self.coefficient()
        return (1 + c) * x.detach() - c * x


def _mean(values_B: Tensor, weight_B: Tensor) -> Tensor:
    return (values_B * weight_B).sum() / weight_B.sum().clamp(min=1e-8)
