"""The sets of the npm package @iconify/json with a free licence, and the class and style of each icon.

The package holds collections.json (title, author, licence, category and palette of each set), package.json
(the version) and one json/PREFIX.json per set with the SVG bodies.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fourds_dist.data.datasets.icon_names import BRANDS, style_and_class

FREE_LICENCES = ("MIT", "Apache-", "ISC", "CC0-", "CC-BY-3", "CC-BY-4", "CC-BY-SA-", "OFL-", "MPL-", "BSD-")
"""Prefixes of accepted SPDX names; non-commercial licences and the GPL are excluded."""

OTHER_CATEGORIES = ("Logos", "Flags / Maps", "Programming")
"""Excluded categories: sets of brands, flags or file types."""

SAME_SET_SHARE = 0.1
"""Share of the undeclared icons of a set that need a counterpart with a declared style to infer their style."""


@dataclass(frozen=True)
class Icon:
    """One drawing: its set and name, style and class, and SVG."""

    set_prefix: str
    name: str
    style: str
    label: str
    body: str
    """SVG markup without the enclosing element."""
    view_box: tuple[float, float, float, float]
    """left, top, width, height"""

    @property
    def key(self) -> str:
        return f"{self.set_prefix}--{self.name}"


@dataclass(frozen=True)
class Collection:
    """The free sets of the package, and counts of the sets left out."""

    version: str
    sets: dict[str, dict[str, Any]]
    """Prefix -> entry of collections.json, for the free sets."""
    folder: Path
    dropped: Counter[str]
    """Reason -> number of sets."""

    def icons(self) -> Iterator[Icon]:
        for prefix, info in self.sets.items():
            yield from _icons_of(
                json.loads((self.folder / "json" / f"{prefix}.json").read_text("utf-8")), info
            )


def read_collection(folder: str | Path) -> Collection:
    """Read the lists of the package.

    Raises:
        ValueError: `folder` is not the package; the message says how to get the package.
    """
    folder = Path(folder)
    try:
        listed = json.loads((folder / "collections.json").read_text("utf-8"))
        version = json.loads((folder / "package.json").read_text("utf-8"))["version"]
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} is not the npm package @iconify/json: {Path(error.filename).name} is missing; "
            "`npm install @iconify/json@2.2.535` installs the package in node_modules/@iconify/json"
        ) from None
    sets, dropped = {}, Counter()
    for prefix, info in listed.items():
        if not info["license"].get("spdx", "").startswith(FREE_LICENCES):
            dropped["sets: licence"] += 1
        elif info.get("category") in OTHER_CATEGORIES:
            dropped["sets: logos, flags, programming"] += 1
        else:
            sets[prefix] = info
    return Collection(version, sets, folder, dropped)


def _icons_of(content: dict[str, Any], info: dict[str, Any]) -> list[Icon]:
    prefix, icons = content["prefix"], content["icons"]
    set_words = f"{prefix.replace('-', ' ')} {info['name'].lower()}"
    named: list[tuple[str, str | None, str, dict[str, Any]]] = []
    for name, drawn_as in _drawings(content).items():
        style, label = style_and_class(name, set_words)
        if not BRANDS.intersection(label.split("-")):
            named.append((name, "colour" if info.get("palette") else style, label, icons[drawn_as]))
    default = _style_by_contrast(named)
    return [
        Icon(prefix, name, style or default, label, drawing["body"], _view_box(drawing, content))
        for name, style, label, drawing in named
    ]


def _drawings(content: dict[str, Any]) -> dict[str, str]:
    """Visible name in the set -> name of the icon that is drawn; aliases that rotate or mirror are left out."""
    drawings = {name: name for name, icon in content["icons"].items() if not icon.get("hidden")}
    for alias, target in content.get("aliases", {}).items():
        if set(target) == {"parent"} and target["parent"] in drawings:
            drawings.setdefault(alias, drawings[target["parent"]])
    return drawings


def _style_by_contrast(named: list[tuple[str, str | None, str, dict[str, Any]]]) -> str:
    """Return the style of the icons of a set without a declared style.

    Icons drawn by strokes are line icons. Otherwise pairs in the set decide: `home` beside `home-outline` is solid, and
    beside `home-fill` is line. A set without such pairs is a glyph set.
    """
    undeclared = [(label, drawing) for _, style, label, drawing in named if style is None]
    if not undeclared:
        return "glyph"
    if sum("stroke=" in drawing["body"] for _, drawing in undeclared) > len(undeclared) / 2:
        return "line"
    labels = {label for label, _ in undeclared}
    shares = {
        other: len(labels & {label for _, style, label, _ in named if style == declared}) / len(labels)
        for declared, other in (("solid", "line"), ("line", "solid"))
    }
    best = max(shares, key=lambda style: shares[style])
    return best if shares[best] > SAME_SET_SHARE else "glyph"


def _view_box(drawing: dict[str, Any], content: dict[str, Any]) -> tuple[float, float, float, float]:
    left, top, width, height = (
        drawing.get(key, content.get(key, default))
        for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    return left, top, width, height
