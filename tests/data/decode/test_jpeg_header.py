"""Headers of JPEGs, and which files a GPU's engine decodes as libjpeg does."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from fourds_dist.data.decode.jpeg_header import (
    HEAD_BYTES,
    JpegHeader,
    _plain_header,
    _segments,
    jpeg_header,
    plain_header,
)


def jpeg(
    mode: str = "RGB", size: tuple[int, int] = (6, 4), orientation: int | None = None, **options
) -> bytes:
    out = io.BytesIO()
    if orientation is not None:
        exif = Image.Exif()
        exif[0x010F] = "a camera"
        exif[0x0112] = orientation
        options["exif"] = exif
    Image.new(mode, size, 80).save(out, "JPEG", **options)
    return out.getvalue()


def test_size_components_and_sampling() -> None:
    header = jpeg_header(jpeg(subsampling="4:2:0"))
    assert header
    assert header == JpegHeader(4, 6, True, (1, 2, 3), ((2, 2), (1, 1), (1, 1)), (0, 1, 1))
    assert (header.num_components, header.num_pixels) == (3, 24)


@pytest.mark.parametrize(
    ("file", "suits"),
    [
        (jpeg(subsampling="4:4:4"), True),
        (jpeg(subsampling="4:2:2"), True),
        (jpeg(mode="L"), True),
        (jpeg(orientation=1), True),
        (jpeg(orientation=6), False),
        (jpeg(orientation=9), True),
        (jpeg(progressive=True), False),
        (jpeg(mode="CMYK"), False),
        (jpeg(keep_rgb=True), False),
    ],
    ids=["444", "422", "grey", "upright", "rotated", "no such orientation", "progressive", "cmyk", "rgb"],
)
def test_what_suits_the_engine(file: bytes, suits: bool) -> None:
    header = jpeg_header(file)
    assert header
    assert header.suits_jpeg_engine == suits


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_orientation_is_that_of_pillow(order: str) -> None:
    exif = Image.Exif()
    exif.endian = order
    exif[0x0112] = 8
    header = jpeg_header(jpeg(exif=exif))
    assert header
    assert header.orientation == 8


def test_a_broken_exif_segment_counts_as_upright() -> None:
    whole = jpeg(orientation=6)
    at = whole.index(b"Exif\0\0") + 6
    for cut in (b"XX", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"):
        header = jpeg_header(whole[:at] + cut + whole[at + len(cut) :])
        assert header
        assert header.orientation in (1, 6)


@pytest.mark.parametrize(
    "file", [b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", jpeg()[:30], b"\xff\xd8" + b"\xff" * 99]
)
def test_other_files_have_no_header(file: bytes) -> None:
    assert jpeg_header(file) is None


def test_a_header_of_12_bits_is_none() -> None:
    file = bytearray(jpeg())
    file[file.index(b"\xff\xc0") + 4] = 12
    assert jpeg_header(bytes(file)) is None


def without(file: bytes, marker: int) -> bytes:
    """The file without its first segment of a marker."""
    at = file.index(bytes([0xFF, marker]))
    return file[:at] + file[at + 2 + int.from_bytes(file[at + 2 : at + 4]) :]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_plain_scan_has_its_tables(mode: str) -> None:
    file = jpeg(mode)
    assert plain_header(file) == jpeg_header(file) is not None
    assert plain_header(without(file, 0xDB)) is None
    assert plain_header(without(file, 0xC4)) is None
    assert plain_header(file[: file.index(b"\xff\xda")]) is None


def test_scans_of_single_components_are_not_plain() -> None:
    file = bytearray(jpeg())
    assert plain_header(bytes(file)) is not None
    file[file.index(b"\xff\xda") + 4] = 1
    assert jpeg_header(bytes(file)) is not None
    assert plain_header(bytes(file)) is None


def test_heads_that_files_share_decide_as_whole_files_do() -> None:
    plain, large = jpeg(subsampling="4:2:0"), jpeg(size=(60, 40))
    scan = plain.index(b"\xff\xda")
    comment = b"\xff\xfe\x00\x0a" + b"\xff\xda\x00\x0c1234"  # a segment that holds the marker of a scan
    long = b"\xff\xfe" + (HEAD_BYTES).to_bytes(2, "big") + bytes(HEAD_BYTES - 2)
    files = [
        *(plain, large, jpeg(mode="L"), jpeg(progressive=True), jpeg(orientation=6), without(plain, 0xDB)),
        *(plain[:2] + part + plain[2:] for part in (comment, long, comment + long)),
        *(plain[: scan + size] for size in (0, 2, 3, 5, 13, 14, 15)),
        *(plain[:-40] + bytes(40), b"", plain[:1], plain[1:]),
    ]
    for file in files * 2:  # the second time, heads are known
        expected = _plain_header(file, list(_segments(file)))
        assert plain_header(file) == plain_header(memoryview(file)) == expected
    assert plain_header(plain) != plain_header(large)
