"""The gate of fusion-activation, which weights the channels of the phase loss (Eq. 9).

g = sigmoid(V2 ReLU(V1 mean_HW(P_T)))
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class FusionGate(nn.Module):
    """Squeeze-and-excitation over the fused phase map; one weight in (0, 1) per image and channel.

    Args:
        channels: channels of the fused map, summed over stages (960 for ResNet18 and ResNet34).
        reduction: channels / hidden width (released: 16).
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, phase: Float[Tensor, "B C U V"]) -> Float[Tensor, "B C 1 1"]:
        return self.fc(phase.mean(dim=(2, 3)))[:, :, None, None]
