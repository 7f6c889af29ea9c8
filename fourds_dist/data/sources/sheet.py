"""A picture sheet of domains side by side: rows are classes, so that labels and looks can be judged at a glance."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from PIL import Image, ImageDraw

from fourds_dist.data.grey import GreyRange
from fourds_dist.data.index import ShardIndex
from fourds_dist.data.manifest import index_url, read_manifest, shard_url
from fourds_dist.data.pack.example import Example
from fourds_dist.data.pixels import rgb
from fourds_dist.storage import explained, locate

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
"""Ending of a picture's name -> Pillow's name of the format, and its longest side in pixels."""
_MOST_PIXELS = 1 << 28


def check_size(out: str, *, num_domains: int, num_classes: int, images_per_class: int) -> None:
    """Refuse a sheet that no picture of the kind that `out` names can hold.

    Raises:
        ValueError: `out` is no name of a picture, or the sheet is too large.
    """
    if _ending(out) not in _FORMATS:
        raise ValueError(f"{out}: name a picture to write last, e.g. sheet.png")
    name, longest = _FORMATS[_ending(out)]
    width, height = _size(num_domains, num_classes, images_per_class, TILE_PIXELS)
    if max(width, height) > longest or width * height > _MOST_PIXELS:
        raise ValueError(
            f"{out}: a sheet of {width} x {height} pixels is too large for {name}; give fewer datasets, --images or "
            "--classes"
        )


def picture(sheet: Image.Image, out: str) -> bytes:
    """The sheet as a file of the kind that `out` names."""
    file = io.BytesIO()
    sheet.save(file, _FORMATS[_ending(out)][0])
    return file.getvalue()


def _ending(out: str) -> str:
    return posixpath.splitext(out)[1].lower()


def _size(num_domains: int, num_classes: int, images_per_class: int, tile_pixels: int) -> tuple[int, int]:
    """(width, height) in pixels."""
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
    """Random images of random classes, the same classes in every domain; a grey tile where a domain has too few.

    Every domain is read once, and only what is shown is kept. Unlabelled images are left out.

    Args:
        grey_ranges: of each domain, for images of more than 8 bits.
    """
    shown = {title: _sample(examples, images_per_class, seed) for title, examples in domains.items()}
    every = sorted(set().union(*shown.values()))
    chosen = np.random.default_rng(seed).permutation(len(every))[:num_classes]
    classes = [every[index] for index in sorted(chosen)]
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
            for place, encoded in enumerate(images.get(label, [])):
                tile = Image.fromarray(rgb(encoded, (grey_ranges or {}).get(title)))
                tile = tile.resize((tile_pixels - 1, tile_pixels - 1))
                sheet.paste(tile, (left + place * tile_pixels, _TITLE_PIXELS + row * tile_pixels))
    return sheet


def packed_examples(url: str, *, images_per_class: int, seed: int = 0) -> Iterator[Example]:
    """Random labelled images of the largest split of a packed dataset; only what is given is read.

    Raises:
        ValueError: no dataset at the path or URL.
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
        with explained(where):
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
    """Class -> up to `count` images, each of the class equally likely (reservoir sampling)."""
    generator = np.random.default_rng(seed)
    kept: dict[str, list[bytes]] = {}
    met: dict[str, int] = {}
    for example in examples:
        if example.label is None:
            continue
        images = kept.setdefault(example.label, [])
        met[example.label] = met.get(example.label, 0) + 1
        if len(images) < count:
            images.append(example.read())
        elif (place := generator.integers(met[example.label])) < count:
            images[place] = example.read()
    return kept
