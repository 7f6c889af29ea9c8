"""Sets of icons: free licences only, styles from names or from the other icons of the set, and one class each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fourds_dist.data.datasets.icons.collection import FREE_LICENCES, read_collection


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "json").mkdir()
    (tmp_path / "package.json").write_text('{"version": "1.2.3"}')
    return tmp_path


def written(folder: Path, icons: dict[str, Any], content: dict[str, Any] | None = None, **info: Any) -> Path:
    """A package of one set."""
    listed = {"set": {"name": "Plain", "license": {"spdx": "MIT"}} | info}
    (folder / "collections.json").write_text(json.dumps(listed))
    drawn = {name: {"body": body} if isinstance(body, str) else body for name, body in icons.items()}
    (folder / "json" / "set.json").write_text(json.dumps({"prefix": "set", "icons": drawn} | (content or {})))
    return folder


def styles(folder: Path) -> dict[str, str]:
    return {icon.name: icon.style for icon in read_collection(folder).icons()}


def test_licences_and_categories(package: Path) -> None:
    for number, (spdx, category) in enumerate(
        [
            ("CC-BY-NC-4.0", None),
            ("GPL-3.0", None),
            (None, None),
            ("MIT", "Logos"),
            ("Apache-2.0", "Flags / Maps"),
        ]
    ):
        written(package, {"home": "b"}, license={"spdx": spdx} if spdx else {"title": "?"}, category=category)
        found = read_collection(package)
        assert found.sets == {}
        assert found.dropped == {"sets: licence" if number < 3 else "sets: logos, flags, programming": 1}
    for licence in FREE_LICENCES:
        found = read_collection(
            written(package, {"home": "b"}, license={"spdx": f"{licence}x"}, category="General")
        )
        assert (list(found.sets), found.version, found.dropped) == (["set"], "1.2.3", {})


def test_icons_aliases_and_view_boxes(package: Path) -> None:
    content = {
        "height": 24,
        "aliases": {
            "house": {"parent": "home"},
            "homely": {"parent": "house"},
            "turned": {"parent": "home", "rotate": 1},
            "gone": {"parent": "secret"},
        },
    }
    icons = {
        "home": {"body": "h", "left": -2, "width": 20},
        "secret": {"body": "s", "hidden": True},
        "twitter": "t",
    }
    found = {icon.name: icon for icon in read_collection(written(package, icons, content)).icons()}
    assert set(found) == {"home", "house", "homely"}  # no brands, no hidden drawings, no rotated ones
    assert [(icon.body, icon.view_box) for icon in found.values()] == [("h", (-2, 0, 20, 24))] * 3
    assert [found[name].label for name in ("home", "house")] == ["home"] * 2
    assert found["house"].key == "set--house"


def test_styles_without_words(package: Path) -> None:
    both = {f"{name}-outline": "o" for name in ("home", "bell", "flag")} | {"home": "h", "bell": "b"}
    assert styles(written(package, both))["bell"] == "solid"  # beside outlines
    both = {name.replace("outline", "fill"): body for name, body in both.items()}
    assert (styles(written(package, both))["bell"], styles(package)["bell-fill"]) == ("line", "solid")
    assert set(styles(written(package, {"home": "h", "bell": "b"})).values()) == {"glyph"}
    assert set(
        styles(
            written(package, {"home": '<g stroke="#000"/>', "bell": "b", "flag": '<g stroke="red"/>'})
        ).values()
    ) == {"line"}
    assert set(styles(written(package, both, palette=True)).values()) == {"colour"}


@pytest.mark.parametrize("name", ["collections.json", "package.json"])
def test_another_folder(package: Path, name: str) -> None:
    (written(package, {}) / name).unlink()
    with pytest.raises(
        ValueError, match=rf"{package} is not the npm package @iconify/json: {name} is missing; `npm install"
    ):
        read_collection(package)
