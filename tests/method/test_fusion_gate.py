"""The gate of fusion-activation against Eq. 9."""

from __future__ import annotations

import pytest
import torch

from fourds_dist.method.fusion_gate import FusionGate


def test_the_gate_is_squeeze_and_excitation_of_the_mean() -> None:
    torch.manual_seed(0)
    gate = FusionGate(32, reduction=16).double()
    phase = torch.randn(2, 32, 3, 5, dtype=torch.float64)
    v1, v2 = (gate.fc[k].get_parameter("weight") for k in (0, 2))
    assert (v1.shape, v2.shape) == ((2, 32), (32, 2))
    logits = (phase.sum((2, 3)) / 15 @ v1.T).clamp(min=0) @ v2.T
    torch.testing.assert_close(gate(phase), (1 / (1 + torch.exp(-logits)))[:, :, None, None])


@pytest.mark.parametrize(("channels", "hidden"), [(960, 60), (15, 1)])
def test_the_hidden_width(channels: int, hidden: int) -> None:
    assert FusionGate(channels).fc[0].get_parameter("weight").shape == (hidden, channels)
