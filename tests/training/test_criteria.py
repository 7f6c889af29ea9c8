"""Label-free criteria against direct computations in NumPy, over ranks, and on degenerate splits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fourds_dist.training import criteria
from fourds_dist.training.criteria import DrawnPredictions, PredictionStatistics, StatisticsCollector
from fourds_dist.training.distributed.world import World

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)
K = 5


class Parts(World):
    """Rank 0 of ranks whose values are known."""

    others: tuple[StatisticsCollector, ...] = ()

    def gather_to_main(self, value: object) -> list[object]:
        return [value, *(part for other in self.others for part in [_own(other)])]


def _own(collector: StatisticsCollector) -> object:
    class Asks(World):
        asked: object = None

        def gather_to_main(self, value: object) -> None:
            object.__setattr__(self, "asked", value)

    asks = Asks(1, 2, CPU)
    assert collector.collected(asks) is None
    return asks.asked


def logits(num: int, *, seed: int = 0, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(num, K, generator=torch.Generator().manual_seed(seed))


def fed(
    z: dict[str, Tensor], numbers: range, batch: int, reference: str | None = None
) -> StatisticsCollector:
    collector = StatisticsCollector(list(z), K, reference=reference)
    for begin in range(numbers.start, numbers.stop, batch):
        part = slice(begin, min(begin + batch, numbers.stop))
        collector.add(
            {name: of[part] for name, of in z.items()},
            torch.full((part.stop - begin,), -1),
            [f"shard/{n}" for n in range(begin, part.stop)],
        )
    return collector


def collected(collector: StatisticsCollector, world: World = ALONE) -> dict[str, PredictionStatistics]:
    found = collector.collected(world)
    assert found is not None
    return found


def test_criteria_are_those_of_a_direct_computation() -> None:
    z = {"student": logits(37), "teacher": logits(37, seed=1)}
    found = collected(fed(z, range(37), 8, "teacher"))["student"].criteria()
    p = np.exp(z["student"].double().numpy())
    p /= p.sum(1, keepdims=True)
    entropy = -(p * np.log(p)).sum(1).mean()
    mean = p.mean(0)
    assert found["entropy"] == pytest.approx(-entropy)
    assert found["infomax"] == pytest.approx(-(mean * np.log(mean)).sum() - entropy)
    unit = p / np.linalg.norm(p, axis=1, keepdims=True)
    densities = []
    for i in range(37):
        q = np.exp(np.delete(unit @ unit[i], i) / 0.05)
        q /= q.sum()
        densities.append(-(q * np.log(q)).sum())
    assert found["snd"] == pytest.approx(np.mean(densities))
    assert found["bnm"] == pytest.approx(np.linalg.norm(p, "nuc") / math.sqrt(37 * K))
    same = z["student"].argmax(1) == z["teacher"].argmax(1)
    assert found["agreement"] == pytest.approx(same.float().mean().item())
    assert collected(fed(z, range(37), 8, "teacher"))["teacher"].criteria()["agreement"] == 1


def test_the_density_does_not_depend_on_chunks() -> None:
    p = logits(50).softmax(1)
    whole = criteria.soft_neighbourhood_density(p, chunk=64)
    assert criteria.soft_neighbourhood_density(p, chunk=7) == pytest.approx(whole, rel=1e-12)
    assert math.isnan(criteria.soft_neighbourhood_density(p[:1]))
    alike = torch.full((9, K), 1 / K)
    assert criteria.soft_neighbourhood_density(alike) == pytest.approx(
        math.log(8)
    )  # the upper end of its range


def test_ends_of_ranges() -> None:
    one_hot = torch.eye(K).repeat(4, 1)
    assert criteria.relative_nuclear_norm(one_hot) == pytest.approx(1)
    assert criteria.relative_nuclear_norm(torch.full((20, K), 1 / K)) == pytest.approx(1 / K)
    assert criteria.mean_entropy(torch.full((20, K), 1 / K)) == pytest.approx(math.log(K))
    z = {"x": 1e4 * one_hot}
    found = collected(fed(z, range(20), 6))["x"].criteria()
    assert found["entropy"] == 0
    assert found["infomax"] == pytest.approx(math.log(K))
    assert "agreement" not in found


def test_ranks_give_what_one_rank_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criteria, "MOST_DRAWN", 16)  # a part of the images is drawn
    z = {"student": logits(61), "teacher": logits(61, seed=1)}
    one = collected(fed(z, range(61), 9, "teacher"))
    world = Parts(0, 3, CPU)
    object.__setattr__(
        world, "others", (fed(z, range(20, 60), 4, "teacher"), fed(z, range(60, 61), 4, "teacher"))
    )
    several = collected(fed(z, range(20), 7, "teacher"), world)
    for name in z:
        assert several[name].num_images == one[name].num_images == 61
        np.testing.assert_array_equal(several[name].drawn.logits, one[name].drawn.logits)
        assert len(one[name].drawn.logits) == 16
        assert several[name].criteria() == pytest.approx(one[name].criteria(), rel=1e-12)


def test_what_is_not_finite_is_left_out() -> None:
    z = logits(30)
    z[3, 2] = math.nan
    found = collected(fed({"x": z}, range(30), 8, "x"))["x"].criteria()
    assert set(found) == {"agreement"}
    assert collected(StatisticsCollector(["x"], K))["x"].criteria() == {}
    assert set(collected(fed({"x": logits(1)}, range(1), 1))["x"].criteria()) == {"entropy", "infomax", "bnm"}


def test_classes_that_a_network_leaves_out_have_probability_0() -> None:
    z = logits(30)
    z[:, 1] = -math.inf
    assert set(collected(fed({"x": z}, range(30), 8))["x"].criteria()) == {"entropy", "infomax", "snd", "bnm"}


def labelled(num: int, *, seed: int, strength: float) -> DrawnPredictions:
    """Predictions of a network that is right more often the larger `strength` is."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, K, num)
    z = random.normal(size=(num, K)) + strength * np.eye(K)[labels]
    return DrawnPredictions(z.astype(np.float32), labels)


