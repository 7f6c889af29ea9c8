"""The Fourier adapter against Eq. 2 to 5, computed with the full spectrum."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fourds_dist.method.adapter import FourierAdapter


def test_the_mix_weights_are_a_softmax_at_the_temperature() -> None:
    adapter = FourierAdapter(8, temperature=0.1)
    assert adapter.mix_weights().tolist() == [0.5, 0.5]
    with torch.no_grad():
        adapter.mix[0] = 0.1 * math.log(3)
    assert adapter.mix_weights().tolist() == pytest.approx([0.75, 0.25])
    adapter.temperature = 0.2
    root = math.sqrt(3)
    assert adapter.mix_weights().tolist() == pytest.approx([root / (1 + root), 1 / (1 + root)])


@pytest.mark.parametrize("training", [True, False])
def test_the_amplitude_is_mixed_and_the_phase_is_the_input_s(training: bool) -> None:
    torch.manual_seed(0)
    adapter = FourierAdapter(6, reduction=2).double().train(training)
    with torch.no_grad():
        adapter.mix.copy_(torch.tensor([0.05, -0.05]))
    h = torch.randn(3, 6, 5, 7, dtype=torch.float64)
    out = adapter(h)
    first, norm, _, second, last_norm = adapter.fc
    hidden = torch.einsum("oc,bchw->bohw", first.weight[:, :, 0, 0], h)  # type: ignore[index]
    a = torch.einsum("oc,bchw->bohw", second.weight[:, :, 0, 0], normalised(hidden, training).relu())  # type: ignore[index]
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(last_norm, nn.BatchNorm2d)
    w = 1 / (1 + math.exp(-1.0))
    H, A = torch.fft.fft2(h), torch.fft.fft2(normalised(a, training))
    expected = torch.fft.ifft2((w * A.abs() + (1 - w) * H.abs()) * torch.exp(1j * H.angle())).real
    torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-3)  # Eq. 1 moves weak bins by 1e-5


def normalised(x: torch.Tensor, training: bool) -> torch.Tensor:
    """BatchNorm without weights, whose running statistics are still mean 0 and variance 1."""
    if not training:
        return x / math.sqrt(1 + 1e-5)
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt()


@pytest.mark.parametrize(("channels", "reduction", "hidden"), [(64, 4, 16), (10, 4, 2), (3, 4, 1)])
def test_the_bottleneck_has_at_least_one_channel(channels: int, reduction: int, hidden: int) -> None:
    adapter = FourierAdapter(channels, reduction=reduction)
    shapes = {name: tuple(p.shape) for name, p in adapter.named_parameters()}
    assert shapes == {
        "mix": (2,),
        "fc.0.weight": (hidden, channels, 1, 1),
        "fc.1.weight": (hidden,),
        "fc.1.bias": (hidden,),
        "fc.3.weight": (channels, hidden, 1, 1),
        "fc.4.weight": (channels,),
        "fc.4.bias": (channels,),
    }
