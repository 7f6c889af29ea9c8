"""Draws: functions of (seed, step, position), with the spaces of torchvision's policies."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import RandAugment, TrivialAugmentWide

from fourds_dist.data.augment.config import AugmentConfig
from fourds_dist.data.augment.draws import Draws, ImageDraws, _space, draw_images
from fourds_dist.data.augment.operations import Operation
from fourds_dist.data.seeds import generator

ALL = AugmentConfig(
    brightness=0.4,
    contrast=0.3,
    saturation=0.2,
    hue=0.1,
    policy="rand_augment",
    erasing_probability=0.5,
    mixup_alpha=0.2,
)


def drawn(config: AugmentConfig, num: int, rows: slice = slice(None), crop_px: int = 32) -> ImageDraws:
    partners = np.arange(num)[rows]
    return draw_images(
        config,
        crop_px,
        lambda purpose, n: generator(purpose, 5).random((num, n))[rows],
        partners - partners[0],
    )


def test_a_part_of_the_batch_has_its_part_of_the_draws() -> None:
    whole = drawn(ALL, 12)
    joined = ImageDraws.joined([drawn(ALL, 12, slice(0, 5)), drawn(ALL, 12, slice(5, 12))])
    for name in ("operations", "parameters", "erased", "partners"):
        assert (getattr(joined, name) == getattr(whole, name)).all()


@pytest.mark.parametrize(
    ("policy", "transform", "sizes"),
    [
        ("trivial_augment", TrivialAugmentWide, (0.99, 32.0, 135.0, 0.99, 6)),
        ("rand_augment", RandAugment, (0.3, 150 / 331 * 224, 30.0, 0.9, 4)),
    ],
)
def test_spaces_and_magnitudes_are_torchvision_s(policy: str, transform: type, sizes: tuple) -> None:
    levels = np.arange(31) / 30
    space = _space(levels, np.ones(31), 224, *sizes)
    reference = transform._AUGMENTATION_SPACE
    assert len(space) == len(reference)
    found = {operation: parameters for operation, parameters in space if operation != Operation.AFFINE}
    expected = {name: magnitudes(31, 224, 224) for name, (magnitudes, _) in reference.items()}
    names = {
        "Brightness": Operation.BRIGHTNESS,
        "Contrast": Operation.CONTRAST,
        "Color": Operation.SATURATION,
        "Sharpness": Operation.SHARPNESS,
    }
    for name, operation in names.items():
        np.testing.assert_allclose(found[operation][:, 0], 1 + expected[name].numpy(), rtol=1e-6)
    np.testing.assert_allclose(found[Operation.SOLARIZE][:, 0], 255 * expected["Solarize"].numpy(), atol=1e-4)
    bits = [int(mask).bit_count() for mask in found[Operation.POSTERIZE][:, 0]]
    assert bits == expected["Posterize"].tolist()
    shear_x, _, translate_x, _, rotate = (p for o, p in space if o == Operation.AFFINE)
    np.testing.assert_allclose(shear_x[:, 1], expected["ShearX"].numpy(), rtol=1e-6)
    assert (-translate_x[:, 2] == (expected["TranslateX"] + 1e-4).int().numpy()).all()
    np.testing.assert_allclose(
        np.arctan2(rotate[:, 3], rotate[:, 0]), np.radians(expected["Rotate"].numpy()), atol=1e-6
    )


def test_operations_and_magnitudes_are_uniform() -> None:
    draws = drawn(AugmentConfig(policy="trivial_augment"), 14_000)
    counts = Counter(draws.operations[:, 0].tolist())
    assert abs(counts[Operation.AFFINE] / 5000 - 1) < 0.1
    assert all(
        abs(counts[o] / 1000 - 1) < 0.15 for o in Operation if o not in (Operation.AFFINE, Operation.HUE)
    )
    factors = draws.parameters[draws.operations == Operation.BRIGHTNESS][:, 0]
    assert len(np.unique(factors)) == 61
    assert 0.01 <= factors.min() < factors.max() <= 1.99


def test_every_image_has_its_own_order_and_factors_of_colour_jitter() -> None:
    draws = drawn(AugmentConfig(brightness=0.4, contrast=1.5, saturation=0.2, hue=0.1), 2400)
    assert len({tuple(row) for row in draws.operations.tolist()}) == 24
    ranges = {"BRIGHTNESS": (0.6, 1.4), "CONTRAST": (0.0, 2.5), "SATURATION": (0.8, 1.2), "HUE": (-0.1, 0.1)}
    for name, (low, high) in ranges.items():
        values = draws.parameters[draws.operations == Operation[name]][:, 0]
        assert len(values) == 2400
        assert low <= values.min() < low + 0.01 * (high - low) + 1e-6
        assert high - 0.01 * (high - low) - 1e-6 < values.max() <= np.float32(high)


def test_erased_rectangles() -> None:
    config = AugmentConfig(erasing_probability=0.25, erasing_scale=(0.1, 0.2), erasing_ratio=(0.5, 2.0))
    top, left, height, width = drawn(config, 4000, crop_px=64).erased.T
    chosen = height > 0
    assert abs(chosen.mean() - 0.25) < 0.03
    area, ratio = (height * width / 64**2)[chosen], (height / np.maximum(width, 1))[chosen]
    assert 0.09 < area.min() < 0.11 < 0.19 < area.max() < 0.21
    assert 0.45 < ratio.min() < 0.6 < 1.7 < ratio.max() < 2.2
    assert ((top + height <= 64) & (left + width <= 64)).all()
    assert abs(((top + height / 2)[chosen]).mean() - 32) < 1.5


def test_rounds_group_images_by_operation() -> None:
    draws = Draws.of(drawn(ALL, 50), ALL, None)
    assert draws.partners is None
    assert len(draws.rounds) == 6
    images = drawn(ALL, 50)
    for r, round_ in enumerate(draws.rounds):
        begin = 0
        for operation, count in round_.groups:
            indices = round_.indices[begin : begin + count].numpy()
            assert (images.operations[indices, r] == operation).all()
            found = round_.parameters[begin : begin + count]
            assert torch.equal(found, torch.from_numpy(images.parameters[indices, r]))
            begin += count
        assert (images.operations[round_.indices[begin:].numpy(), r] == Operation.NOTHING).all()