def accuracy(of: DrawnPredictions) -> float:
    return float((of.logits.argmax(1) == of.labels).mean())


def test_thresholded_confidence() -> None:
    scores, right = np.array([0.9, 0.5, 0.8, 0.4]), np.array([True, False, True, False])
    target = np.array([0.95, 0.85, 0.79, 0.1, 0.8])
    assert criteria.thresholded_confidence(scores, right, target) == 0.6  # at least 0.8
    assert criteria.thresholded_confidence(scores, np.zeros(4, bool), target) == 0
    assert criteria.thresholded_confidence(scores, np.ones(4, bool), target) == 0.8  # at least 0.4
    assert criteria.difference_of_confidences(scores, right, target) == pytest.approx(
        0.5 + target.mean() - 0.65
    )


def test_the_temperature_calibrates() -> None:
    of = labelled(3000, seed=0, strength=1.5)  # logits of the true posterior
    assert criteria.calibrating_temperature(of.logits, of.labels) == pytest.approx(1 / 1.5, rel=0.1)
    assert criteria.calibrating_temperature(4 * of.logits, of.labels) == pytest.approx(4 / 1.5, rel=0.1)


@pytest.mark.parametrize("strength", [0.5, 1.5, 3.0])
def test_an_estimate_without_a_change_of_domain_has_the_accuracy(strength: float) -> None:
    source, target = (labelled(600, seed=seed, strength=strength) for seed in (0, 1))
    hidden = DrawnPredictions(target.logits, np.full(600, -1))
    found = criteria.estimated_accuracy(source, hidden)
    assert found is not None
    assert found.low < accuracy(target) < found.high
    assert found.high - found.low < 0.15
    assert found.value == pytest.approx(accuracy(target), abs=0.06)
    assert (found.num_images, found.num_source_images, found.is_from_few) == (600, 600, False)
    assert criteria.estimated_accuracy(source, hidden) == found  # no randomness


def test_a_harder_target_has_a_lower_estimate() -> None:
    source, target = labelled(600, seed=0, strength=3), labelled(600, seed=1, strength=1)
    found = criteria.estimated_accuracy(source, target)
    assert found is not None
    assert accuracy(target) - 0.15 < found.value < accuracy(source) - 0.15


def test_few_images_have_no_interval() -> None:
    source, target = labelled(60, seed=0, strength=2), labelled(19, seed=1, strength=2)
    for found in (criteria.estimated_accuracy(source, target), criteria.estimated_accuracy(target, source)):
        assert found is not None
        assert (found.low, found.high, found.is_from_few) == (0, 1, True)
        assert "fewer than 20" in found.basis
    assert criteria.estimated_accuracy(source, labelled(0, seed=1, strength=2)) is None
    assert criteria.estimated_accuracy(DrawnPredictions(source.logits, np.full(60, -1)), target) is None
    target.logits[0, 0] = math.nan
    assert criteria.estimated_accuracy(source, target) is None


def test_a_source_of_one_class_can_calibrate() -> None:
    source = labelled(60, seed=0, strength=2)
    of_one = DrawnPredictions(source.logits[source.labels == 1], source.labels[source.labels == 1])
    found = criteria.estimated_accuracy(of_one, source)
    assert found is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
