"""Keys of the augmentation: bounds, and what is on."""

from __future__ import annotations

from typing import Any

import pytest

from fourds_dist.data.augment.config import AugmentConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hue": 0.6}, "less than or equal to 0.5"),
        ({"brightness": -0.1}, "greater than or equal to 0"),
        ({"contrast": float("nan")}, "less than or equal to 10"),
        ({"saturation": float("inf")}, "less than or equal to 10"),
        ({"policy": "autoaugment"}, "'none', 'trivial_augment' or 'rand_augment'"),
        ({"rand_augment_magnitude": 31}, "less than or equal to 30"),
        ({"rand_augment_ops": 0}, "greater than or equal to 1"),
        ({"erasing_probability": 1.1}, "less than or equal to 1"),
        (
            {"erasing_scale": (0.4, 0.3)},
            r"erasing_scale \(\[0\.4, 0\.3\]\) takes two numbers, the lower one first",
        ),
        ({"erasing_ratio": (0.0, 3.3)}, "greater than or equal to 0.01"),
        ({"mixup_alpha": 1e-9}, r"mixup_alpha \(1e-09\) is below 0\.001; set 0 to switch the mixing off"),
        ({"cutmix_alpha": -1}, "greater than or equal to 0"),
        ({"mixup": 1}, "mixup"),
    ],
)
def test_bounds(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**values)


def test_what_is_on() -> None:
    assert not AugmentConfig().changes_images
    assert not AugmentConfig(mixup_alpha=1.0, mix_probability=0.0).changes_images
    assert not AugmentConfig(rand_augment_ops=3).changes_images
    on: list[dict[str, Any]] = [
        {"hue": 0.1},
        {"policy": "rand_augment"},
        {"erasing_probability": 0.1},
        {"cutmix_alpha": 1.0},
    ]
    assert all(AugmentConfig(**values).changes_images for values in on)
    assert AugmentConfig(hue=0.1, contrast=0.2).jitters == {"contrast": 0.2, "hue": 0.1}
