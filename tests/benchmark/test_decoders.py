"""JPEG decoders of `benchmark data`: all give the same crop, and their speeds are counted in images."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fourds_dist.benchmark import decoders


def test_decoders_agree(folder):
    file = next((folder / "folder").glob("*/*.jpg")).read_bytes()
    found = {name: decoders.cropped(decode(file)).float() for name, decode in decoders.decoders().items()}
    assert len(found) >= 2
    for name, pixels in found.items():
        assert pixels.shape == (3, 224, 224)
        assert (pixels - found["Pillow"]).abs().mean() < 1.5, name


def test_the_whole_image_is_resized_then_cropped() -> None:
    left, right = Image.new("RGB", (250, 375), (200, 0, 0)), Image.new("RGB", (500, 375), (0, 0, 200))
    right.paste(left)
    out = io.BytesIO()
    right.save(out, "PNG")
    pixels = decoders.pillow_whole(out.getvalue())
    assert pixels.shape == (224, 224, 3)
    # The edge at half of 256 px is at 128 - 19 of the crop.
    assert np.array_equal(pixels[:, 100], np.tile([200, 0, 0], (224, 1)))
    assert np.array_equal(pixels[:, 118], np.tile([0, 0, 200], (224, 1)))


def test_arrays_and_tensors_are_cropped_alike() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    by_tensor = decoders.cropped(torch.from_numpy(pixels).permute(2, 0, 1))
    assert torch.equal(decoders.cropped(pixels), by_tensor)
    assert by_tensor.shape == (3, 224, 224)


def test_a_speed_is_that_of_the_fastest_round(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, calls = [0.0], [0]

    def work(_: bytes) -> None:
        calls[0] += 1
        now_s[0] += 1.0 if calls[0] <= 3 else 0.25  # the first round is slow

    monkeypatch.setattr(decoders.time, "thread_time", lambda: now_s[0])
    assert decoders.measure({"a": work}, [b"x"] * 3) == {"a": pytest.approx(4.0)}
    assert calls[0] == 3 * decoders.NUM_ROUNDS
