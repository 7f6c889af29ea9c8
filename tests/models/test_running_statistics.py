"""BatchNorm normalises by the batch and its running statistics stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fourds_dist.models.running_statistics import preserved_running_statistics


@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_stay_where_the_batch_normalises(momentum: float | None) -> None:
    norm, idle = nn.BatchNorm1d(3, momentum=momentum), nn.BatchNorm1d(3).eval()
    network = nn.Sequential(norm, idle, nn.BatchNorm1d(3, track_running_stats=False))
    x = torch.randn(5, 3) + 2
    expected = network(x)
    before = {name: (buffer, buffer.clone()) for name, buffer in network.named_buffers()}
    with preserved_running_statistics(network):
        again = network(x)
    torch.testing.assert_close(again, expected)
    for name, buffer in network.named_buffers():
        same, value = before[name]
        assert buffer is same  # a captured step writes to its address
        assert torch.equal(buffer, value)
    network(2 * x)
    assert not torch.equal(norm.running_var, before["0.running_var"][1])  # type: ignore[arg-type]


def test_statistics_stay_after_an_error() -> None:
    norm = nn.BatchNorm1d(3)
    mean = norm.running_mean
    with pytest.raises(ZeroDivisionError), preserved_running_statistics(norm):
        raise ZeroDivisionError
    assert norm.running_mean is mean
