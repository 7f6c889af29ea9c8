"""Conversion of a batch to the size and the normalisation of a network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fourds_dist.data.stream.batch import normalise
from fourds_dist.data.stream.config import DataConfig
from fourds_dist.data.stream.network_input import InputConversion, NetworkInput, resized

DATA = DataConfig(resize_px=36, crop_px=32)
BATCHES = NetworkInput.of_data(DATA)
NORMALISATIONS: list[dict[str, Any]] = [
    {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
    {"mean": (0.485, 0.456, 0.406), "std": (1 / 255, 1 / 255, 1 / 255)},
    {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)},
]


def crops(size: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8, generator=generator)


def normalised(pixels: Tensor, **of: Any) -> Tensor:
    return normalise(pixels, torch.tensor([False, True, False]), **of)


def of_batch(**more: Any) -> Tensor:
    return normalised(crops(), mean=DATA.mean, std=DATA.std, **more)


@pytest.mark.parametrize("own", NORMALISATIONS)
def test_the_conversion_equals_normalisation_by_the_network_s_values(own: dict[str, Any]) -> None:
    conversion = InputConversion(BATCHES, NetworkInput(32, **own))
    expected = normalised(crops(), **own)
    torch.testing.assert_close(
        conversion(of_batch()), expected, rtol=1e-5, atol=2e-6 * expected.abs().max().item()
    )


@pytest.mark.parametrize("side", [8, 20, 31, 32, 33, 56])
@pytest.mark.parametrize("own", NORMALISATIONS[:2])
def test_another_size_is_the_antialiased_resize_of_the_normalised_crop(
    side: int, own: dict[str, Any]
) -> None:
    conversion = InputConversion(BATCHES, NetworkInput(side, **own))
    expected = F.interpolate(
        normalised(crops(), **own), size=(side, side), mode="bilinear", antialias=True, align_corners=False
    )
    torch.testing.assert_close(conversion(of_batch()), expected, rtol=1e-5, atol=1e-5)


def test_equal_values_need_no_conversion() -> None:
    assert NetworkInput(32, DATA.mean, DATA.std).conversion(BATCHES) is None
    assert NetworkInput(31, DATA.mean, DATA.std).conversion(BATCHES) is not None
    assert NetworkInput(32, DATA.std, DATA.std).conversion(BATCHES) is not None
    images = of_batch()
    assert resized(images, 32) is images


@pytest.mark.parametrize("side", [20, 32, 56])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_memory_format_stays(side: int, channels_last: bool) -> None:
    conversion = InputConversion(BATCHES, NetworkInput(side, **NORMALISATIONS[0]))
    images = conversion(of_batch(channels_last=channels_last))
    memory = torch.channels_last if channels_last else torch.contiguous_format
    assert images.is_contiguous(memory_format=memory)
    assert images.dtype == torch.float32


def test_a_batch_on_the_meta_device_has_the_network_s_shape() -> None:
    conversion = InputConversion(BATCHES, NetworkInput(20, **NORMALISATIONS[0]))
    assert conversion(torch.zeros(2, 3, 32, 32, device="meta")).shape == (2, 3, 20, 20)


@pytest.mark.gpu
@pytest.mark.parametrize("side", [20, 32, 56])
def test_the_conversion_on_a_gpu_equals_that_on_the_cpu(side: int) -> None:
    conversion = InputConversion(BATCHES, NetworkInput(side, **NORMALISATIONS[0]))
    images = of_batch(channels_last=True)
    on_gpu = conversion(images.cuda())
    assert on_gpu.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(on_gpu.cpu(), conversion(images), rtol=1e-5, atol=1e-5)
