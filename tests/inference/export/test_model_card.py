"""The model card's code: it prepares images as training does, and builds the networks that it comes with."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fourds_dist.data.decode.crop_box import ResizeMode
from fourds_dist.data.stream.preprocessing import Preprocessing
from fourds_dist.inference.export.export import check_preparation
from fourds_dist.inference.export.exported import Exported
from fourds_dist.inference.export.formats import Writer
from fourds_dist.inference.export.model_card import model_card, preparation_code
from fourds_dist.inference.student import Student, description
from fourds_dist.models.backbones import BackboneConfig, build_backbone
from tests.data.deep_images import encoded, pgm, png16, tiff

PLAIN = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
SCENE = np.array(
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)).resize((120, 90))
)
PHOTO = Image.fromarray(SCENE)
DEEP = SCENE.astype(np.uint16) * 16
GREY = np.ascontiguousarray(DEEP[..., :1])
LOGO = PHOTO.convert("RGBA")
LOGO.putalpha(Image.fromarray(SCENE[..., 1]))
TAGS = Image.Exif()
TAGS[0x0112] = 6


def _mpo() -> bytes:
    return encoded(PHOTO, "MPO", save_all=True, append_images=[PHOTO.rotate(90)], quality=95)


def _logo16() -> bytes:
    return png16(np.dstack([DEEP, np.full((90, 120), 30000, np.uint16)]))


KINDS = {
    "jpeg": encoded(PHOTO, "JPEG", quality=95),
    "large jpeg": encoded(PHOTO.resize((480, 360)), "JPEG", quality=95),
    "grey jpeg": encoded(PHOTO.convert("L"), "JPEG", quality=95),
    "cmyk jpeg": encoded(PHOTO.convert("CMYK"), "JPEG", quality=95),
    "turned jpeg": encoded(PHOTO, "JPEG", quality=95, exif=TAGS),
    "mpo": _mpo(),
    "png": encoded(PHOTO, "PNG"),
    "turned png": encoded(PHOTO, "PNG", exif=TAGS),
    "bits": encoded(PHOTO.convert("1"), "PNG"),
    "palette": encoded(PHOTO.quantize(16), "PNG"),
    "palette with transparency": encoded(PHOTO.quantize(16), "PNG", transparency=3),
    "transparent": encoded(LOGO, "PNG"),
    "grey and transparent": encoded(LOGO.convert("LA"), "PNG"),
    "webp and transparent": encoded(LOGO, "WEBP", lossless=True),
    "gif": encoded(PHOTO, "GIF"),
    "bmp": encoded(PHOTO, "BMP"),
    "tiff": encoded(PHOTO, "TIFF"),
    "ppm": encoded(PHOTO, "PPM"),
    "12 bits in 16-bit png": png16(GREY),
    "12 bits in 16-bit colours": png16(DEEP),
    "16-bit and transparent": _logo16(),
    "12-bit pgm": pgm(GREY[..., 0], 4095),
    "16-bit tiff": tiff(GREY),
    "16-bit colour tiff, big-endian": tiff(DEEP, ">"),
    "int32 tiff": tiff(GREY.astype(np.int32)),
    "float tiff": tiff(GREY.astype(np.float32)),
}


def blocks(text: str) -> dict[str, str]:
    """Heading -> the Python below it."""
    found = re.findall(r"^## ([^\n]*)\n(?:(?!^## ).)*?```python\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    return dict(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("crop_px", "resize_mode"), [(32, "squeeze"), (56, "squeeze"), (56, "shortest_side")]
)
def test_the_card_prepares_every_kind_of_image_as_training_does(
    kind: str, crop_px: int, resize_mode: ResizeMode, tmp_path: Path
) -> None:
    names = {}
    preprocessing = Preprocessing(64, crop_px, *PLAIN, grey_range=(0, 4095), resize_mode=resize_mode)
    exec(preparation_code(preprocessing), names)
    (tmp_path / "image").write_bytes(KINDS[kind])
    prepared = names["prepare"](tmp_path / "image")
    assert prepared.shape == (1, 3, crop_px, crop_px)
    assert prepared.dtype == np.float32
    ours = preprocessing.pixels(KINDS[kind]).numpy()
    assert np.abs(prepared[0] * 255 - ours).max() <= (4 if "jpeg" in kind or kind == "mpo" else 1)
    assert ours.std() > 10


def test_export_runs_the_card_s_code_on_encoded_images(monkeypatch: pytest.MonkeyPatch) -> None:
    preprocessing = Preprocessing(64, 56, *PLAIN, grey_range=(0, 4095))
    check_preparation(preprocessing, KINDS)
    check_preparation(replace(preprocessing, resize_mode="shortest_side"), KINDS)
    with monkeypatch.context() as patched:
        squeezed = preparation_code(preprocessing)
        patched.setattr("fourds_dist.inference.export.export.preparation_code", lambda _: squeezed)
        with pytest.raises(ValueError, match="prepares this image differently"):
            check_preparation(replace(preprocessing, resize_mode="shortest_side"), KINDS)
    other = preparation_code(Preprocessing(64, 56, *PLAIN, grey_range=(0, 65535)))
    monkeypatch.setattr("fourds_dist.inference.export.export.preparation_code", lambda _: other)
    with pytest.raises(
        ValueError, match=r"16-bit png: the model card's code prepares this image differently"
    ):
        check_preparation(preprocessing, KINDS)


ARCHITECTURES = {
    "resnet10": "small",
    "resnet18": "imagenet",
    "vit_b_32": "imagenet",
    "vit_nano_4": "imagenet",
    "timm/vit_tiny_patch16_224": "imagenet",
    "timm/resnet10t": "imagenet",
    "tests.inference.export.test_model_card:sized": "imagenet",
}


def sized(num_classes: int, image_size: int = 32) -> torch.nn.Module:
    """An entry point whose weights depend on the side of its images."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * image_size**2, num_classes))


