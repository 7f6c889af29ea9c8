"""The class order of a network changes by its last layer, whatever the network does beside."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fourds_dist.models.weights.class_order import last_layer, reorder_classes
from tests.method.networks import Convolutions

ORDER = (2, 0, 3, 1)


class TwoHeads(nn.Module):
    """The logits are the sum of two layers; a buffer has a value for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU())
        self.first = nn.Linear(6, 4)
        self.second = nn.Linear(6, 4, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images)
        return self.first(features) + self.second(features.square())


class Scaled(nn.Module):
    """A layer that holds its weights itself: a cosine classifier with a bias by class in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 192))
        self.prior: Tensor
        self.register_buffer("prior", torch.randn(4))

    def forward(self, images: Tensor) -> Tensor:
        features = nn.functional.normalize(images.flatten(1))
        return features @ nn.functional.normalize(self.weight).T + self.prior


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: Convolutions(4), ["head.weight", "head.bias"]),
        (TwoHeads, ["first.weight", "first.bias", "second.weight"]),
        (Scaled, ["weight", "prior"]),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4)), None),
    ],
)
def test_class_k_is_the_former_class_of_the_order(
    make: Callable[[], nn.Module], names: list[str] | None
) -> None:
    torch.manual_seed(0)
    network = make().train()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p))
    images = torch.randn(5, 3, 8, 8)
    before = network.eval()(images)
    network.train()
    random_state = torch.get_rng_state()
    changed = reorder_classes(network, ORDER, 8)
    if names is not None:
        assert changed == names
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(module.training for module in network.modules())
    assert not any(module._forward_hooks for module in network.modules())
    torch.testing.assert_close(network.eval()(images), before[:, list(ORDER)])


def test_a_network_without_such_a_layer_is_unchanged() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Tanh(), nn.Linear(4, 2), nn.Upsample(4))
    network.insert(4, nn.Unflatten(1, (1, 2)))
    network.append(nn.Flatten())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"^no layer of the network has a row for each class$"):
        reorder_classes(network, ORDER, 8)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_parameters_of_a_network_beside_its_layers_are_no_last_layer() -> None:
    """timm's ViTs have the class token and the positions in the network itself, which ends last."""
    network = Convolutions(4)
    network.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
    body = nn.Sequential(network)
    assert last_layer(network, 4, 8) == ["head.weight", "head.bias"]
    assert last_layer(body, 4, 8) == ["0.head.weight", "0.head.bias"]
    assert last_layer(network, 5, 8) == []
    network.bias_of_classes = nn.Parameter(torch.zeros(4))
    assert last_layer(network, 4, 8) == ["bias_of_classes"]


def test_the_last_layer_has_a_row_for_each_class() -> None:
    assert last_layer(Convolutions(4), 4, 8) == ["head.weight", "head.bias"]
    assert last_layer(Convolutions(4), 5, 8) == []
    tied = Convolutions(4)
    tied.head.register_parameter("again", tied.head.bias)  # one tensor under two names
    assert last_layer(tied, 4, 8) == ["head.weight", "head.bias"]
