"""Check image files on a local disk: whether they can be read, and the format of their content."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from fourds_dist.data.decode.file_kinds import why_unread
from fourds_dist.data.files.frames import has_more_frames
from fourds_dist.data.files.image_files import reason_of
from fourds_dist.data.files.progress import OnProgress
from fourds_dist.data.files.truncation import truncation_of
from fourds_dist.io.storage import may_read

FORMATS = {
    "JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif", "GIF": "gif", "PPM": "ppm",
}  # fmt: skip
"""Pillow's name of a format -> file extension in the shard."""

_REPORTED = 5


def check_images(
    paths: Sequence[Path],
    *,
    skip_bad: bool,
    decode: bool,
    num_threads: int,
    on_progress: OnProgress,
    several: list[Path] | None = None,
) -> list[str | None]:
    """Return the extension of each file by its content; None for files that cannot be read (with `skip_bad`).

    Args:
        skip_bad: accept files that cannot be read, unless no file can be read.
        decode: decode every image whole. Its header, its end and the checksums of a PNG are checked in any case.
        several: list to which files of several frames (animations, stacks of pages) are appended; only the first frame
            is used.

    Raises:
        ValueError: files cannot be read, without `skip_bad`, or no file can be read; the message names the first files.
    """
    extensions: list[str | None] = []
    bad: list[tuple[Path, str]] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(num_threads) as pool:
        # Pillow's warning of a very large image becomes an error: the image is refused with this reason.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for path, (extension, why, has_more) in zip(
            paths, pool.map(lambda p: _check(p, decode), paths), strict=True
        ):
            extensions.append(extension)
            if has_more and several is not None:
                several.append(path)
            if extension is None:
                bad.append((path, why))
            on_progress("checking", len(extensions), len(paths))
    if bad and (not skip_bad or len(bad) == len(paths)):
        listed = "".join(f"\n  {path}: {why}" for path, why in bad[:_REPORTED])
        more = f"\n  and {len(bad) - _REPORTED} more" if len(bad) > _REPORTED else ""
        is_denied = not any(may_read(path) for path, _ in bad)
        what = "give this user permission to read them" if is_denied else "repair or remove them"
        remedy = "" if skip_bad else f"\n{what}, or leave them out by --skip-bad"
        raise ValueError(f"{len(bad)} of {len(paths)} images cannot be read:{listed}{more}{remedy}")
    return extensions


def _check(path: Path, decode: bool) -> tuple[str | None, str, bool]:
    """Return (extension, why the file cannot be read, whether it has several frames)."""
    if (why := reason_of(path)) is not None:
        return None, why, False
    try:
        if decode:
            _decode(path)
        elif (why := truncation_of(path)) is not None:
            return None, why, False
        with Image.open(path) as image:
            extension = FORMATS.get(image.format or "")
            if extension is None:
                supported = ", ".join(sorted(set(FORMATS.values())))
                return None, f"the format {image.format} is not supported; use one of {supported}", False
            has_more = has_more_frames(image)
            image.verify()  # checksums of a PNG, which decoding does not compare
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        remedy = "For a genuine image, raise --max-megapixels here and data.max_megapixels in runs"
        return None, f"{error} {remedy}", False
    except UnidentifiedImageError:
        with path.open("rb") as file:
            return None, why_unread(file), False
    except (
        Exception
    ) as error:  # Pillow's plugins raise exceptions of any type: OSError, SyntaxError, struct.error
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        why = " ".join(text.replace(repr(str(path)), "").split())[:200] or type(error).__name__
        return None, why, False
    return extension, "", has_more


def _decode(path: Path) -> None:
    """Decode an image as in training.

    Raises:
        ValueError: the image cannot be decoded.
    """
    from fourds_dist.data.decode.decode import WHOLE_PX, decoded_whole  # here: it imports PyTorch
    from fourds_dist.data.decode.grey import measured

    data = path.read_bytes()
    grey = measured(data)
    given = None if grey is None else grey.range
    decoded_whole(data, WHOLE_PX, grey_range=given, most_pixels=Image.MAX_IMAGE_PIXELS)
