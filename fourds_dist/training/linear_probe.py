"""Linear probe: the last layer of a frozen network, fitted to features that the network computes once.

Labelled images x_i with features f_i (the input of the last layer), standardised to z_i; the layer minimises

    1/N sum_i w(y_i) CE(W z_i + b, y_i) + l2/2 |W|^2

by L-BFGS. The minimum is unique for l2 > 0, so neither learning rate nor epochs are chosen. Of the values `L2`, the one
with the best result on the validation split is taken. Each rank holds the features of its share of the images; losses
and gradients are summed over the ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fourds_dist.data import Batch
from fourds_dist.method.losses import UNLABELLED
from fourds_dist.models.network_mode import in_mode
from fourds_dist.models.weights.class_order import last_layer
from fourds_dist.runs.accuracy import Accuracy, Measure
from fourds_dist.runs.class_counts import ClassCounts
from fourds_dist.training.distributed.world import World
from fourds_dist.training.evaluate import ImagesOfBatch

L2 = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Weights of the penalty that are tried, from strong to weak; each fit starts from the one before."""
NUM_ITERATIONS = 100
"""Most iterations of L-BFGS for each value."""
ROWS = 1 << 16
"""Features whose logits are in memory at a time."""


class Features(NamedTuple):
    """Features and labels of a rank's labelled images."""

    values: Float[Tensor, "N D"]
    labels: Int[Tensor, " N"]


@dataclass(frozen=True)
class Probe:
    """Result of `fit_last_layer`.

    Args:
        l2: weight of the penalty that was chosen.
        num_images: number of labelled training images of all ranks.
        num_features: number of inputs of the layer.
        accuracy: accuracy on the validation split.
    """

    l2: float
    num_images: int
    num_features: int
    accuracy: Accuracy


def last_linear(network: nn.Module, num_classes: int, image_size: int, *, what: str) -> nn.Linear:
    """Return the last layer of a classifier.

    Args:
        image_size: side of the square images in pixels.
        what: name of the network in error messages.

    Raises:
        ValueError: the last layer is no `nn.Linear` with an output for each class.
    """
    names = last_layer(network, num_classes, image_size)
    found = {name.rpartition(".")[0] for name in names}
    layer = network.get_submodule(found.pop()) if len(found) == 1 else None
    if not isinstance(layer, nn.Linear) or layer.out_features != num_classes:
        kind = "another one" if layer is None else f"a {type(layer).__name__}"
        raise ValueError(
            f"{what}: a linear probe needs a Linear as last layer, with {num_classes} outputs, and "
            f"{type(network).__name__} has {kind}; set source_stage.train=all"
        )
    return layer


@torch.no_grad()
def features(
    network: nn.Module, layer: nn.Linear, batches: Iterable[Batch], step: ImagesOfBatch, device: torch.device
) -> Features:
    """Return the inputs of `layer` for the labelled images of a rank's batches, in float32 on the device.

    The network computes in evaluation mode and stays unchanged.
    """
    inputs: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    values, labels = [torch.zeros(0, layer.in_features, device=device)], [torch.zeros(0, dtype=torch.int64)]
    try:
        with in_mode(network, training=False):
            for batch in batches:
                inputs.clear()
                autocast = torch.autocast(device.type, torch.bfloat16, enabled=step.autocast)
                with autocast, step.without_compilation():
                    network(step.images(batch))
                (of_batch,) = inputs
                is_labelled = batch.labels != UNLABELLED
                values.append(of_batch.flatten(1)[is_labelled.to(device)].float())
                labels.append(batch.labels[is_labelled])
    finally:
        handle.remove()
    return Features(torch.cat(values), torch.cat(labels).to(device))


