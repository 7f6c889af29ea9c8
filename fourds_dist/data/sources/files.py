"""Image files on a local disk: whether they can be read, and of what format they really are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from fourds_dist.data.frames import has_more_frames
from fourds_dist.data.pack.plan import OnProgress
from fourds_dist.data.truncation import truncation_of
from fourds_dist.storage import may_read

FORMATS = {
    "JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif", "GIF": "gif", "PPM": "ppm",
}  # fmt: skip
"""Pillow's name of a format -> extension in the shard."""

_TOLD = 5


def check_images(
    paths: Sequence[Path],
    *,
    skip_bad: bool,
    decode: bool,
    num_threads: int,
    on_progress: OnProgress,
    several: list[Path] | None = None,
) -> list[str | None]:
    """The extension that each file's content asks for; None for files that cannot be read, if they may be skipped.

    Args:
        decode: decode every image whole, not just its header (PNG: its checksums).

        several: takes the files of several frames (animations, stacks of pages), of which only the first is read.

    Raises:
        ValueError: naming the first files that cannot be read, without `skip_bad`; or none can.
    """
    extensions: list[str | None] = []
    bad: list[tuple[Path, str]] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(num_threads) as pool:
        # An image so large that Pillow warns of it is no training image; it is refused with its reason.
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
        listed = "".join(f"\n  {path}: {why}" for path, why in bad[:_TOLD])
        more = f"\n  and {len(bad) - _TOLD} more" if len(bad) > _TOLD else ""
        is_closed = not any(may_read(path) for path, _ in bad)
        what = "give this user the right to read them" if is_closed else "mend or remove them"
        remedy = "" if skip_bad else f"\n{what}, or leave them out by --skip-bad"
        raise ValueError(f"{len(bad)} of {len(paths)} images cannot be read:{listed}{more}{remedy}")
    return extensions


def _check(path: Path, decode: bool) -> tuple[str | None, str, bool]:
    """(extension, why it cannot be read, whether it has several frames)."""
    try:
        if decode:
            _decode(path)
        elif (why := truncation_of(path)) is not None:
            return None, why, False
        with Image.open(path) as image:
            extension = FORMATS.get(image.format or "")
            if extension is None:
                return (
                    None,
                    f"a {image.format} file, which is not among {', '.join(sorted(set(FORMATS.values())))}",
                    False,
                )
            has_more = has_more_frames(image)
            if not decode:
                image.verify()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        return (
            None,
            f"{error} Where it is none, allow more by --max-megapixels here, and by data.max_megapixels in runs",
            False,
        )
    except (
        Exception
    ) as error:  # Pillow's plugins raise whatever comes: OSError, SyntaxError, struct.error, ...
        why = " ".join(str(error).replace(repr(str(path)), "").split())[:200] or type(error).__name__
        return None, why, False
    return extension, "", has_more


def _decode(path: Path) -> None:
    """Decode an image as training does.

    Raises:
        ValueError: it cannot be decoded.
    """
    from fourds_dist.data.decode import WHOLE_PX, decoded_whole  # here: it imports PyTorch
    from fourds_dist.data.grey import measured

    data = path.read_bytes()
    grey = measured(data)
    given = None if grey is None else grey.range
    decoded_whole(data, WHOLE_PX, grey_range=given, most_pixels=Image.MAX_IMAGE_PIXELS)
