"""The quickstart's two domains, made offline from what scikit-learn ships.

    digits          1,797 handwritten digits of 8 x 8 pixels, enlarged, white on black: the source
    digits-photos   the same digits blended over crops of two photographs (the MNIST-M recipe): the target

A digit belongs to one split in both domains: what the target tests, no teacher has trained on, and the
photographs' tiles are split as well.

    python -m fourds_dist.pack digits DEST
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from fourds_dist.data.manifest import MANIFEST, Manifest, read_manifest
from fourds_dist.data.pack.example import Example
from fourds_dist.data.sources.domain import Domain
from fourds_dist.data.sources.photographs import NOTES, blend
from fourds_dist.data.sources.png import png
from fourds_dist.data.sources.splits import stratified
from fourds_dist.storage import check_writable, explained, locate

if TYPE_CHECKING:
    from fourds_dist.settings import Settings

CLASSES = tuple("0123456789")
VAL_FRACTION, TEST_FRACTION = 0.1, 0.2


def digits(*, size: int = 32, crops_per_digit: int = 4, seed: int = 42) -> tuple[Domain, Domain]:
    """Both domains, source first; one seed decides splits and backgrounds of both.

    Args:
        size: side of the square images, in pixels.
        crops_per_digit: backgrounds that every training digit of the target is shown on; digits of the other
            splits are shown on one, so that each counts once.
        seed: two calls with equal arguments give equal images.
    """
    notes = {"origin": "scikit-learn load_digits", "size": size, "seed": seed}
    photos = {**NOTES, "crops_per_digit": crops_per_digit}
    return (
        Domain("digits", CLASSES, lambda: _plain(size, seed), notes=notes),
        Domain(
            "digits-photos", CLASSES, lambda: _over_photos(size, crops_per_digit, seed), notes=notes | photos
        ),
    )


def pack_quickstart(settings: Settings) -> None:
    """Pack both domains into source.url and target.url, where they are not there yet.

    Raises:
        ValueError: a URL is missing, its folder holds something else, or nothing can be written there; neither is
            packed then.
    """
    for domain, url in missing_domains(settings):
        from fourds_dist.data.pack.writer import pack_domain

        print(f"packing {domain.name} into {url}", file=sys.stderr)
        pack_domain(domain, url)


def missing_domains(settings: Settings) -> list[tuple[Domain, str]]:
    """The domains that `pack_quickstart` packs, and where.

    Raises:
        ValueError: as `pack_quickstart`.
    """
    missing: list[tuple[Domain, str]] = []
    for key, url, domain in zip(
        ("source.url", "target.url"), (settings.source.url, settings.target.url), digits(), strict=True
    ):
        if url is None:
            raise ValueError(f"prepare: digits needs {key}, a folder to pack into")
        fs, path = locate(f"{url.rstrip('/')}/{MANIFEST}")
        with explained(url):
            there = fs.exists(path)
        if there:
            if not _is_made_from(read_manifest(url), domain):
                raise ValueError(
                    f"{key}: {url} holds another dataset than prepare: digits makes; remove it, choose another "
                    f"{key}, or set prepare=null to use it as it is"
                )
            continue
        check_writable(url)
        missing.append((domain, url))
    return missing


def _is_made_from(manifest: Manifest, domain: Domain) -> bool:
    """Whether a dataset was packed from the domain as it is made now, by what its notes say."""
    notes = json.loads(json.dumps(dict(domain.notes)))
    same = (manifest.name, manifest.classes) == (domain.name, domain.classes)
    return same and all(manifest.notes.get(key) == value for key, value in notes.items())


def _plain(size: int, seed: int) -> Iterator[Example]:
    for index, label, split, digit in _identities(size, seed):
        yield Example(f"{index:04}", png(digit), "png", label, split)


def _over_photos(size: int, crops_per_digit: int, seed: int) -> Iterator[Example]:
    for index, label, split, digit in _identities(size, seed):
        for crop in range(crops_per_digit if split == "train" else 1):
            # Seeded per image: what an image looks like does not depend on which others are made.
            image = blend(digit, split, np.random.default_rng((seed, index, crop)))
            yield Example(f"{index:04}-{crop}", png(image), "png", label, split)


def _identities(size: int, seed: int) -> Iterator[tuple[int, str, str, Image.Image]]:
    """(index in load_digits, class, split, RGB image) of every digit."""
    from sklearn.datasets import load_digits

    pixels, targets = map(np.asarray, load_digits(return_X_y=True))
    labels = [CLASSES[target] for target in targets]
    splits = stratified(labels, val_fraction=VAL_FRACTION, test_fraction=TEST_FRACTION, seed=seed)
    for index, (values, label, split) in enumerate(zip(pixels, labels, splits, strict=True)):
        # Values go from 0 to 16.
        grey = Image.fromarray((values.reshape(8, 8) * (255 / 16)).round().astype(np.uint8))
        yield index, label, split, grey.resize((size, size), Image.Resampling.BICUBIC).convert("RGB")
