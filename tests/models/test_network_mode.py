"""The mode of a network for a while."""

from __future__ import annotations

from contextlib import suppress

import pytest
from torch import nn

from fourds_dist.models.network_mode import in_mode


@pytest.mark.parametrize("training", [True, False])
def test_each_module_has_its_mode_again_also_after_an_error(training: bool) -> None:
    network = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(3))
    network[1].eval()
    with suppress(KeyError), in_mode(network, training=training):
        assert [module.training for module in network.modules()] == [training] * 3
        raise KeyError
    assert [module.training for module in network.modules()] == [True, True, False]
