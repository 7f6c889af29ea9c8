"""The weights that most tests of this folder save and load."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.method import networks


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return networks.Convolutions(4).state_dict()
