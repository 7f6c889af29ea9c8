"""Comparison of JPEG decoders on one core: decoding alone, and decoding to a 224 px training crop."""

from __future__ import annotations

import importlib.util
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fourds_dist.benchmark.peers import CROP_PX, RESIZE_PX
from fourds_dist.benchmark.timing import table
from fourds_dist.data.decode.decode import crop_resized, decode

NUM_IMAGES, NUM_ROUNDS = 48, 5
PLACE = (0.3, 0.6)

Decode = Callable[[bytes], np.ndarray | torch.Tensor]


def decoders() -> dict[str, Decode]:
    """Return the installed decoders by name: encoded bytes to (H, W, 3) or (3, H, W) uint8."""
    from torchvision.io import ImageReadMode, decode_jpeg

    found: dict[str, Decode] = {
        "Pillow": lambda data: np.array(Image.open(io.BytesIO(data)).convert("RGB")),
        "torchvision.io": lambda data: decode_jpeg(
            torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB
        ),  # pyright: ignore
    }
    if importlib.util.find_spec("simplejpeg"):
        import simplejpeg  # pyright: ignore[reportMissingImports]

        found["simplejpeg"] = simplejpeg.decode_jpeg
        found["simplejpeg, fast DCT"] = lambda data: simplejpeg.decode_jpeg(data, fastdct=True)
    if importlib.util.find_spec("cv2"):
        import cv2  # pyright: ignore[reportMissingImports]

        cv2.setNumThreads(1)
        found["OpenCV"] = lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return found


def cropped(pixels: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Crop and resize decoded pixels as in training."""
    if isinstance(pixels, np.ndarray):
        pixels = torch.from_numpy(pixels).permute(2, 0, 1)
    return crop_resized(pixels, resize_px=RESIZE_PX, crop_px=CROP_PX, place=PLACE)


def pillow_whole(data: bytes) -> np.ndarray:
    """Resize the whole image, then crop it, as torchvision's transforms do."""
    image = (
        Image.open(io.BytesIO(data)).convert("RGB").resize((RESIZE_PX, RESIZE_PX), Image.Resampling.BILINEAR)
    )
    return np.asarray(image.crop((19, 9, 19 + CROP_PX, 9 + CROP_PX)))


def run(data: Path) -> list[dict[str, Any]]:
    """Print and return images per second on one core."""
    images = [path.read_bytes() for path in sorted((data / "folder").glob("*/*.jpg"))[:NUM_IMAGES]]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole: dict[str, Callable[[bytes], Any]] = {"Pillow, resized whole, then cropped": pillow_whole}
    alone: dict[str, Callable[[bytes], Any]] = dict(decoders())
    whole |= {
        f"{name}, our crop": (lambda data, decoder=decoder: cropped(decoder(data)))
        for name, decoder in alone.items()
    }
    whole["fourds_dist.data.decode.decode"] = lambda data: decode(
        data, resize_px=RESIZE_PX, crop_px=CROP_PX, place=PLACE
    )
    speeds = measure(alone | whole, images)
    torch.set_num_threads(threads)
    rows = [
        {"decoder": name, "images_per_core_s": speed, "whole": name in whole}
        for name, speed in speeds.items()
    ]
    shown = [
        [row["decoder"], "crop" if row["whole"] else "decode", f"{row['images_per_core_s']:.0f}"]
        for row in rows
    ]
    print(table(["decoder, one core", "to", "img/s"], shown) + "\n", flush=True)
    return rows


def measure(functions: dict[str, Callable[[bytes], Any]], images: list[bytes]) -> dict[str, float]:
    """Return images per second of CPU time of this thread: the best of several interleaved rounds."""
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(NUM_ROUNDS):
        for name, function in functions.items():
            began = time.thread_time()
            for data in images:
                function(data)
            best[name] = min(best[name], time.thread_time() - began)
    return {name: len(images) / seconds for name, seconds in best.items()}
