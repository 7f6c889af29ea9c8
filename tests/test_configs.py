"""Every configuration that is shipped can be loaded."""

from pathlib import Path

import pytest

from fourds_dist.config import load, shipped
from fourds_dist.data.sources import SOURCES
from fourds_dist.data.sources.layouts import LAYOUTS
from fourds_dist.settings import Settings

FOLDER = shipped("quickstart.yaml").parent
RUNS = sorted(FOLDER.glob("*.yaml")) + sorted((FOLDER / "paper").glob("*.yaml"))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_loads(path: Path) -> None:
    load(Settings, path)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if len(LAYOUTS[name].domains) > 1])
def test_the_paper_s_data_sets_have_one_that_names_their_domains(name: str) -> None:
    settings = load(Settings, FOLDER / "paper" / f"{name}.yaml")
    packed = {f"shards/{name}-{domain}" for domain in LAYOUTS[name].domains}
    assert {settings.source.url, settings.target.url} <= packed
    assert name in SOURCES
    assert (settings.distill.epochs, settings.distill.global_batch_size, settings.distill.optim.lr) == (
        120,
        32,
        0.01,
    )
