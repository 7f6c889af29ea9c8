"""BatchNorms folded into convolutions: equal logits, and networks in which nothing may be folded."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fourds_dist.models.norm_folding import with_folded_norms
from tests.models.test_norm_fusion import build

FOLDED = {"resnet18": 20, "mobilenet_v3_small": 34, "densenet121": 59, "timm/efficientnet_b0": 49}


@pytest.mark.parametrize(
    "arch", [n if n == "mobilenet_v3_small" else pytest.param(n, marks=pytest.mark.slow) for n in FOLDED]
)
def test_logits_are_equal(arch: str) -> None:
    network = build(arch)
    x = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(30):  # statistics of the network's own maps, so that the logits have their usual size
            network.train()(x)
    network.eval().requires_grad_(False)
    before = {name: t.clone() for name, t in network.state_dict().items()}
    folded, num = with_folded_norms(network)
    assert num == FOLDED[arch]
    assert sum(type(m) is nn.BatchNorm2d for m in folded.modules()) == (62 if arch == "densenet121" else 0)
    logits = network(x)
    torch.testing.assert_close(folded(x), logits, rtol=1e-4, atol=1e-5 * float(logits.abs().max()))
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
    assert not any(p.requires_grad for p in folded.parameters())


def test_refusals_name_the_layer_and_the_remedy() -> None:
    network = build("resnet10").eval()
    with pytest.raises(
        ValueError, match=r"the parameter conv1\.weight learns; fold BatchNorm only in a frozen network"
    ):
        with_folded_norms(network)
    network.requires_grad_(False)
    network.layer1.train()
    with pytest.raises(
        ValueError, match=r"the BatchNorm layer1\.0\.bn1 normalises by the batch.*network\.eval\(\)"
    ):
        with_folded_norms(network)


def test_a_convolution_that_others_read_too_stays() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x):
            y = self.conv(x)
            return self.bn(y) + y

    network = Twice().eval().requires_grad_(False)
    folded, num = with_folded_norms(network)
    x = torch.randn(2, 3, 4, 4)
    assert num == 0
    assert torch.equal(folded(x), network(x))
