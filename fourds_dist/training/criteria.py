"""Label-free criteria: measures of a network on images of the target without any label, for the choice of an epoch.

Higher is better for all. N images, K classes, p_i = softmax(z_i) the prediction of image i, H(p) = -sum_k p_k log p_k.

| criterion | equation | range | source |
|---|---|---|---|
| `source_accuracy` | accuracy on the validation split of the source | [0, 1] | - |
| `entropy` | -mean_i H(p_i) | [-log K, 0] | Morerio et al. 2018, arXiv 1711.10288 |
| `infomax` | H(mean_i p_i) - mean_i H(p_i) | [0, log K] | Shi and Sha 2012, arXiv 1206.6438 |
| `snd` | mean_i H(softmax_j(cos(p_i, p_j) / 0.05)), j != i | [0, log(N - 1)] | Saito et al. 2021, arXiv 2108.10860 |
| `bnm` | sum of the singular values of (p_ik) / sqrt(N min(N, K)) | (0, 1] | Cui et al. 2020, arXiv 2003.12237 |
| `agreement` | share of images with the same class as the teacher's | [0, 1] | - |
| `confidence` | estimate of the accuracy, `estimated_accuracy` | [0, 1] | Garg et al. 2022, arXiv 2201.04234 |

Musgrave et al. (2022, arXiv 2208.07360) compare such criteria on a million checkpoints and propose the nuclear norm as
one; none is the best for all methods. EXPERIMENTS.md of `method` has the regret of each on this package's methods.

`entropy`, `infomax` and `agreement` are sums over all images and ranks. The others need pairs, singular values or order
statistics, and use at most MOST_DRAWN images, drawn by a hash of their keys: the same images on any number of ranks.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fourds_dist.method.label_mix import UNLABELLED
from fourds_dist.runs.estimate import MIN_IMAGES, Estimate
from fourds_dist.training.distributed.world import World

MOST_DRAWN = 2048
"""Largest number of images for the criteria that need more than sums."""
SND_TEMPERATURE = 0.05
CHUNK = 512
"""Rows of the similarity matrix of `snd` that are in memory at a time."""
NUM_RESAMPLES = 200
TEMPERATURES = (0.05, 20.0)
"""Smallest and largest temperature of the calibration."""


def mean_entropy(p_NK: Float[Tensor, "N K"]) -> float:
    """Return mean_i H(p_i), in nats, in [0, log K]."""
    return float(torch.special.entr(p_NK).sum(1).mean())


def soft_neighbourhood_density(
    p_NK: Float[Tensor, "N K"], *, temperature: float = SND_TEMPERATURE, chunk: int = CHUNK
) -> float:
    """Return the mean entropy of the softmax over each image's similarities to all others; NaN for one image.

    Args:
        chunk: rows that are compared with all others at a time; without effect on the value.
    """
    num = len(p_NK)
    if num < 2:
        return math.nan
    unit = torch.nn.functional.normalize(p_NK.double(), dim=1)
    total = 0.0
    for start in range(0, num, chunk):
        rows = torch.arange(start, min(start + chunk, num))
        similarity = unit[rows] @ unit.T / temperature
        similarity[torch.arange(len(rows)), rows] = -math.inf
        total += float(torch.special.entr(similarity.softmax(1)).sum())
    return total / num


def relative_nuclear_norm(p_NK: Float[Tensor, "N K"]) -> float:
    """Return the nuclear norm of the predictions over its upper bound, sqrt(N min(N, K)): in (0, 1].

    The value is 1 for one-hot predictions with equally many images of each class.
    """
    if not len(p_NK) or not torch.isfinite(p_NK).all():
        return math.nan
    bound = math.sqrt(len(p_NK) * min(p_NK.shape))
    return float(torch.linalg.svdvals(p_NK.double()).sum()) / bound


@dataclass(frozen=True)
class DrawnPredictions:
    """Predictions of one network for at most MOST_DRAWN images of a split.

    Args:
        logits: (n, K).
        labels: (n,), -1 for unlabelled images.
    """

    logits: np.ndarray
    labels: np.ndarray

    @property
    def labelled(self) -> DrawnPredictions:
        """Return the predictions of the labelled images."""
        mask = self.labels != UNLABELLED
        return DrawnPredictions(self.logits[mask], self.labels[mask])


@dataclass(frozen=True)
class PredictionStatistics:
    """Sums over all images of a split, and drawn predictions, of one network.

    Args:
        num_images: images of the split, on all ranks.
        sum_entropy: sum_i H(p_i), in nats.
        sum_p: (K,), sum_i p_i.
        num_agreed: images for which the reference network predicts the same class; None: no reference.
    """

    num_images: int
    sum_entropy: float
    sum_p: np.ndarray
    num_agreed: int | None
    drawn: DrawnPredictions

    def criteria(self) -> dict[str, float]:
        """Return the criteria that need the target alone, by name; without those that are not finite."""
        if not self.num_images:
            return {}
        mean_p = torch.from_numpy(self.sum_p / self.num_images)
        p = torch.from_numpy(self.drawn.logits).double().softmax(1)
        entropy = self.sum_entropy / self.num_images
        values = {
            "entropy": -entropy,
            "infomax": float(torch.special.entr(mean_p).sum()) - entropy,
            "snd": soft_neighbourhood_density(p),
            "bnm": relative_nuclear_norm(p),
        }
        if self.num_agreed is not None:
            values["agreement"] = self.num_agreed / self.num_images
        return {name: value for name, value in values.items() if math.isfinite(value)}


class StatisticsCollector:
    """Collects the statistics of several networks, batch after batch, on one rank.

    Args:
        reference: network with which the others are compared for `agreement`; None: none.
    """

    def __init__(self, networks: Sequence[str], num_classes: int, *, reference: str | None = None) -> None:
        self._networks, self._reference = list(networks), reference
        self._num_classes = num_classes
        self._num_images = 0
        self._sums: dict[str, tuple[float, np.ndarray, int]] = {
            name: (0.0, np.zeros(num_classes), 0) for name in networks
        }
        self._ranks = np.zeros(0, np.uint64)
        self._labels = np.zeros(0, np.int64)
        self._logits = {name: np.zeros((0, num_classes), np.float32) for name in networks}

    def add(self, logits: Mapping[str, Tensor], labels: Tensor, keys: Sequence[str]) -> None:
        """Add a batch.

        Args:
            logits: (B, K) of each network.
            labels: (B,), -1 for unlabelled images.
            keys: name of each image in its split, for the draw.
        """
        self._num_images += len(keys)
        predicted = {name: z.argmax(1) for name, z in logits.items()}
        for name in self._networks:
            p = logits[name].double().softmax(1)
            agreed = 0
            if self._reference is not None:
                agreed = int((predicted[name] == predicted[self._reference]).sum())
            entropy, sum_p, num = self._sums[name]
            self._sums[name] = (
                entropy + float(torch.special.entr(p).sum()),
                sum_p + p.sum(0).cpu().numpy(),
                num + agreed,
            )
        self._ranks = np.concatenate([self._ranks, _ranks(keys)])
        self._labels = np.concatenate([self._labels, labels.cpu().numpy()])
        self._logits = {
            name: np.concatenate([held, logits[name].float().cpu().numpy()])
            for name, held in self._logits.items()
        }
        if len(self._ranks) > 2 * MOST_DRAWN:
            self._keep_drawn()

    def collected(self, world: World) -> dict[str, PredictionStatistics] | None:
        """Return the statistics of all ranks on rank 0; None on other ranks. This is a collective call."""
        self._keep_drawn()
        own = (self._num_images, self._sums, self._ranks, self._labels, self._logits)
        of_ranks = world.gather_to_main(own)
        if of_ranks is None:
            return None
        numbers, sums, ranks, labels, logits = zip(*of_ranks, strict=True)
        self._ranks, self._labels = np.concatenate(ranks), np.concatenate(labels)
        self._logits = {name: np.concatenate([part[name] for part in logits]) for name in self._networks}
        self._keep_drawn()
        return {
            name: PredictionStatistics(
                sum(numbers),
                sum(part[name][0] for part in sums),
                np.sum([part[name][1] for part in sums], axis=0),
                None if self._reference is None else sum(part[name][2] for part in sums),
                DrawnPredictions(self._logits[name], self._labels),
            )
            for name in self._networks
        }

    def _keep_drawn(self) -> None:
        """Keep the images of the smallest ranks, in their order."""
        order = np.argsort(self._ranks, kind="stable")[:MOST_DRAWN]
        self._ranks, self._labels = self._ranks[order], self._labels[order]
        self._logits = {name: held[order] for name, held in self._logits.items()}


def _ranks(keys: Sequence[str]) -> np.ndarray:
    """Return pseudo-random numbers, (B,), which depend on the keys alone."""
    digests = b"".join(hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(digests, np.dtype("<u8")).astype(np.uint64)


def calibrating_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature with the lowest cross-entropy of labelled images (Guo et al., arXiv 1706.04599).

    Args:
        logits: (n, K).
        labels: (n,), all in [0, K).
    """
    from scipy.optimize import minimize_scalar  # takes as long as the rest of this package

    z = torch.from_numpy(logits).double()
    true = torch.from_numpy(labels)

    def loss(log_temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(z / math.exp(log_temperature), true))

    found = minimize_scalar(loss, bounds=tuple(map(math.log, TEMPERATURES)), method="bounded")
    return math.exp(found.x)


