"""The linear probe: the minimum of its convex loss, over any number of ranks."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourds_dist.data import Batch
from fourds_dist.training import linear_probe
from fourds_dist.training.distributed.world import World
from fourds_dist.training.evaluate import PlainImages
from fourds_dist.training.linear_probe import (
    Features,
    features,
    fit_last_layer,
    freeze_up_to,
    last_linear,
)
from tests.training.tiny import NUM_CLASSES, tiny_network

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)


def drawn(num: int, seed: int = 0) -> Features:
    """Classes that a line separates only in part, with features of very different sizes."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (num,), generator=random)
    values = torch.randn(num, 4, generator=random) + 1.5 * F.one_hot(labels, 4)
    return Features(
        values * torch.tensor([1.0, 100.0, 0.01, 1.0]) + torch.tensor([0.0, 50.0, 0.0, -3.0]), labels
    )


def test_the_probe_is_the_minimum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_probe, "L2", (1e-2,))
    monkeypatch.setattr(linear_probe, "ROWS", 64)  # several parts
    layer, train = nn.Linear(4, 3), drawn(300)
    probe = fit_last_layer(layer, train, drawn(100, seed=1), ALONE)
    assert (probe.l2, probe.num_images, probe.num_features, probe.accuracy.num_samples) == (1e-2, 300, 4, 100)
    values = train.values.double()
    mean, deviation = values.mean(0), values.std(0, correction=0)
    weight = (layer.weight.detach().double() * deviation).requires_grad_(True)
    bias = (layer.bias.detach().double() + layer.weight.detach().double() @ mean).requires_grad_(True)
    loss = F.cross_entropy((values - mean) / deviation @ weight.T + bias, train.labels)
    (loss + 1e-2 / 2 * weight.square().sum()).backward()
    for gradient in (weight.grad, bias.grad):
        assert gradient is not None
        assert gradient.abs().max() < 1e-4


def test_class_weights_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_probe, "L2", (1e-2,))
    train, val = drawn(300), drawn(300, seed=1)
    predicted = {}
    for factor in (1.0, 20.0):
        layer = nn.Linear(4, 3)
        fit_last_layer(layer, train, val, ALONE, class_weights=torch.tensor([factor, 1.0, 1.0]))
        predicted[factor] = int((layer(val.values).argmax(1) == 0).sum())
    assert predicted[20.0] > 1.5 * predicted[1.0]


class Ranks:
    """Two ranks as threads, whose sums wait for each other."""

    def __init__(self) -> None:
        self._barrier = threading.Barrier(2, timeout=60)
        self._parts: list[Tensor | None] = [None, None]

    def sum(self, rank: int, values: Tensor) -> Tensor:
        self._parts[rank] = values
        self._barrier.wait()
        first, second = self._parts
        assert first is not None
        assert second is not None
        total = first + second
        self._barrier.wait()
        return total


def test_two_ranks_fit_the_layer_of_one() -> None:
    train, val = drawn(301), drawn(101, seed=1)
    alone = nn.Linear(4, 3)
    whole = fit_last_layer(alone, train, val, ALONE)
    ranks, layers = Ranks(), [nn.Linear(4, 3), nn.Linear(4, 3)]
    probes = [whole, whole]

    class OneOfTwo(World):
        def sum(self, values: Tensor) -> Tensor:
            return ranks.sum(self.rank, values)

    def fit(rank: int) -> None:
        shares = [Features(f.values[rank::2], f.labels[rank::2]) for f in (train, val)]
        probes[rank] = fit_last_layer(layers[rank], *shares, OneOfTwo(rank, 2, CPU))

    threads = [threading.Thread(target=fit, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert torch.equal(layers[0].weight, layers[1].weight)
    for probe in probes:
        assert (probe.l2, probe.num_images) == (whole.l2, 301)
        assert probe.accuracy.num_correct == whole.accuracy.num_correct
    torch.testing.assert_close(layers[0].weight, alone.weight, rtol=1e-2, atol=1e-4)


def test_a_constant_feature_and_a_rank_without_images() -> None:
    train = drawn(200)
    train.values[:, 3] = 7.0
    layer = nn.Linear(4, 3)
    empty = Features(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    probe = fit_last_layer(layer, train, empty, ALONE)
    assert torch.isfinite(layer.weight).all()
    assert probe.accuracy.num_samples == 0
    with pytest.raises(ValueError, match="no labelled images"):
        fit_last_layer(layer, empty, train, ALONE)
    train.values[3, 1] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        fit_last_layer(layer, train, empty, ALONE)


def test_features_are_the_inputs_of_the_last_layer_of_labelled_images() -> None:
    network = tiny_network(8).train()
    layer = last_linear(network, NUM_CLASSES, 8, what="teacher")
    batch = Batch(
        torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8),
        torch.tensor([0, -1, 2, 1, -1]),
        torch.zeros(5, dtype=torch.bool),
        list("abcde"),
    )
    step = PlainImages(CPU, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    found = features(network, layer, [batch], step, CPU)
    assert network.training
    assert found.labels.tolist() == [0, 2, 1]
    with torch.no_grad():
        logits = network.eval()(step.images(batch))
    torch.testing.assert_close(layer(found.values), logits[[0, 2, 3]])
    assert (
        len(features(network, layer, [replace(batch, labels=batch.labels.fill_(-1))], step, CPU).labels) == 0
    )


def test_another_last_layer_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(
        ValueError, match=r"teacher: a linear probe needs a Linear .* set source_stage\.train=all"
    ):
        last_linear(network, 4, 8, what="teacher")


def test_all_before_a_submodule_is_frozen() -> None:
    network = tiny_network(8)
    frozen = freeze_up_to(network, "layer1", lambda: network(torch.zeros(2, 3, 8, 8)))
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(name.startswith(("layer2", "fc")) for name in trained)
    assert network.get_submodule("layer1.1") in frozen
    assert network.get_submodule("layer2.1") not in frozen
