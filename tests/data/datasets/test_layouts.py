"""The table of layouts is consistent, and each domain has a dataset folder of its own."""

from __future__ import annotations

import pytest

from fourds_dist.data.datasets.layouts import LAYOUTS, folder_of


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_complete(name: str) -> None:
    layout = LAYOUTS[name]
    assert bool(layout.class_folders) != bool(layout.lists)  # folders of classes or lists
    templates = [*layout.class_folders, *(file for files in layout.lists for file in files.values())]
    published = [
        t.format(domain=domain, part="train") for t in templates for domain in layout.domains.values()
    ]
    assert len(set(published)) == len(published)
    assert all(set(files) in ({"all"}, {"train", "test"}) for files in layout.lists)
    if layout.classes is not None:
        assert len(set(layout.classes)) == len(layout.classes) == layout.num_classes
    assert "." in layout.roots
    assert 0 < layout.test_fraction < 1


def test_folders() -> None:
    assert folder_of("office-home", "real-world") == "office-home-real-world"
    assert folder_of("mnist-m", "mnist-m") == "mnist-m"
    folders = [folder_of(name, domain) for name, layout in LAYOUTS.items() for domain in layout.domains]
    assert len(set(folders)) == len(folders) == 28
