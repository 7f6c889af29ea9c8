"""Icons by drawing style: a benchmark of five domains that is rebuilt from one npm package.

    line, solid, glyph, duotone, colour      the same classes, drawn by about a hundred designers

The designers of test images have no image in the training split of any domain. Near duplicates are removed across all
domains and splits. Images are rendered during packing; no image is distributed.

    npm install @iconify/json@2.2.535
    python -m fourds_dist.pack icons node_modules/@iconify/json DEST
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.example import Example
from fourds_dist.data.datasets.icon_names import STYLES
from fourds_dist.data.datasets.icons.collection import Collection, Icon, read_collection
from fourds_dist.data.datasets.icons.duplicates import NEAR, SAME, duplicates
from fourds_dist.data.datasets.icons.families import SPLITS, assign, families
from fourds_dist.data.datasets.icons.render import is_blank, render, renderer, thumbnail
from fourds_dist.data.datasets.png import png

MAIN_STYLES = ("line", "solid", "glyph")
"""The domains in which a class has to be common; the other two domains are smaller."""

_COMPARED_PIXELS = 64  # Duplicates are compared at one size, so that they do not depend on the packed size.


def icons(
    folder: str | Path,
    *,
    size: int = 64,
    min_sets: int = 10,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 42,
) -> tuple[Domain, ...]:
    """Return the five domains, from the folder of the npm package @iconify/json.

    Args:
        folder: the package, usually node_modules/@iconify/json.
        size: side of the images in pixels; the choice of icons does not depend on the size.
        min_sets: least number of sets with drawings of a class, in each of line, solid and glyph.
        val_fraction: target share of validation images; met approximately, since designers are not divided.
        test_fraction: target share of test images, likewise.
        seed: seed of the choice of held-out designers.

    Raises:
        ValueError: the folder is not the package, the renderer is not installed, or no class is common enough.
    """
    renderer()  # raises before any icon is read
    collection = read_collection(folder)
    dropped = Counter(collection.dropped)
    common = _of_common_classes(list(collection.icons()), min_sets, dropped)
    drawn, thumbnails = _drawable(common, dropped)
    ambiguous, duplicate = duplicates(thumbnails, [icon.label for icon in drawn])
    dropped["icons: drawn alike under two classes"] = int(ambiguous.sum())
    dropped["icons: near duplicates"] = int(duplicate.sum())
    distinct = [icon for icon, out in zip(drawn, ambiguous | duplicate, strict=True) if not out]
    icons = _of_still_common_classes(distinct, min_sets, dropped)
    family = families(collection.sets)
    split_of = assign(
        ((family[icon.set_prefix], icon.style, icon.label) for icon in icons),
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
    )
    chosen = [(icon, split_of[family[icon.set_prefix]]) for icon in icons]
    classes = tuple(sorted({icon.label for icon, _ in chosen}))
    notes = {
        "origin": f"npm @iconify/json {collection.version}",
        "size": size,
        "seed": seed,
        "duplicates": f"RMS of 16 x 16 thumbnails: near <= {NEAR} within a class, same <= {SAME} across classes",
        "dropped": dict(sorted(dropped.items())),
    }
    present = {icon.style for icon, _ in chosen}
    return tuple(
        _domain(style, classes, chosen, size, family, collection, notes)
        for style in STYLES
        if style in present
    )


def _of_common_classes(found: list[Icon], min_sets: int, dropped: Counter[str]) -> list[Icon]:
    sets: dict[tuple[str, str], set[str]] = defaultdict(set)
    for icon in found:
        sets[icon.label, icon.style].add(icon.set_prefix)
    common = {
        label
        for label in {label for label, _ in sets}
        if all(len(sets[label, style]) >= min_sets for style in MAIN_STYLES)
    }
    if not common:
        raise ValueError(
            f"no class has drawings in {min_sets} sets in each of {', '.join(MAIN_STYLES)}; lower --min-sets"
        )
    dropped["icons: class too rare"] = sum(icon.label not in common for icon in found)
    return [icon for icon in found if icon.label in common]


def _of_still_common_classes(distinct: list[Icon], least: int, dropped: Counter[str]) -> list[Icon]:
    """Remove classes (plus, minus, circle) whose drawings are nearly all duplicates."""
    left = Counter((icon.label, icon.style) for icon in distinct)
    chosen = [icon for icon in distinct if all(left[icon.label, style] >= least for style in MAIN_STYLES)]
    dropped["icons: class too rare without duplicates"] = len(distinct) - len(chosen)
    return chosen


def _drawable(chosen: list[Icon], dropped: Counter[str]) -> tuple[list[Icon], np.ndarray]:
    """Return the icons that can be rendered and are not blank, with their thumbnails."""
    drawn, thumbnails = [], []
    for icon in chosen:
        if "<animate" in icon.body or "<set " in icon.body:
            dropped["icons: animated"] += 1  # The first frame is often empty or incomplete.
        elif (image := render(icon, _COMPARED_PIXELS)) is None:
            dropped["icons: not readable as SVG"] += 1
        elif is_blank(image):
            dropped["icons: blank on white"] += 1
        else:
            drawn.append(icon)
            thumbnails.append(thumbnail(image))
    return drawn, np.stack(thumbnails)


def _domain(
    style: str,
    classes: tuple[str, ...],
    chosen: list[tuple[Icon, str]],
    size: int,
    family: dict[str, str],
    collection: Collection,
    notes: dict[str, object],
) -> Domain:
    members = [(icon, split) for icon, split in chosen if icon.style == style]
    sets = sorted({icon.set_prefix for icon, _ in members})
    split_of = {family[icon.set_prefix]: split for icon, split in members}
    own = {
        "images": dict(sorted(Counter(split for _, split in members).items())),
        "families": {
            split: sorted(name for name, side in split_of.items() if side == split) for split in SPLITS
        },
        "sets": {
            prefix: {
                "title": collection.sets[prefix]["name"],
                "author": (collection.sets[prefix].get("author") or {}).get("name"),
                "licence": collection.sets[prefix]["license"]["spdx"],
            }
            for prefix in sets
        },
    }
    return Domain(f"icons-{style}", classes, lambda: _examples(members, size), notes=notes | own)


def _examples(members: list[tuple[Icon, str]], size: int) -> Iterator[Example]:
    for icon, split in members:
        image = render(icon, size)
        assert image is not None, icon.key  # `_drawable` has rendered the icon before.
        yield Example(icon.key, png(image), "png", icon.label, split)