def thresholded_confidence(
    source_score: np.ndarray, source_right: np.ndarray, target_score: np.ndarray
) -> float:
    """Return the average thresholded confidence: the share of target images with a score of at least t.

    t is the score below which as many source images are as are misclassified (Garg et al., arXiv 2201.04234).
    """
    num_wrong = int((~source_right).sum())
    if num_wrong == len(source_score):
        return 0.0
    return float((target_score >= np.partition(source_score, num_wrong)[num_wrong]).mean())


def difference_of_confidences(
    source_score: np.ndarray, source_right: np.ndarray, target_score: np.ndarray
) -> float:
    """Return the source accuracy plus the change of the mean confidence (Guillory et al., arXiv 2107.03315)."""
    value = source_right.mean() + target_score.mean() - source_score.mean()
    return float(np.clip(value, 0, 1))


def estimated_accuracy(source: DrawnPredictions, target: DrawnPredictions) -> Estimate | None:
    """Estimate the accuracy on a target without labels, with a network calibrated on labelled source images.

    Logits are divided by the temperature that calibrates the source. The score of an image is its largest probability.
    The estimate is `thresholded_confidence`, which had half the error of its mean with `difference_of_confidences`, a
    higher one (EXPERIMENTS.md of `method`). Its interval reaches from the lower to the upper ends of the 95 % bootstrap
    intervals of both, over source and target images: it has the errors of both samples, and shows how far the two
    estimators differ. With fewer than MIN_IMAGES images of a domain the interval is [0, 1].

    Returns:
        None: a domain has no images, or a logit is not finite.
    """
    source = source.labelled
    num, num_source = len(target.labels), len(source.labels)
    if not num or not num_source:
        return None
    if not (np.isfinite(source.logits).all() and np.isfinite(target.logits).all()):
        return None
    temperature = calibrating_temperature(source.logits, source.labels)
    scores, target_scores = (
        (torch.from_numpy(of.logits).double() / temperature).softmax(1).amax(1).numpy()
        for of in (source, target)
    )
    right = source.logits.argmax(1) == source.labels
    estimators = (thresholded_confidence, difference_of_confidences)
    value = thresholded_confidence(scores, right, target_scores)
    if min(num, num_source) < MIN_IMAGES:
        return Estimate(value, 0.0, 1.0, num, num_source)
    random = np.random.default_rng((num, num_source))
    drawn = np.empty((NUM_RESAMPLES, len(estimators)))
    for row in drawn:
        i, j = random.integers(0, num_source, num_source), random.integers(0, num, num)
        row[:] = [estimate(scores[i], right[i], target_scores[j]) for estimate in estimators]
    low, high = np.quantile(drawn, 0.025, axis=0).min(), np.quantile(drawn, 0.975, axis=0).max()
    return Estimate(value, min(value, float(low)), max(value, float(high)), num, num_source)
