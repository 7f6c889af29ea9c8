"""The rule by which values become 8-bit RGB, over the kinds of images that there are."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fourds_dist.data.decode.pixels import deep_values, own_range, rgb
from tests.data.deep_images import encoded, pgm, png16, tiff

RAMP = np.linspace(0, 1, 48).reshape(6, 8)
RANDOM = np.random.default_rng(0)
UP_TO_12_BITS = np.round(RAMP * 4095)


def words(channels: int, top: int = 65535) -> np.ndarray:
    return RANDOM.integers(0, top + 1, (6, 8, channels)).astype(np.uint16)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_both_bytes_of_16_bit_png(channels) -> None:
    values = words(channels)
    read, opacity, is_negative, _ = deep_values(png16(values))
    colours = values[..., :-1] if channels in (2, 4) else values
    assert (read == colours).all()
    assert not is_negative
    expected = values[..., -1:] / 65535 if channels in (2, 4) else 1
    assert (opacity == expected).all()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("type_", ["u2", "i2", "i4", "f4", "i1"])
def test_grey_tiffs_of_every_type(type_, order) -> None:
    signed = np.linspace(-100, 120, 48).reshape(6, 8, 1) + (100 if type_ == "u2" else 0)
    read, *_ = deep_values(tiff(signed.astype(type_), order))
    assert (read == signed.astype(type_)).all()


def test_unsigned_32_bits_above_the_signed_ones() -> None:
    values = np.full((2, 2, 1), 4_000_000_000, np.uint32)
    assert (deep_values(tiff(values))[0] == 4_000_000_000).all()


@pytest.mark.parametrize("order", ["<", ">"])
def test_colour_tiffs_of_16_bits(order) -> None:
    values = words(3)
    assert (deep_values(tiff(values, order))[0] == values).all()
    values = words(4)
    read, opacity, *_ = deep_values(tiff(values, order, {338: (3, [2])}))
    assert (read == values[..., :3]).all()
    assert (opacity == values[..., 3:] / 65535).all()


def test_colours_times_opacity_are_divided_by_it() -> None:
    values = np.array([[[10000, 20000, 30000, 32768]]], np.uint16)
    read, opacity, *_ = deep_values(tiff(values, fields={338: (3, [1])}))
    np.testing.assert_allclose(read * opacity, values[..., :3])


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiffs(compression) -> None:
    values = words(1, 4095)[..., 0]
    data = encoded(Image.fromarray(values), "TIFF", compression=compression)
    assert (deep_values(data)[0][..., 0] == values).all()


def test_a_range_holds_for_every_image_alike() -> None:
    """Two images that differ in one pixel are decoded alike, whatever their largest values are."""
    for top in (255, 256, 4000):
        values = np.full((6, 8, 1), 200, np.uint16)
        values[0, 0] = top
        assert rgb(png16(values), (0, 4095))[1, 1].tolist() == [round(200 * 255 / 4095)] * 3


@pytest.mark.parametrize(
    ("data", "grey_range"),
    [
        (png16(UP_TO_12_BITS[..., None]), (0, 4095)),
        (png16(np.repeat(UP_TO_12_BITS[..., None], 3, 2)), (0, 4095)),
        (tiff((UP_TO_12_BITS - 1024)[..., None].astype(np.int32)), (-1024, 3071)),
        (tiff(RAMP[..., None].astype(np.float32)), (0, 1)),
        (tiff(RAMP[..., None].astype(np.float32)), None),
        (tiff((4095 - UP_TO_12_BITS)[..., None].astype(np.uint16), fields={262: (3, [0])}), (0, 4095)),
        (png16(np.round(RAMP[..., None] * 65535)), None),
        (png16(UP_TO_12_BITS[..., None], {b"sBIT": b"\x0c"}), None),
        (png16(np.repeat(UP_TO_12_BITS[..., None], 3, 2), {b"sBIT": b"\x0c\x0b\x0c"}), None),
        (tiff(UP_TO_12_BITS[..., None].astype(np.uint16), fields={281: (3, [4095])}), None),
        (pgm(UP_TO_12_BITS, 4095), None),
        (pgm(UP_TO_12_BITS, 4095), (0, 4095)),
    ],
)  # fmt: skip
def test_values_are_scaled_from_their_range(data, grey_range) -> None:
    pixels = rgb(data, grey_range)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.round(RAMP * 255)[..., None]).max() <= 1


def test_values_outside_of_the_range_are_clipped() -> None:
    pixels = rgb(png16(UP_TO_12_BITS[..., None]), (1000, 2000))
    assert (pixels[UP_TO_12_BITS <= 1000] == 0).all()
    assert (pixels[UP_TO_12_BITS >= 2000] == 255).all()


@pytest.mark.parametrize(
    ("values", "grey_range", "kind"),
    [
        (np.array([[0.0, 0.5, 1.0]], "f4"), (0, 65535), "float values of 0 to 1"),
        (np.array([[0.0, 0.01]], "f4"), (-1024, 3071), "float values of 0 to 1"),
        (np.array([[0, 4095]], "u2"), (0, 1), "integer values up to 4095"),
        (np.array([[-1024, 2]], "i4"), (0.0, 0.5), "integer values up to 2"),
    ],
)
def test_values_of_another_scale_than_the_range_s_are_refused(values, grey_range, kind) -> None:
    with pytest.raises(
        ValueError, match=rf"has {kind}, but .* grey range {grey_range[0]:g} to {grey_range[1]:g}"
    ):
        rgb(tiff(values[..., None]), grey_range)


@pytest.mark.parametrize(
    ("values", "grey_range"),
    [
        (np.zeros((2, 2), "f4"), (0, 65535)),  # a black image is black on any scale
        (np.array([[0.0, 40.0]], "f4"), (0, 65535)),
        (np.array([[0.0, 0.5]], "f4"), (0, 1)),
        (np.array([[0, 1]], "u2"), (0, 65535)),  # a dark image of integers
    ],
)
def test_values_of_the_range_s_scale_are_read(values, grey_range) -> None:
    assert rgb(tiff(values[..., None]), grey_range).shape == (*values.shape, 3)


def test_significant_bits_that_are_scaled_by_the_standard() -> None:
    """A dark image whose 12 bits stand in the upper bits of 16 is dark, though all its values are below 4096."""
    dark = (words(1, 200) << 4).astype(np.uint16)
    data = png16(dark, {b"sBIT": b"\x0c"})
    assert own_range(data, deep_values(data)[0]) == (0, 65535)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[[0.5], [np.nan]]], np.float32), "1 of its 2 values are NaN or infinite"),
        (np.array([[[0.5], [np.inf]]], np.float32), "NaN or infinite"),
    ],
)
def test_values_that_are_no_numbers(values, message) -> None:
    with pytest.raises(ValueError, match=message):
        rgb(tiff(values), (0, 1))


@pytest.mark.parametrize(
    "values", [np.array([[[-1024], [3071]]], np.int32), np.array([[[0], [200]]], np.float32)]
)
def test_an_unknown_range_is_not_guessed(values) -> None:
    with pytest.raises(ValueError, match=r"set data.grey_range"):
        rgb(tiff(values))


def test_transparency_of_16_bits_is_laid_over_white() -> None:
    clear = np.dstack([np.zeros((2, 2, 3)), np.full((2, 2, 1), 0)]).astype(np.uint16)
    assert (rgb(png16(clear)) == 255).all()
    marked = np.array([[[256], [512]]], np.uint16)
    assert rgb(png16(marked, {b"tRNS": b"\x01\x00"}), (0, 1024))[0, :, 0].tolist() == [255, 128]
    half = np.array([[[0, 32768]]], np.uint16)
    assert rgb(png16(half))[0, 0].tolist() == [127, 127, 127]


def test_the_orientation_is_applied() -> None:
    values = words(1)[..., 0]
    tags = Image.Exif()
    tags[0x0112] = 6
    turned = rgb(encoded(Image.fromarray(values), "PNG", exif=tags))
    assert (turned == np.rot90(rgb(encoded(Image.fromarray(values), "PNG")), -1)).all()
