"""The Fourier adapter: the only trainable part of the teacher.

For a stage's output h, with a = BN(W2 ReLU(BN(W1 h))) and w = softmax(theta / temperature):

    out = F^-1( (w0 |F(a)| + w1 |F(h)|) * exp(i angle F(h)) )                (Eq. 2 to 5)

The amplitude (domain-specific: style) is learnt; the phase (domain-invariant: shape) is that of the frozen teacher.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fourds_dist.ops import fourier_mix


class FourierAdapter(nn.Module):
    """Combine a learnt amplitude with the phase of the input; the shape stays (B, C, H, W).

    Args:
        channels: C of the stage before the adapter.
        reduction: C / bottleneck width of the two 1x1 convolutions, >= 1 (released: 4).
        temperature: temperature of the softmax over the two mix logits (released: 0.1); a smaller one changes the mix
            faster.

    >>> adapter = FourierAdapter(64)
    >>> adapter(torch.randn(2, 64, 14, 14)).shape
    torch.Size([2, 64, 14, 14])
    >>> adapter.mix_weights().tolist()
    [0.5, 0.5]
    """

    def __init__(self, channels: int, *, reduction: int = 4, temperature: float = 0.1) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.fc = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.mix = nn.Parameter(torch.zeros(2))
        self.temperature = temperature

    def mix_weights(self) -> Float[Tensor, 2]:
        """Return (weight of the learnt amplitude, weight of the teacher's amplitude), which sum to 1 (Eq. 3)."""
        return torch.softmax(self.mix / self.temperature, dim=0)

    def forward(self, h: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return fourier_mix(h, self.fc(h), self.mix_weights())