def fit_last_layer(
    layer: nn.Linear,
    train: Features,
    val: Features,
    world: World,
    *,
    measure: Measure = "accuracy",
    class_weights: Float[Tensor, " K"] | None = None,
) -> Probe:
    """Fit a layer to features of all ranks, and choose the penalty on those of the validation split.

    Args:
        measure: what the chosen penalty maximises; the stronger of equally good penalties is taken.
        class_weights: weights of the classes in the loss; None: 1.

    Raises:
        ValueError: no labelled images, or features that are not finite.
    """
    num_images = int(world.sum(torch.tensor(len(train.labels), device=world.device)))
    if not num_images:
        raise ValueError("the training split has no labelled images to fit the last layer to")
    mean, deviation = _standardisation(train.values, num_images, world)
    weight = torch.zeros(layer.out_features, layer.in_features, device=world.device, requires_grad=True)
    bias = torch.zeros(layer.out_features, device=world.device, requires_grad=True)
    train = Features((train.values - mean) / deviation, train.labels)
    val = Features((val.values - mean) / deviation, val.labels)
    best: tuple[float, float, Accuracy, Tensor, Tensor] | None = None
    for l2 in L2:
        _minimise(weight, bias, train, num_images, world, l2, class_weights)
        accuracy = accuracy_of_layer(val, weight.detach(), bias.detach(), world)
        value, _ = accuracy.measured(measure)
        if best is None or value > best[0]:
            best = (value, l2, accuracy, weight.detach().clone(), bias.detach().clone())
    assert best is not None
    _, l2, accuracy, weight_KD, bias_K = best
    with torch.no_grad():  # the layer sees the features as they are
        weight_KD = weight_KD / deviation
        bias_K = bias_K - weight_KD @ mean
        layer.weight.copy_(weight_KD)
        if layer.bias is not None:
            layer.bias.copy_(bias_K)
    return Probe(l2, num_images, layer.in_features, accuracy)


def _standardisation(values: Tensor, num_images: int, world: World) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the features of all ranks; features that are constant have deviation 1."""
    mean = world.sum(values.double().sum(0)) / num_images
    variance = world.sum((values.double() - mean).square().sum(0)) / num_images
    if not torch.isfinite(variance).all():
        raise ValueError("features of the last layer are not finite; check the weights under teacher.start")
    constant = variance <= 1e-12 * variance.max().clamp(min=1e-30)
    return mean.float(), torch.where(constant, 1.0, variance.sqrt()).float()


def _minimise(
    weight: Tensor,
    bias: Tensor,
    train: Features,
    num_images: int,
    world: World,
    l2: float,
    class_weights: Tensor | None,
) -> None:
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=NUM_ITERATIONS, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = torch.zeros((), device=weight.device)
        for rows, labels in zip(train.values.split(ROWS), train.labels.split(ROWS), strict=True):
            part = (
                F.cross_entropy(rows @ weight.T + bias, labels, class_weights, reduction="sum") / num_images
            )
            part.backward()
            loss += part.detach()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in (weight, bias)]
        flat = world.sum(torch.cat([loss[None], *(g.flatten() for g in gradients)]))
        loss, of_weight, of_bias = flat.split([1, weight.numel(), bias.numel()])
        with torch.no_grad():
            weight.grad = of_weight.view_as(weight) + l2 * weight
            bias.grad = of_bias.clone()
            return loss[0] + l2 / 2 * weight.square().sum()

    optimiser.step(closure)


@torch.no_grad()
def accuracy_of_layer(val: Features, weight: Tensor, bias: Tensor, world: World) -> Accuracy:
    """Return the accuracy of a layer with this weight (K, D) and bias (K) on features of all ranks."""
    logits = val.values @ weight.T + bias
    predicted, labels = (tensor.cpu().numpy() for tensor in (logits.argmax(1), val.labels))
    counts = ClassCounts.of(labels, predicted, num_classes=len(bias))
    loss = F.cross_entropy(logits, val.labels, reduction="sum").double()
    columns = torch.from_numpy(np.stack([counts.correct, counts.true, counts.predicted])).double()
    total = world.sum(torch.cat([columns.flatten().to(world.device), loss[None]])).cpu().numpy()
    return Accuracy.of(ClassCounts(*total[:-1].reshape(3, -1)), images_per_s=0.0, loss=float(total[-1]))


def freeze_up_to(network: nn.Module, last: str, call: Callable[[], object]) -> list[nn.Module]:
    """Freeze the modules that begin before the submodule `last` ends, and return them.

    Args:
        call: runs the network once.

    Frozen modules keep their parameters and, in evaluation mode, their statistics.
    """
    begun: list[nn.Module] = []
    has_ended = False

    def begin(module: nn.Module, _: object) -> None:
        if not has_ended:
            begun.append(module)

    def end(*_: object) -> None:
        nonlocal has_ended
        has_ended = True

    handles = [module.register_forward_pre_hook(begin) for module in network.modules()]
    handles.append(network.get_submodule(last).register_forward_hook(end))
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    for module in begun:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
    return list(dict.fromkeys(begun))
