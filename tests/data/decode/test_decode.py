"""Decoding: the right pixels from the right place, for every format people have, and a clear refusal of the rest."""

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image

from fourds_dist.data.decode import decode as module
from fourds_dist.data.decode.crop_box import crop_box
from fourds_dist.data.decode.decode import decode, decoded_whole, encoded_tensor


def picture(width=96, height=64) -> Image.Image:
    """Left half red, right half blue, with a green stripe on top: turns and mirrors show."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = (200, 20, 20)
    pixels[:, width // 2 :] = (20, 20, 200)
    pixels[: height // 4] = (20, 200, 20)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def whole(data: bytes, px: int = 32) -> np.ndarray:
    pixels = decode(data, resize_px=px, crop_px=px, place=(0.5, 0.5))
    assert pixels.shape == (3, px, px)
    assert pixels.dtype == torch.uint8
    return pixels.permute(1, 2, 0).numpy().astype(int)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


PLAIN = picture()
TURNED = PLAIN.transpose(Image.Transpose.ROTATE_90)
MIRRORED = PLAIN.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
FORMATS = {
    "jpeg": encoded(PLAIN, "JPEG", quality=95, subsampling=0),
    "progressive jpeg": encoded(PLAIN, "JPEG", quality=95, subsampling=0, progressive=True),
    "cmyk jpeg": encoded(PLAIN.convert("CMYK"), "JPEG", quality=95),
    "png": encoded(PLAIN, "PNG"),
    "palette png": encoded(PLAIN.quantize(16), "PNG"),
    "opaque rgba png": encoded(PLAIN.convert("RGBA"), "PNG"),
    "webp": encoded(PLAIN, "WEBP", lossless=True),
    "bmp": encoded(PLAIN, "BMP"),
    "gif": encoded(PLAIN, "GIF"),
    "tiff": encoded(PLAIN, "TIFF"),
    "turned jpeg": encoded(TURNED, "JPEG", quality=95, subsampling=0, exif=exif(6)),
    "turned png": encoded(TURNED, "PNG", exif=exif(6)),
    "mirrored webp": encoded(MIRRORED, "WEBP", lossless=True, exif=exif(2)),
}


@pytest.mark.parametrize("data", FORMATS.values(), ids=FORMATS.keys())
def test_formats(data):
    pixels = whole(data)
    for (row, column), colour in {(2, 16): 1, (24, 6): 0, (24, 26): 2}.items():
        assert pixels[row, column].argmax() == colour
        assert pixels[row, column].max() > 150
        assert np.sort(pixels[row, column])[1] < 70


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_grey_images(format):
    pixels = whole(encoded(Image.new("L", (40, 30), 120), format))
    assert np.abs(pixels - 120).max() <= 2


def test_sixteen_bits_are_scaled_not_cut_off():
    data = encoded(Image.fromarray(np.full((20, 20), 30000, np.uint16)), "PNG")
    assert np.abs(whole(data) - 30000 / 257).max() <= 1


def test_sixteen_bits_of_one_data_set_have_one_scale():
    """Two images that differ in one pixel must not differ 256-fold, as when each is scaled by its largest value."""
    for top in (255, 256):
        values = np.full((32, 32), 200, np.uint16)
        values[0, 0] = top
        data = encoded(Image.fromarray(values), "PNG")
        alike = decode(data, resize_px=32, crop_px=32, place=(0.5, 0.5), grey_range=(0, 4095))
        assert (alike[:, 1:] == round(200 * 255 / 4095)).all()


def test_transparency_is_laid_over_white():
    clear = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    assert (whole(encoded(clear, "PNG")) == 255).all()
    marked = Image.new("P", (20, 20), 0)
    marked.putpalette([0, 0, 0, 255, 0, 0])
    assert (whole(encoded(marked, "PNG", transparency=0)) == 255).all()


def test_the_same_as_resizing_and_cropping():
    """Crop first, then resize, gives what resize and crop give, here where the crop has whole edges."""
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    image = Image.fromarray(noise).resize((384, 320), Image.Resampling.BICUBIC)
    resized = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    for place, (top, left) in {(0.0, 0.0): (0, 0), (1.0, 0.5): (16, 8), (0.5, 1.0): (8, 16)}.items():
        pixels = decode(encoded(image, "PNG"), resize_px=64, crop_px=48, place=place)
        reference = resized[top : top + 48, left : left + 48]
        # Without the edge, across which the released form interpolates.
        inner = np.abs(pixels.permute(1, 2, 0).numpy().astype(int) - reference)[2:-2, 2:-2]
        assert inner.mean() < 0.5


def test_pixels_of_the_wanted_size_are_left_as_they_are():
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    data = encoded(Image.fromarray(noise), "PNG")
    assert (whole(data) == noise).all()
    corner = decode(data, resize_px=32, crop_px=24, place=(1.0, 0.0)).permute(1, 2, 0).numpy()
    assert (corner == noise[8:, :24]).all()


@pytest.mark.parametrize("px", [48, 64, 96])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_crop_is_written_into_memory_of_the_caller(px, orientation):
    """The memory of a batch's row and planes by colour hold what torchvision's and PyTorch's own functions return."""
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    image = Image.fromarray(noise).resize((96, 64), Image.Resampling.BICUBIC)
    data = encoded(image, "JPEG", quality=93, exif=exif(orientation))
    read = torchvision.io.decode_jpeg(encoded_tensor(data), mode="RGB", apply_exif_orientation=True)
    top, left, tall, wide = crop_box(*read.shape[1:], resize_px=px, crop_px=px - 8, place=(0.3, 0.6))
    crop_1CHW = read[None, :, top : top + tall, left : left + wide].contiguous(
        memory_format=torch.channels_last
    )
    expected = F.interpolate(crop_1CHW, (px - 8, px - 8), mode="bilinear", antialias=True)[0]
    row = torch.zeros(2, px - 8, px - 8, 3, dtype=torch.uint8)[1].permute(2, 0, 1)
    for out in (row, torch.zeros(3, px - 8, px - 8, dtype=torch.uint8)):
        assert decode(data, resize_px=px, crop_px=px - 8, place=(0.3, 0.6), out=out) is out
        assert torch.equal(out, expected)
    assert torch.equal(decode(data, resize_px=px, crop_px=px - 8, place=(0.3, 0.6)), expected)


