"""Operations with a parameter per image give what torchvision gives for each image alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from fourds_dist.data.augment.draws import _space
from fourds_dist.data.augment.operations import NUM_PARAMETERS, Operation, operate

NUM_IMAGES = 5


def images(side: int = 24) -> Tensor:
    """Random images, smooth enough to have edges, and one of a single colour."""
    small = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, 3, 7, 7), np.uint8))
    result = F.resize(small, [24, 24])
    result[-1] = 90
    return result[..., :side, :side].contiguous()


def rows(*values: float) -> Tensor:
    parameters = torch.zeros(len(values), NUM_PARAMETERS)
    parameters[:, 0] = torch.tensor(values)
    return parameters


FACTORS = (0.1, 0.7, 1.0, 1.6, 1.99)
CASES: dict[Operation, tuple[tuple[float, ...], Callable[[Tensor, float], Tensor]]] = {
    Operation.BRIGHTNESS: (FACTORS, F.adjust_brightness),
    Operation.CONTRAST: (FACTORS, F.adjust_contrast),
    Operation.SATURATION: (FACTORS, F.adjust_saturation),
    Operation.SHARPNESS: (FACTORS, F.adjust_sharpness),
    Operation.HUE: ((-0.5, -0.21, 0.0, 0.13, 0.5), F.adjust_hue),
    Operation.POSTERIZE: ((128.0, 192.0, 240.0, 254.0, 255.0), lambda x, mask: F.posterize(x, int(mask).bit_count())),
    Operation.SOLARIZE: ((0.0, 25.5, 127.5, 200.0, 255.0), F.solarize),
    Operation.AUTOCONTRAST: ((0.0,) * 5, lambda x, _: F.autocontrast(x)),
    Operation.EQUALIZE: ((0.0,) * 5, lambda x, _: F.equalize(x)),
    Operation.NOTHING: ((0.0,) * 5, lambda x, _: x),
}  # fmt: skip


@pytest.mark.parametrize("operation", CASES, ids=lambda o: o.name.lower())
@pytest.mark.parametrize("side", [24, 2, 1])
def test_operations_equal_torchvision_s(operation: Operation, side: int) -> None:
    values, reference = CASES[operation]
    before = images(side)
    batch = before.clone()
    found = operate(operation, batch, rows(*values))
    assert torch.equal(batch, before)
    assert found.dtype == torch.uint8
    expected = torch.stack([reference(x, value) for x, value in zip(before, values, strict=True)])
    difference = (found.int() - expected.int()).abs()
    assert difference.max() <= 1  # where the sum of two products is rounded before it is cut off
    assert (difference > 0).float().mean() < 0.02


def test_matrices_move_images_as_torchvision_does() -> None:
    batch, side = images(), 24
    level, sign = np.array([0.0, 0.2, 0.5, 0.9, 1.0]), np.array([1.0, -1.0, 1.0, -1.0, 1.0])
    space = _space(level, sign, side, 0.99, 32.0, 135.0, 0.99, 6)
    slopes, pixels, degrees = sign * level * 0.99, np.trunc(sign * level * 32), sign * level * 135

    def affine(x: Tensor, shear: tuple[float, float] = (0, 0), by: tuple[float, float] = (0, 0)) -> Tensor:
        angles = [math.degrees(math.atan(s)) for s in shear]
        centre = [0.0, 0.0] if any(shear) else None
        return F.affine(x, angle=0.0, translate=list(by), scale=1.0, shear=angles, center=centre)

    references: list[Callable[[int], Tensor]] = [
        lambda i: affine(batch[i], shear=(slopes[i], 0)),
        lambda i: affine(batch[i], shear=(0, slopes[i])),
        lambda i: affine(batch[i], by=(pixels[i], 0)),
        lambda i: affine(batch[i], by=(0, pixels[i])),
        lambda i: F.rotate(batch[i], angle=degrees[i]),
    ]
    for (operation, parameters), reference in zip(space, references, strict=False):
        assert operation == Operation.AFFINE
        found = operate(operation, batch, torch.from_numpy(parameters.astype(np.float32)))
        expected = torch.stack([reference(i) for i in range(NUM_IMAGES)])
        # Places on the border of two pixels may fall to either side.
        assert (found != expected).any(1).float().mean() < 0.03


@pytest.mark.parametrize("operation", Operation, ids=lambda o: o.name.lower())
def test_an_image_does_not_depend_on_the_others(operation: Operation) -> None:
    batch = images()
    parameters = torch.rand(NUM_IMAGES, NUM_PARAMETERS, generator=torch.Generator().manual_seed(0))
    together = operate(operation, batch, parameters)
    for i in range(NUM_IMAGES):
        assert torch.equal(together[i : i + 1], operate(operation, batch[i : i + 1], parameters[i : i + 1]))
