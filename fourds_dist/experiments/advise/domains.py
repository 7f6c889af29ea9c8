"""What two data sets are like, and how far apart: counts, spectra, a domain classifier, and the teacher on both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fourds_dist.data import StreamConfig, open_split
from fourds_dist.data.format.manifest import read_manifest
from fourds_dist.data.stream.preprocessing import Preprocessing
from fourds_dist.experiments.advise.candidates import Regime
from fourds_dist.inference.images import ShardImages
from fourds_dist.io.url import split_pattern
from fourds_dist.method.label_mix import UNLABELLED
from fourds_dist.runs.estimate import Estimate
from fourds_dist.stages.network_inputs import conversions, predictor
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.target_labels import has_labels
from fourds_dist.stages.teachers import read_teacher
from fourds_dist.training.criteria import DrawnPredictions, estimated_accuracy

MOST_IMAGES = 512
"""Validation images of each domain that are looked at."""
BATCH_SIZE = 64
NUM_FOLDS = 4
"""Parts of the images on which the domain classifier is tested in turn."""
CLIP_DB = 1e-6
"""Smallest amplitude, relative to the largest."""


@dataclass(frozen=True)
class DomainCounts:
    """The images and labels of a domain, as a run uses them.

    Args:
        labels: labels that training uses.
        val_labels: labels that the selection of epochs uses.
        smallest, largest: labelled training images of the smallest and the largest class.
    """

    classes: int
    train: int
    val: int
    test: int
    labels: int
    val_labels: int
    smallest: int
    largest: int

    @property
    def regime(self) -> Regime:
        """Which labels are given; FEW: less than nine tenths of the training images have one."""
        if not self.labels:
            return Regime.NONE
        return Regime.ALL if self.labels >= 0.9 * self.train else Regime.FEW


@dataclass(frozen=True)
class DomainGap:
    """How far the target is from the source, on the images of both validation splits.

    Args:
        amplitude_db: mean difference of the log amplitude spectra of luminance, in dB; 0: none.
        amplitude_within_db: the same between two halves of the source.
        phase: 1 - cos of the phase difference of the mean images, weighted by amplitude: 0 none, 1 unrelated.
        phase_within: the same between two halves of the source.
        separability: balanced accuracy of a linear classifier that tells the domains apart by the teacher's features,
            on images that it has not seen: 0.5 indistinguishable, 1 disjoint. None: the last layer is not linear.
        on_source: accuracy of the teacher on the source; None without a source.
        on_target: the same on the target; None without labels.
        estimate: the same on the target, estimated without labels; None: not computed.
    """

    amplitude_db: float | None
    amplitude_within_db: float | None
    phase: float | None
    phase_within: float | None
    separability: float | None
    on_source: float | None
    on_target: float | None
    estimate: Estimate | None
    num_source: int
    num_target: int


@dataclass(frozen=True)
class _Seen:
    """Images of a split as the teacher sees them."""

    spectra: np.ndarray
    """(N, H, W / 2 + 1) complex spectra of luminance."""
    features: np.ndarray | None
    logits: np.ndarray
    labels: np.ndarray


def count(domain: StreamConfig, seed: int) -> DomainCounts:
    """Count images and labels of a domain.

    Raises:
        ValueError: the data set has no manifest, or lacks a split.
    """
    assert domain.url is not None
    manifest = read_manifest(split_pattern(domain.url)[0])
    train, val = open_split(domain, "train", seed=seed), open_split(domain, "val", seed=seed)
    counts = manifest.class_counts.get("train", ())
    share = min(1.0, train.num_samples / max(1, manifest.num_samples("train")))
    per_class = [round(num * share) for num in counts]
    if domain.labels_per_class is not None:
        per_class = [min(num, domain.labels_per_class) for num in per_class]
    test = manifest.num_samples("test")
    val_labels = min(sum(manifest.class_counts.get("val", ())), val.num_samples)
    return DomainCounts(
        len(manifest.classes),
        train.num_samples,
        val.num_samples,
        test if domain.test_images is None else min(test, domain.test_images),
        min(sum(per_class), train.num_samples),
        val_labels if has_labels(domain, "val") else 0,
        min(per_class, default=0),
        max(per_class, default=0),
    )


def measure_gap(settings: Settings) -> DomainGap:
    """Compare the domains of a run by images of their validation splits, with the teacher of teacher.checkpoint.

    Raises:
        ValueError: weights that do not fit.
    """
    assert settings.teacher.checkpoint is not None
    classes = open_split(settings.target, "val", seed=settings.run.seed).classes
    network = read_teacher(
        settings, settings.teacher.checkpoint, classes, lambda text: None
    )  # the runs report it
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher = predictor(network, conversions(settings).get("teacher")).to(device).eval()
    target = _look(settings, settings.target, teacher)
    source = None if settings.source.url is None else _look(settings, settings.source, teacher)
    amplitude = amplitude_within = phase = phase_within = separability = on_source = None
    estimate = None
    if source is not None:
        order = np.random.default_rng(0).permutation(len(source.labels))
        halves = source.spectra[order[0::2]], source.spectra[order[1::2]]
        amplitude, amplitude_within = (
            amplitude_distance(source.spectra, target.spectra),
            amplitude_distance(*halves),
        )
        phase, phase_within = phase_distance(source.spectra, target.spectra), phase_distance(*halves)
        if source.features is not None and target.features is not None:
            separability = domain_accuracy(source.features, target.features)
        on_source = _accuracy(source)
        drawn = [DrawnPredictions(of.logits, of.labels) for of in (source, target)]
        if (drawn[0].labels != UNLABELLED).any():
            estimate = estimated_accuracy(*drawn)
    return DomainGap(
        amplitude,
        amplitude_within,
        phase,
        phase_within,
        separability,
        on_source,
        _accuracy(target) if has_labels(settings.target, "val") else None,
        estimate,
        0 if source is None else len(source.labels),
        len(target.labels),
    )


def amplitude_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean over frequencies of the difference of two mean amplitude spectra, in dB.

    Args:
        a, b: (N, H, W) complex spectra; the mean is over N.
    """
    first, second = (np.abs(spectra).mean(0) for spectra in (a, b))
    least = CLIP_DB * max(first.max(), second.max(), np.finfo(float).tiny)
    return float(np.abs(20 * np.log10((first + least) / (second + least))).mean())


