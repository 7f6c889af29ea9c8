"""From uint8 to what networks take: mirrored, normalised, rounded."""

from __future__ import annotations

import pytest
import torch

from fourds_dist.data.stream.batch import normalise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_images_are_flipped_by_mask_and_normalised(channels_last: bool, dtype: torch.dtype) -> None:
    images = torch.randint(
        0, 256, (3, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    images = images.contiguous(memory_format=torch.channels_last)
    before = images.clone()
    flip = torch.tensor([True, False, True])
    got = normalise(images, flip, mean=MEAN, std=STD, channels_last=channels_last, dtype=dtype)
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
    expected = (images / 255 - mean) / std
    expected[flip] = expected[flip].flip(-1)
    assert got.dtype == dtype
    assert got.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    torch.testing.assert_close(
        got, expected.to(dtype), rtol=2**-8 if dtype == torch.bfloat16 else 1e-5, atol=1e-6
    )
    exact = normalise(images, flip, mean=MEAN, std=STD, channels_last=channels_last)
    assert torch.equal(got, exact.to(dtype))  # computed in float32 and rounded once
    assert torch.equal(images, before)
