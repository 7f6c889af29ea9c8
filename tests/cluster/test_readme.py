"""cluster/README.md names what is there, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fourds_dist.config.loading import load
from fourds_dist.stages.settings import Settings
from tests.cluster.conftest import COMPONENTS, OVERLAYS

CLUSTER = Path(__file__).parents[2] / "cluster"
TEXT = (CLUSTER / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("overlay", OVERLAYS, ids="overlays/{}".format)
def test_every_overlay_is_described(overlay: str) -> None:
    assert f"| `{overlay}` |" in TEXT


def test_every_component_is_named_somewhere() -> None:
    texts = [
        TEXT,
        *(path.read_text(encoding="utf-8") for path in CLUSTER.glob("kubernetes/overlays/*/*.yaml")),
    ]
    for component in COMPONENTS:
        assert any(f"components/{component}" in text for text in texts), component


def test_paths_exist() -> None:
    named = set(re.findall(r"(?<![\w/])(?:tests/)?cluster/[\w./-]+", TEXT)) | {
        f"cluster/kubernetes/{path}" for path in re.findall(r"`((?:setup|base|components)/[\w./-]+)`", TEXT)
    }
    assert len(named) > 10
    for path in named:
        assert (CLUSTER.parent / path.rstrip(".")).exists(), path


def test_keys_of_the_configuration_exist() -> None:
    settings = load(Settings)
    for section, key in re.findall(r"`?\b(launch|data|run)\.([a-z_]+)\b(?=[`=:])", TEXT):
        if key != "yaml":
            assert hasattr(getattr(settings, section), key), f"{section}.{key}"


def test_ten_failures() -> None:
    table = TEXT.split("## Ten failures")[1].split("\n\n")[1]
    assert len(table.splitlines()) - 2 == 10
