"""Truncated images are found by their ends alone, and whole ones are not suspected."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fourds_dist.data.decode.decode import decode
from fourds_dist.data.files.truncation import truncation_of
from tests.data.deep_images import encoded, pgm, tiff

NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
PHOTO = Image.fromarray(NOISE)
THUMBNAIL = encoded(PHOTO.resize((32, 24)), "JPEG")


def with_thumbnail() -> bytes:
    """A JPEG whose header holds a whole JPEG, with an end of its own."""
    tags = b"Exif\0\0" + THUMBNAIL
    data = encoded(PHOTO, "JPEG", quality=95)
    return data[:2] + b"\xff\xe1" + (len(tags) + 2).to_bytes(2, "big") + tags + data[2:]


WHOLE = {
    "jpeg": encoded(PHOTO, "JPEG", quality=95),
    "progressive jpeg": encoded(PHOTO, "JPEG", quality=95, progressive=True),
    "jpeg with a thumbnail": with_thumbnail(),
    "mpo": encoded(PHOTO, "MPO", save_all=True, append_images=[PHOTO]),
    "png": encoded(PHOTO, "PNG"),
    "webp": encoded(PHOTO, "WEBP", lossless=True),
    "lossy webp": encoded(PHOTO, "WEBP"),
    "gif": encoded(PHOTO, "GIF"),
    "animated gif": encoded(PHOTO, "GIF", save_all=True, append_images=[PHOTO.rotate(90)]),
    "bmp": encoded(PHOTO, "BMP"),
    "tiff": encoded(PHOTO, "TIFF"),
    "compressed tiff": encoded(PHOTO, "TIFF", compression="tiff_lzw"),
    "16-bit tiff": tiff(NOISE.astype(np.uint16)),
    "ppm": encoded(PHOTO, "PPM"),
    "pbm": encoded(PHOTO.convert("1"), "PPM"),
    "16-bit pgm": pgm(NOISE[..., 0], 4095),
    "palette bmp": encoded(PHOTO.quantize(16), "BMP"),
}


def cause(path: Path, data: bytes) -> str | None:
    path.write_bytes(data)
    return truncation_of(path)


def opens(data: bytes) -> bool:
    try:
        Image.open(io.BytesIO(data))
    except (OSError, UserWarning):
        return False
    return True


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_images_are_whole(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    assert cause(path, WHOLE[kind]) is None
    assert cause(path, WHOLE[kind] + b"\0" * 700 + b"a trailer of the camera's own") is None


@pytest.mark.parametrize("kind", WHOLE)
def test_what_is_cut_off_before_its_end_is_found_where_decoding_fails(kind: str, tmp_path: Path) -> None:
    whole, path = WHOLE[kind], tmp_path / "image"
    for share in (0.3, 0.5, 0.9):
        part = whole[: int(len(whole) * share)]
        if "tiff" in kind and not opens(part):  # its directory is behind its pixels
            continue
        try:
            decode(part, resize_px=64, crop_px=64, place=(0.5, 0.5))
        except ValueError:
            assert (why := cause(path, part)) is not None
            assert "truncated" in why
        else:  # the first picture of several is whole
            assert kind in ("mpo", "animated gif")
            assert cause(path, part) is None


def test_a_jpeg_without_its_last_bytes_is_what_decoding_refuses(tmp_path: Path) -> None:
    assert cause(tmp_path / "a.jpg", WHOLE["jpeg"][:-2]) is not None
    with pytest.raises(ValueError, match="truncated"):
        decode(WHOLE["jpeg"][:-2], resize_px=64, crop_px=64, place=(0.5, 0.5))
