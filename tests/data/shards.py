"""Small datasets of known content: the image of sample number n encodes n."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image

from fourds_dist.data.format.manifest import Manifest, Shard, write_manifest
from fourds_dist.data.pack.indexing import index_tar

SIDE = 8
CLASSES = ("ant", "bee", "cat")


def image_of(number: int) -> bytes:
    """A PNG of SIDE x SIDE pixels, all of the colour (number % 256, number // 256, 7)."""
    pixels = np.full((SIDE, SIDE, 3), (number % 256, number // 256, 7), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def numbers_in(images) -> list[int]:
    """The sample numbers that a batch's images encode."""
    corner = images[:, :, 0, 0].int()
    assert (corner[:, 2] == 7).all()
    return (corner[:, 0] + 256 * corner[:, 1]).tolist()


def write_dataset(
    folder: Path,
    sizes: Sequence[int],
    *,
    splits: Iterable[str] = ("train", "val", "test"),
    labels: Sequence[int] | None = None,
    classes: tuple[str, ...] = CLASSES,
) -> str:
    """Every split holds shards of the given sizes, samples numbered from 0; label n % 3 unless given."""
    folder.mkdir(parents=True, exist_ok=True)
    named: dict[str, tuple[Shard, ...]] = {}
    counts: dict[str, tuple[int, ...]] = {}
    for split in splits:
        number, shards, held = 0, [], [0] * len(classes)
        for shard, size in enumerate(sizes):
            path = folder / f"{split}-{shard:05}.tar"
            with path.open("wb") as file, webdataset.TarWriter(file, mtime=0) as writer:  # pyright: ignore
                for _ in range(size):
                    label = labels[number] if labels is not None else number % len(classes)
                    writer.write(
                        {"__key__": f"{number:05}", "png": image_of(number), "cls": str(label).encode()}
                    )
                    held[label] += label >= 0
                    number += 1
            with path.open("rb") as file:
                index = index_tar(file, str(path))
            Path(f"{path}.index").write_bytes(index.to_bytes())
            shards.append(Shard(path.name, size, path.stat().st_size, index.sha256))
        named[split], counts[split] = tuple(shards), tuple(held)
    write_manifest(str(folder), Manifest(folder.name, classes, named, counts))
    return str(folder)