@pytest.mark.parametrize(
    ("arch", "image_px"), [*((arch, None) for arch in ARCHITECTURES), ("vit_b_32", 96), ("resnet10", 48)]
)
def test_the_card_s_code_loads_the_weights(
    arch: str, image_px: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if arch.startswith("timm/"):
        pytest.importorskip("timm")
    config = BackboneConfig.model_validate({"arch": arch, "stem": ARCHITECTURES[arch]})
    preprocessing = Preprocessing(72, 64, *PLAIN, image_px=image_px)
    classes = ("ant", "bee", "cat")
    about = description(config, classes, preprocessing, {"domain": "shards/set"})
    network = build_backbone(config, 3, image_px or 64).eval()
    student = Student("here", classes, preprocessing, lambda pixels: pixels.float(), network, about)
    path = Writer(student, about, lambda: torch.zeros(0)).write("safetensors", tmp_path)
    done = Exported("safetensors", path.name, 1, 1.0, 0.0, 1.0, 1.0, 1.0, 10)
    card = model_card(student, [done], "shards/set")
    assert f"images of\n{image_px or 64} x {image_px or 64} pixels" in card
    assert (f"the resize of this crop to {image_px} x {image_px}" in card) == (image_px is not None)
    code = blocks(card)
    (tmp_path / "image").write_bytes(KINDS["jpeg"])
    monkeypatch.chdir(tmp_path)
    names = {"path": "image"}
    exec(code["Preprocessing"] + code["The weights"].replace("# logits", "logits"), names)
    with torch.inference_mode():
        images = preprocessing.normalised(preprocessing.pixels(KINDS["jpeg"])[None])
        torch.testing.assert_close(names["logits"], network(images), rtol=0.05, atol=0.05)


def test_the_card_s_code_does_not_import_fourds_dist() -> None:
    code = preparation_code(Preprocessing(64, 56, *PLAIN))
    assert "fourds_dist" not in code
    assert "torch" not in code


def test_a_student_of_large_images_lets_pillow_open_them() -> None:
    assert "MAX_IMAGE_PIXELS = 200000000\n" in preparation_code(Preprocessing(64, 56, *PLAIN, None, 200.0))
    assert "MAX_IMAGE_PIXELS = " not in preparation_code(Preprocessing(64, 56, *PLAIN)).split("def rgb")[0]
