"""Domains of published digit datasets that are arrays on disk with a training and a test part.

The published test part is the test split; a stratified share of the training part becomes the validation split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.example import Example
from fourds_dist.data.datasets.png import png
from fourds_dist.data.datasets.splits import stratified

Part = tuple[np.ndarray, np.ndarray]
"""Images (N, H, W) or (N, H, W, 3) of uint8, and class indices (N,)."""

Look = Callable[[Image.Image, str, int], Image.Image]
"""(RGB image, split, position in its part) -> image of the domain."""


def array_domain(
    name: str,
    classes: Sequence[str],
    parts: Mapping[str, Part],
    *,
    val_fraction: float,
    seed: int,
    notes: Mapping[str, Any],
    look: Look | None = None,
) -> Domain:
    """Return a domain of the parts 'train' and 'test'; equal parts and seed give equal splits.

    Args:
        look: changes each image; None: images are not changed.

    Raises:
        ValueError: images and labels differ in number, or a label is outside the class list.
    """
    for part, (images, labels) in parts.items():
        if len(images) != len(labels):
            raise ValueError(f"{name}, {part} part: {len(images)} images but {len(labels)} labels")
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
            raise ValueError(
                f"{name}, {part} part: labels from {labels.min()} to {labels.max()}, but {len(classes)} classes"
            )
    train_splits = stratified(
        parts["train"][1].tolist(), val_fraction=val_fraction, test_fraction=0, seed=seed
    )
    splits = {"train": train_splits, "test": ["test"] * len(parts["test"][1])}

    def produce() -> Iterator[Example]:
        for part, (images, labels) in parts.items():
            for index, (pixels, label, split) in enumerate(zip(images, labels, splits[part], strict=True)):
                image = Image.fromarray(pixels).convert("RGB")
                shown = look(image, split, index) if look else image
                yield Example(f"{part}-{index:06}", png(shown), "png", classes[int(label)], split)

    return Domain(name, tuple(classes), produce, notes={**notes, "val_fraction": val_fraction, "seed": seed})
