"""A contact sheet of domains: one row for each class, one column of images for each domain, to check labels by eye."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from PIL import Image, ImageDraw

from fourds_dist.data.datasets.example import Example
from fourds_dist.data.decode.grey import GreyRange
from fourds_dist.data.decode.pixels import rgb
from fourds_dist.data.format.index import ShardIndex
from fourds_dist.data.format.manifest import index_url, read_manifest, shard_url
from fourds_dist.io.storage import locate, translate_storage_errors

_LABEL_PIXELS = 110
_TITLE_PIXELS = 16
_GAP_PIXELS = 8
TILE_PIXELS = 48


_FORMATS = {
    ".png": ("PNG", 1 << 20),
    ".jpg": ("JPEG", 65_500),
    ".jpeg": ("JPEG", 65_500),
    ".webp": ("WEBP", 16_383),
}
"""File extension -> Pillow's name of the format, and the longest side that the format allows, in pixels."""
_MOST_PIXELS = 1 << 28


def check_size(out: str, *, num_domains: int, num_classes: int, images_per_class: int) -> None:
    """Refuse a sheet that is too large for the image format of `out`.

    Raises:
        ValueError: `out` has no extension of an image format, or the sheet is too large.
    """
    if _ending(out) not in _FORMATS:
        raise ValueError(f"{out}: the last argument must be the image file to write, e.g. sheet.png")
    name, longest = _FORMATS[_ending(out)]
    width, height = _size(num_domains, num_classes, images_per_class, TILE_PIXELS)
    if max(width, height) > longest or width * height > _MOST_PIXELS:
        raise ValueError(
            f"{out}: a sheet of {width} x {height} pixels is too large for {name}; give fewer datasets, --images or "
            "--classes"
        )


def picture(sheet: Image.Image, out: str) -> bytes:
    """Return the sheet encoded in the image format of `out`."""
    file = io.BytesIO()
    sheet.save(file, _FORMATS[_ending(out)][0])
    return file.getvalue()


def _ending(out: str) -> str:
    return posixpath.splitext(out)[1].lower()


def _size(num_domains: int, num_classes: int, images_per_class: int, tile_pixels: int) -> tuple[int, int]:
    """Size of the sheet (width, height) in pixels."""
    block = images_per_class * tile_pixels + _GAP_PIXELS
    return _LABEL_PIXELS + block * num_domains, _TITLE_PIXELS + tile_pixels * num_classes


def contact_sheet(
    domains: Mapping[str, Iterable[Example]],
    *,
    num_classes: int = 16,
    images_per_class: int = 6,
    tile_pixels: int = TILE_PIXELS,
    seed: int = 0,
    grey_ranges: Mapping[str, GreyRange | None] | None = None,
) -> Image.Image:
    """Return a sheet of random images of random classes, the same classes in every domain.

    A tile stays grey where a domain has too few images. Every domain is read once; only the chosen images stay in
    memory. Unlabelled images are left out.

    Args:
        grey_ranges: domain -> (black, white) of its images of more than 8 bits.
    """
    shown = {title: _sample(examples, images_per_class, seed) for title, examples in domains.items()}
    all_classes = sorted(set().union(*shown.values()))
    chosen = np.random.default_rng(seed).permutation(len(all_classes))[:num_classes]
    classes = [all_classes[index] for index in sorted(chosen)]
    block = images_per_class * tile_pixels + _GAP_PIXELS
    sheet = Image.new(
        "RGB",
        _size(len(shown), len(classes), images_per_class, tile_pixels),
        (200, 200, 200),
    )
    draw = ImageDraw.Draw(sheet)
    for row, label in enumerate(classes):
        draw.text((4, _TITLE_PIXELS + row * tile_pixels + tile_pixels // 3), label[:18], fill="black")
    for column, (title, images) in enumerate(shown.items()):
        left = _LABEL_PIXELS + column * block
        draw.text((left, 2), title, fill="black")
        for row, label in enumerate(classes):
            for position, encoded in enumerate(images.get(label, [])):
                tile = Image.fromarray(rgb(encoded, (grey_ranges or {}).get(title)))
                tile = tile.resize((tile_pixels - 1, tile_pixels - 1))
                sheet.paste(tile, (left + position * tile_pixels, _TITLE_PIXELS + row * tile_pixels))
    return sheet


def packed_examples(url: str, *, images_per_class: int, seed: int = 0) -> Iterator[Example]:
    """Yield random labelled images of the largest split of a packed dataset; only these images are read.

    Raises:
        ValueError: there is no dataset at the path or URL.
    """
    manifest = read_manifest(url)
    split = max(manifest.splits, key=manifest.num_samples)
    generator = np.random.default_rng(seed)
    wanted = dict.fromkeys(range(len(manifest.classes)), images_per_class)
    for number in generator.permutation(len(manifest.splits[split])):
        shard = manifest.splits[split][int(number)]
        where = index_url(url, shard.name)
        fs, path = locate(where)
        tar_fs, tar = locate(shard_url(url, shard.name))
        with translate_storage_errors(where):
            index = ShardIndex.from_bytes(fs.cat_file(path), where)  # pyright: ignore[reportArgumentType]
            for row in map(int, generator.permutation(len(index))):
                label, begin = int(index.labels[row]), int(index.offsets[row])
                if wanted.get(label, 0):
                    wanted[label] -= 1
                    image = tar_fs.cat_file(tar, start=begin, end=begin + int(index.sizes[row]))
                    extension = str(index.extensions[row])
                    yield Example(str(index.keys[row]), image, extension, manifest.classes[label], split)  # pyright: ignore[reportArgumentType]
        if not any(wanted.values()):
            return


def _sample(examples: Iterable[Example], count: int, seed: int) -> dict[str, list[bytes]]:
    """Class -> up to `count` of its images, drawn uniformly (reservoir sampling)."""
    generator = np.random.default_rng(seed)
    sample: dict[str, list[bytes]] = {}
    num_read: dict[str, int] = {}
    for example in examples:
        if example.label is None:
            continue
        images = sample.setdefault(example.label, [])
        num_read[example.label] = num_read.get(example.label, 0) + 1
        if len(images) < count:
            images.append(example.read())
        elif (position := generator.integers(num_read[example.label])) < count:
            images[position] = example.read()
    return sample
