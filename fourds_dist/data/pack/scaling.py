"""Images made smaller once, when they are packed, so that training decodes small files.

An image whose longer side exceeds `max_side` is decoded, turned by its EXIF orientation, converted from its colour
profile to sRGB, put on white where it is transparent, resized with antialiasing and encoded again: JPEG and WebP in
their own format, others as PNG. Smaller images are copied unchanged, and so are images of more than 8 bits, whose
values have a range of their own (`grey`).

JPEGs are decoded at a half, a quarter or an eighth of their size, but at least at twice the size of the result.
"""

from __future__ import annotations

import io
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms, ImageOps

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.example import Example
from fourds_dist.data.decode.pixels import FORMATS, MOST_PIXELS, is_deep, too_large
from fourds_dist.data.format.manifest import SCALING
from fourds_dist.data.pack.grey_measuring import BAD_IMAGE_REMEDY
from fourds_dist.io.error_text import one_line
from fourds_dist.io.names import shown

QUALITY = 90
_PER_THREAD = 4
"""Images that wait for each thread: few, as they are large."""
_WRITTEN = {"JPEG": ("JPEG", "jpg"), "MPO": ("JPEG", "jpg"), "WEBP": ("WEBP", "webp")}
"""Format of an image -> format and extension of the scaled image; others are written as PNG."""


@dataclass(frozen=True)
class Scaling:
    """Size and quality of packed images.

    Args:
        max_side: longest side in pixels; larger images are scaled down to it, with their proportions.
        quality: quality of JPEG and WebP, 1 to 100.
    """

    max_side: int
    quality: int = QUALITY


def scaled_domain(
    domain: Domain, scaling: Scaling, *, num_threads: int = 2, most_pixels: int | None = None
) -> Domain:
    """Return a domain with the same images, scaled in `num_threads` threads, in the same order.

    After a pass over the images, `notes["scaling"]` has the numbers of images: `scaled`, `copied`, and `deep` for those
    of more than 8 bits that were copied although they are larger.

    Args:
        most_pixels: images of more pixels are refused; None: MOST_PIXELS.

    Raises:
        ValueError: in a pass, an image that cannot be decoded; the message names the image.
    """
    notes: dict[str, Any] = {**domain.notes, SCALING: asdict(scaling)}

    def scale(example: Example) -> tuple[Example, str]:
        data = example.read()
        try:
            done, kind = scaled(data, scaling, most_pixels)
        except ValueError as error:
            title = shown(example.image) if isinstance(example.image, Path) else example.key
            raise ValueError(f"{title}: the image cannot be scaled: {error}; {BAD_IMAGE_REMEDY}") from None
        if done is None:
            return example, kind
        image, extension = done
        file = example.image if isinstance(example.image, Path) else example.file
        return replace(example, image=image, extension=extension, file=file), kind

    def produce() -> Iterator[Example]:
        counts: Counter[str] = Counter()
        for example, kind in _in_order(domain, scale, num_threads):
            counts[kind] += 1
            yield example
        notes[SCALING] = {**asdict(scaling), **counts}

    return replace(domain, produce=produce, notes=notes)


def scaled(
    data: bytes, scaling: Scaling, most_pixels: int | None = None
) -> tuple[tuple[bytes, str] | None, str]:
    """Return ((encoded image, extension), "scaled"), or (None, "copied" or "deep") for an image that stays as it is.

    Raises:
        ValueError: the image cannot be decoded, or has more than `most_pixels`.
    """
    try:
        return _scaled(data, scaling, most_pixels or MOST_PIXELS)
    except (OSError, SyntaxError, Warning, Image.DecompressionBombError) as error:
        raise ValueError(one_line(error, 300)) from None


def _scaled(data: bytes, scaling: Scaling, most_pixels: int) -> tuple[tuple[bytes, str] | None, str]:
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > most_pixels:
        raise ValueError(too_large(f"{image.width} x {image.height}", most_pixels))
    longest = max(image.size)
    if longest <= scaling.max_side:
        return None, "copied"
    if is_deep(image):
        return None, "deep"
    name, extension = _WRITTEN.get(image.format or "", ("PNG", "png"))
    width, height = (max(1, round(side * scaling.max_side / longest)) for side in image.size)
    image.draft(None, (2 * width, 2 * height))
    plain = _in_srgb(image)
    plain = plain.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    plain = ImageOps.exif_transpose(plain)
    for entry in ("exif", "icc_profile", "xmp", "comment"):
        plain.info.pop(entry, None)
    file = io.BytesIO()
    plain.save(file, name, **({} if name == "PNG" else {"quality": scaling.quality}))
    return (file.getvalue(), extension), "scaled"


def _in_srgb(image: Image.Image) -> Image.Image:
    """Return the image as RGB or grey values in sRGB, with transparent pixels over white, and its EXIF orientation."""
    orientation = image.getexif().get(0x0112, 1)
    profile = image.info.get("icc_profile")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        plain = image.convert("RGBA")
        plain = Image.alpha_composite(Image.new("RGBA", plain.size, "white"), plain).convert("RGB")
    elif image.mode in ("1", "L"):
        plain, profile = image.convert("L"), None
    else:
        plain = image if image.mode == "CMYK" and profile else image.convert("RGB")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            plain = ImageCms.profileToProfile(plain, source, _srgb(), outputMode="RGB") or plain
        except (
            ImageCms.PyCMSError,
            OSError,
            ValueError,
        ):  # a profile that is damaged, or of another kind of image
            plain = plain.convert("RGB")
    if orientation != 1 and image.format != "TIFF":  # Pillow turns TIFFs itself
        plain.getexif()[0x0112] = orientation
    return plain


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _in_order(domain: Domain, scale: Any, num_threads: int) -> Iterator[tuple[Example, str]]:
    waiting: deque[Future[tuple[Example, str]]] = deque()
    with ThreadPoolExecutor(num_threads, thread_name_prefix="scale") as pool:
        try:
            for example in domain:
                waiting.append(pool.submit(scale, example))
                if len(waiting) > _PER_THREAD * num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