def phase_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return sum |A||B| (1 - cos(arg A - arg B)) / sum |A||B| over frequencies but 0, for mean spectra A and B."""
    first, second = a.mean(0), b.mean(0)
    product = first * second.conj()
    product[0, 0] = 0
    total = np.abs(product).sum()
    return float(1 - product.real.sum() / total) if total else 0.0


def domain_accuracy(source: Float[np.ndarray, "N D"], target: Float[np.ndarray, "M D"]) -> float:
    """Return the balanced accuracy of a logistic regression that tells two sets of features apart, cross-validated."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = np.concatenate([source, target])
    domain = np.repeat([0, 1], [len(source), len(target)])
    folds = min(NUM_FOLDS, len(source), len(target))
    if folds < 2:
        return 0.5
    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, max_iter=500, class_weight="balanced")
    )
    return float(cross_val_score(classifier, features, domain, cv=folds, scoring="balanced_accuracy").mean())


def _look(settings: Settings, domain: StreamConfig, teacher: nn.Module) -> _Seen:
    images = ShardImages(open_split(domain, "val", seed=settings.run.seed)).thinned(MOST_IMAGES)
    preprocessing = Preprocessing.of(settings.data, images.split.grey_range)
    device = next(teacher.parameters()).device
    parts: list[tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]] = []
    for pixels, labels in _batches(images, preprocessing):
        logits, features = _predictions(teacher, preprocessing.normalised(pixels.to(device)))
        spectra = np.fft.rfft2(pixels.double().mean(1).numpy() / 255)
        parts.append((spectra, features, logits, labels.numpy()))
    spectra, features, logits, labels = zip(*parts, strict=True)
    found = None if any(part is None for part in features) else np.concatenate(features)
    return _Seen(np.concatenate(spectra), found, np.concatenate(logits), np.concatenate(labels))


def _batches(images: ShardImages, preprocessing: Preprocessing) -> Iterator[tuple[Tensor, Int[Tensor, " B"]]]:
    for batch in images.batches(preprocessing, BATCH_SIZE):
        yield batch.pixels, batch.labels


@torch.inference_mode()
def _predictions(teacher: nn.Module, images: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
    """Return logits and the inputs of the last linear layer that is called; None without such a layer."""
    seen: list[Tensor] = []
    handles = [
        module.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
        for module in teacher.modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        logits = teacher(images).float().cpu().numpy()
    finally:
        for handle in handles:
            handle.remove()
    is_found = bool(seen) and seen[-1].ndim == 2
    return logits, seen[-1].float().cpu().numpy() if is_found else None


def _accuracy(seen: _Seen) -> float | None:
    is_labelled = seen.labels != UNLABELLED
    if not is_labelled.any():
        return None
    return float((seen.logits.argmax(1) == seen.labels)[is_labelled].mean())