def test_large_jpegs_are_decoded_at_a_fraction_of_their_size():
    large = picture(1600, 1200)
    pixels = whole(encoded(large, "JPEG", quality=95))
    reference = np.asarray(large.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(pixels - reference).mean() < 3


def test_every_format_of_jpegs_is_decoded_at_a_fraction():
    large = picture(1600, 1200)
    for data in (
        encoded(large, "MPO", save_all=True, append_images=[large]),
        encoded(large, "JPEG"),
        encoded(large.convert("CMYK"), "JPEG"),
    ):
        assert decoded_whole(data, 100).shape == (3, 150, 200)


BROKEN = {
    "nothing": b"",
    "no image": b"hello, this is text" * 20,
    "jpeg cut in the middle": FORMATS["jpeg"][: len(FORMATS["jpeg"]) // 2],
    "jpeg cut after its header": FORMATS["jpeg"][:30],
    "png cut in the middle": FORMATS["png"][: len(FORMATS["png"]) // 2],
    "png with a wrong checksum": FORMATS["png"][:60] + b"\0\0\0\0" + FORMATS["png"][64:],
    "webp cut in the middle": FORMATS["webp"][: len(FORMATS["webp"]) // 2],
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_broken_images_are_refused(data):
    with pytest.raises(ValueError, match=r"\w"):
        whole(data)


def test_decompression_bombs_are_refused(monkeypatch):
    monkeypatch.setattr(module, "MOST_PIXELS", 1000)
    with pytest.raises(ValueError, match="96 x 64 pixels are more than 1000"):
        whole(FORMATS["png"])


def test_a_real_bomb_is_refused_unread():
    bomb = encoded(Image.new("1", (20000, 20000)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(ValueError, match="bomb"):
        whole(bomb)
