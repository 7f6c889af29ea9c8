"""Images that packing makes smaller: sizes, formats, orientation, colours, and what stays as it is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.example import Example
from fourds_dist.data.decode.pixels import rgb
from fourds_dist.data.format.index import ShardIndex
from fourds_dist.data.format.manifest import read_manifest
from fourds_dist.data.pack.console import show
from fourds_dist.data.pack.scaling import Scaling, scaled, scaled_domain
from fourds_dist.data.pack.verify import verify
from fourds_dist.data.pack.writer import pack_domain

SMALL = Scaling(max_side=40)


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A smooth picture: dark to bright from left to right, and green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def result(data: bytes, scaling: Scaling = SMALL) -> tuple[np.ndarray, Image.Image, str]:
    """Pixels, image and extension of the scaled image."""
    done, kind = scaled(data, scaling)
    assert done is not None
    assert kind == "scaled"
    return rgb(done[0]), Image.open(io.BytesIO(done[0])), done[1]


@pytest.mark.parametrize(
    ("kind", "written", "extension"),
    [
        ("JPEG", "JPEG", "jpg"),
        ("PNG", "PNG", "png"),
        ("WEBP", "WEBP", "webp"),
        ("BMP", "PNG", "png"),
        ("TIFF", "PNG", "png"),
    ],
)
def test_proportions_and_pixels_stay(kind: str, written: str, extension: str) -> None:
    pixels, image, found = result(encoded(picture(400, 300), kind))
    assert (image.size, image.format, found) == ((40, 30), written, extension)
    expected = np.array(picture(400, 300).resize((40, 30), Image.Resampling.BOX)).astype(int)
    assert np.abs(pixels.astype(int) - expected)[2:-2, 2:-2].max() <= 8


def test_images_of_that_size_are_copied() -> None:
    assert scaled(encoded(picture(40, 17)), SMALL) == (None, "copied")
    assert result(encoded(picture(41, 1)))[1].size == (40, 1)


def test_deep_images_are_copied() -> None:
    deep = Image.fromarray((np.arange(100 * 100).reshape(100, 100) % 4096).astype(np.uint16))
    assert scaled(encoded(deep, "PNG"), SMALL) == (None, "deep")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied_once(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(160, 80), exif=exif.tobytes(), quality=95)
    pixels, image, _ = result(data)
    assert image.getexif().get(0x0112, 1) == 1
    whole = Image.fromarray(rgb(data))
    assert image.size == ((40, 20) if orientation < 5 else (20, 40))
    expected = np.array(whole.resize(image.size, Image.Resampling.BOX)).astype(int)
    assert np.abs(pixels.astype(int) - expected)[1:-1, 1:-1].max() <= 16


def test_transparent_pixels_are_white() -> None:
    image = picture(80, 80).convert("RGBA")
    image.putalpha(Image.fromarray(np.repeat(np.uint8([[0] * 40 + [255] * 40]), 80, axis=0)))
    pixels, _, extension = result(encoded(image, "PNG"))
    assert extension == "png"
    assert (pixels[:, :15] == 255).all()
    assert (pixels[:, 30:, 2] < 140).all()


def test_grey_stays_grey() -> None:
    assert result(encoded(picture(80, 80, "L")))[1].mode == "L"


def test_a_colour_profile_is_converted_to_srgb() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # In this profile the first channel is green and the second one red.
    swapped = srgb.replace(b"rXYZ", b"-XYZ").replace(b"gXYZ", b"rXYZ").replace(b"-XYZ", b"gXYZ")
    image = Image.new("RGB", (80, 80), (200, 30, 90))
    for profile, colour in ((srgb, [200, 30, 90]), (b"damaged", [200, 30, 90]), (swapped, [30, 200, 90])):
        pixels, converted, _ = result(encoded(image, "PNG", icc_profile=profile))
        assert "icc_profile" not in converted.info
        assert np.abs(pixels.astype(int) - colour).max() <= 4


def test_cmyk_becomes_rgb() -> None:
    pixels, image, _ = result(encoded(picture(80, 80, "CMYK"), quality=95))
    assert image.mode == "RGB"
    assert np.abs(pixels[20, 20].astype(int) - rgb(encoded(picture(80, 80)))[40, 40]).max() < 12


def test_what_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(encoded(picture(400, 300))[:2000])
    domain = Domain("d", ("a",), lambda: [Example("cut", tmp_path / "cut.jpg", "jpg", "a")])
    with pytest.raises(ValueError, match=r"cut\.jpg: the image cannot be scaled: .*truncated.*--skip-bad"):
        list(scaled_domain(domain, SMALL))
    with pytest.raises(ValueError, match="decompression bomb"):
        scaled(encoded(picture(400, 300)), SMALL, most_pixels=1000)


def photos(folder: Path) -> Domain:
    """Five files, one of them small, in two classes."""
    examples = []
    for number in range(5):
        side = 30 if number == 3 else 200 + number
        file = folder / "photos" / f"{number}.jpg"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(encoded(picture(side, side // 2)))
        examples.append(
            Example(f"photo {number}", file, "jpg", "ab"[number % 2], "train", group=f"g{number}")
        )
    return Domain("photos", ("a", "b"), lambda: examples)


def test_packed_in_order_noted_and_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = str(tmp_path / "shards")
    first = pack_domain(scaled_domain(photos(tmp_path), SMALL, num_threads=3), url)
    again = pack_domain(scaled_domain(photos(tmp_path), SMALL, num_threads=1), url)
    assert again == first == read_manifest(url)  # unchanged, by any number of threads
    assert first.notes["scaling"] == {"max_side": 40, "quality": 90, "scaled": 4, "copied": 1}
    assert first.max_side == 40
    show(url, first)
    assert "\n4 images scaled to at most 40 px, 1 smaller ones copied\n" in capsys.readouterr().out
    shard = tmp_path / "shards" / "train-00000.tar"
    index = ShardIndex.from_bytes(Path(f"{shard}.index").read_bytes(), "")
    assert {str(k): str(s) for k, s in zip(index.keys, index.sources, strict=True)} == {
        f"photo-{n}": f"{n}.jpg" for n in range(5)
    }
    assert verify(url) == (first, [])
    pack_domain(photos(tmp_path), url, overwrite=True)
    manifest = tmp_path / "shards" / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"notes": {', '"notes": {"scaling": {"max_side": 40}, '))
    _, problems = verify(url)
    assert len(problems) == 4
    assert "photo-0 (packed from 0.jpg): 200 x 100 pixels, but scaling to 40 is noted" in "\n".join(problems)
    for other in ("[]", '{"max_side": "40"}', '{"max_side": null}'):
        manifest.write_text(text.replace('"notes": {', f'"notes": {{"scaling": {other}, '))
        assert read_manifest(url).max_side is None
        assert verify(url)[1] == []
