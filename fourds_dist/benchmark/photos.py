"""JPEGs with the statistics of photographs, to time reading and decoding: 500x375, about 60 kB, all different.

The images are random crops of scikit-learn's two photographs, flipped and with random saturation. Noise has more detail
and flat colour less detail than a photograph, and both decode at another speed.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from fourds_dist.data.format.manifest import Manifest, Shard, write_manifest
from fourds_dist.data.pack.indexing import index_tar
from fourds_dist.processes.parent_death import leave_with_parent

WIDTH, HEIGHT = 500, 375
QUALITY = 93
NUM_CLASSES = 10
PHOTOS_PER_TASK = 64


def photos(num: int, seed: int = 0, quality: int = QUALITY) -> Iterator[bytes]:
    """Yield `num` JPEGs, a function of `num`, `seed` and `quality`."""
    originals = _originals()
    random = np.random.default_rng([seed, num])
    for _ in range(num):
        original = originals[random.integers(len(originals))]
        width = int(random.uniform(0.55, 1.0) * original.width)
        height = min(original.height, round(width * HEIGHT / WIDTH))
        left, top = (
            int(random.integers(original.width - width + 1)),
            int(random.integers(original.height - height + 1)),
        )
        image = original.resize(
            (WIDTH, HEIGHT), Image.Resampling.BICUBIC, (left, top, left + width, top + height)
        )
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image = ImageEnhance.Color(image).enhance(random.uniform(0.6, 1.4))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        yield out.getvalue()


def photos_by_all_cores(num: int) -> list[bytes]:
    """Return `num` JPEGs, made on all cores; the images do not depend on the number of cores."""
    counts = [min(PHOTOS_PER_TASK, num - begin) for begin in range(0, num, PHOTOS_PER_TASK)]
    if len(counts) == 1:
        return list(photos(num))
    num_processes = min(len(counts), len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(
        num_processes,
        multiprocessing.get_context("spawn"),
        initializer=leave_with_parent,
        initargs=(os.getpid(),),
    ) as pool:
        return list(chain.from_iterable(pool.map(_photos, counts, range(len(counts)))))


def _photos(num: int, seed: int) -> list[bytes]:
    return list(photos(num, seed))


def _originals() -> list[Image.Image]:
    """Return scikit-learn's photographs, or coloured noise with a natural spectrum if scikit-learn is missing."""
    try:
        from sklearn.datasets import load_sample_images
    except ImportError:
        return [_cloud(seed) for seed in range(2)]
    return [Image.fromarray(pixels) for pixels in load_sample_images().images]


def _cloud(seed: int, height: int = 427, width: int = 640) -> Image.Image:
    """Return noise with an amplitude spectrum as in natural images."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    noise = np.fft.rfft2(random.standard_normal((3, height, width))) / np.maximum(frequency, 1 / width) ** 1.5
    field = np.fft.irfft2(noise, (height, width))
    grey, colour = field.mean(0, keepdims=True), field - field.mean(0, keepdims=True)
    pixels = 128 + 56 * grey / grey.std() + 24 * colour / colour.std()
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def write_folder(folder: Path, images: list[bytes]) -> None:
    """Write a folder per class, the layout of torchvision's ImageFolder."""
    for number, data in enumerate(images):
        path = folder / f"{number % NUM_CLASSES:02}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_shards(folder: Path, images: list[bytes], num_shards: int) -> list[Path]:
    """Write WebDataset tars with a jpg and a cls per sample, of equal size up to one image; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for shard in range(num_shards):
        paths.append(folder / f"train-{shard:05}.tar")
        with tarfile.open(paths[-1], "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(shard * len(images) // num_shards, (shard + 1) * len(images) // num_shards):
                for extension, data in (("jpg", images[number]), ("cls", b"%d" % (number % NUM_CLASSES))):
                    member = tarfile.TarInfo(f"{number:06}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return paths


def write_dataset(folder: Path, images: list[bytes], num_shards: int) -> None:
    """Write shards with the files of `pack index`."""
    shards = []
    for path in write_shards(folder, images, num_shards):
        with path.open("rb") as file:
            index = index_tar(file, str(path))
        path.with_name(f"{path.name}.index").write_bytes(index.to_bytes())
        shards.append(Shard(path.name, len(index), path.stat().st_size, index.sha256))
    names = tuple(f"class {number}" for number in range(NUM_CLASSES))
    counts = tuple(len(images[number::NUM_CLASSES]) for number in range(NUM_CLASSES))
    write_manifest(str(folder), Manifest("photos", names, {"train": tuple(shards)}, {"train": counts}))
