"""The whole benchmark, from a small package of the published layout with real SVGs."""

import io
import json
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from fourds_dist.data.datasets.icons.benchmark import icons
from fourds_dist.data.datasets.icons.render import is_blank

pytest.importorskip("resvg_py")

# Three subjects, drawn differently by every designer (the numbers are coordinates on a grid of 24).
SUBJECTS = {
    "home": "M{a} {b}L12 {c}L{d} {b}V20H{a}Z",
    "flag": "M{a} 2V22M{a} {c}H{d}L{d} {b}H{a}",
    "bell": "M{a} 18H{d}L17 {b}A5 5 0 0 0 7 {b}ZM{c} 21h4",
}


def body(subject, designer, style):
    generator = np.random.default_rng((designer, *subject.encode()))
    path = SUBJECTS[subject].format(
        a=generator.integers(2, 7),
        b=generator.integers(9, 14),
        c=generator.integers(1, 6),
        d=generator.integers(17, 23),
    )
    colour = "#2a6" if style == "colour" else "currentColor"
    if style == "line":
        return f'<path fill="none" stroke="{colour}" stroke-width="1.5" d="{path}"/>'
    return f'<path fill="{colour}" d="{path}z"/>'


@pytest.fixture
def package(tmp_path):
    """Eight designers, each with a two-style set and a plain set, half of them one in colour; and sets to leave out."""
    folder = tmp_path / "node_modules" / "@iconify" / "json"
    (folder / "json").mkdir(parents=True)
    collections = {}

    def add(prefix, icons, author, licence="MIT", aliases=None, **info):
        collections[prefix] = {
            "name": prefix.title(), "author": {"name": author}, "license": {"spdx": licence}, **info
        }  # fmt: skip
        content = {"prefix": prefix, "icons": icons, "aliases": aliases or {}, "width": 24, "height": 24}
        (folder / "json" / f"{prefix}.json").write_text(json.dumps(content))

    for d in range(8):
        styled = {f"{s}-outline": {"body": body(s, d, "line")} for s in SUBJECTS}
        styled |= {f"{s}-fill": {"body": body(s, d, "solid")} for s in SUBJECTS}
        add(f"two{d}", styled, f"designer {d}", aliases={"house-fill": {"parent": "home-fill"}})
        add(f"plain{d}", {s: {"body": body(s, d + 100, "solid")} for s in SUBJECTS}, f"designer {d}")
        if d % 2:
            coloured = {s: {"body": body(s, d + 200, "colour")} for s in SUBJECTS}
            add(f"paint{d}", coloured, f"designer {d}", palette=True)
    add("copycat", {f"{s}-outline": {"body": body(s, 3, "line")} for s in SUBJECTS}, "somebody else")
    add("white", {"home-outline": {"body": '<path fill="#fff" d="M2 2h20v20H2z"/>'}}, "ghost")
    add("moving", {"flag": {"body": '<path d="M0 0h9v9"><animate attributeName="d"/></path>'}}, "animator")
    add("closed", {"home": {"body": body("home", 50, "solid")}}, "x", licence="CC-BY-NC-4.0")
    add("brands", {"home": {"body": body("home", 51, "solid")}}, "y", category="Logos")
    (folder / "collections.json").write_text(json.dumps(collections))
    (folder / "package.json").write_text(json.dumps({"version": "9.9.9"}))
    return folder


@pytest.fixture
def domains(package):
    return icons(package, size=48, min_sets=3, val_fraction=0.15, test_fraction=0.25)


def test_domains_classes_and_pixels(domains):
    # No set here is duotone: a domain without images is not made.
    assert [domain.name for domain in domains] == ["icons-line", "icons-solid", "icons-glyph", "icons-colour"]
    for domain in domains:
        assert domain.classes == ("bell", "flag", "home")
        examples = list(domain)
        assert Counter(e.split for e in examples) == domain.notes["images"]
        assert len({e.key for e in examples}) == len(examples)
        for example in examples:
            image = Image.open(io.BytesIO(example.image))
            assert (image.size, image.mode) == ((48, 48), "RGB")
            assert not is_blank(image)
            assert np.asarray(image)[0, 0].tolist() == [255, 255, 255]
            coloured = np.ptp(np.asarray(image, dtype=int), axis=2).max() > 50
            assert coloured == (domain.name == "icons-colour")
    line, solid = ({(e.key.split("--")[0], e.label): e for e in d} for d in domains[:2])
    ink = [np.asarray(Image.open(io.BytesIO(d["two1", "home"].image))).mean() for d in (line, solid)]
    assert ink[0] > ink[1]


def test_a_designer_is_on_one_side_in_every_domain(domains):
    sides = defaultdict(set)
    for domain in domains:
        for example in domain:
            designer = example.key.split("--")[0][-1]
            sides[designer].add(example.split)
    assert all(len(splits) == 1 for splits in sides.values())
    assert {split for splits in sides.values() for split in splits} == {"train", "val", "test"}


def test_skipped_icons_are_counted_and_used_icons_are_credited(domains):
    dropped = domains[0].notes["dropped"]
    assert dropped["sets: licence"] == 1
    assert dropped["sets: logos, flags, programming"] == 1
    assert dropped["icons: animated"] == 1
    assert dropped["icons: blank on white"] == 1
    assert dropped["icons: near duplicates"] >= 3 + 8  # The copied set, and the aliases.
    used = {example.key.split("--")[0] for domain in domains for example in domain}
    assert not used & {"copycat", "white", "moving", "closed", "brands"}
    assert domains[0].notes["origin"] == "npm @iconify/json 9.9.9"
    assert domains[0].notes["sets"]["two1"] == {"title": "Two1", "author": "designer 1", "licence": "MIT"}


def test_errors(tmp_path, package):
    with pytest.raises(ValueError, match=r"collections\.json is missing.*npm install @iconify/json"):
        icons(tmp_path)
    with pytest.raises(ValueError, match="no class has drawings in 30 sets"):
        icons(package, min_sets=30)
