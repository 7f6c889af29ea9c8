"""Every configuration that is shipped can be loaded."""

from pathlib import Path

import pytest

from fourds_dist.config.keys import describe
from fourds_dist.config.loading import builtin_config, load
from fourds_dist.data.datasets.layouts import LAYOUTS
from fourds_dist.data.datasets.registry import DATASET_BUILDERS
from fourds_dist.stages.settings import Settings, SourceStageConfig

FOLDER = builtin_config("quickstart.yaml").parent
RUNS = sorted(FOLDER.glob("*.yaml")) + sorted((FOLDER / "paper").glob("*.yaml"))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_loads(path: Path) -> None:
    load(Settings, path)


def test_what_is_given_of_a_stage_leaves_its_other_defaults() -> None:
    assert load(Settings, None, ["source_stage.epochs=5"]).source_stage == SourceStageConfig(epochs=5)
    assert SourceStageConfig(epochs=5).global_batch_size == Settings().source_stage.global_batch_size == 64


def test_help_tells_what_the_default_preset_fills_in() -> None:
    told = {key: default for key, _, default, _ in describe(Settings)}
    settings = Settings()
    assert told["method.untrained_warmup_power"] == str(settings.method.untrained_warmup_power) == "16.0"
    assert told["method.normalise_kd"] == f'"{settings.method.normalise_kd}"'
    assert told["source_stage.global_batch_size"] == "64"


@pytest.mark.parametrize("name", [name for name in LAYOUTS if len(LAYOUTS[name].domains) > 1])
def test_the_paper_s_data_sets_have_one_that_names_their_domains(name: str) -> None:
    settings = load(Settings, FOLDER / "paper" / f"{name}.yaml")
    packed = {f"shards/{name}-{domain}" for domain in LAYOUTS[name].domains}
    assert {settings.source.url, settings.target.url} <= packed
    assert name in DATASET_BUILDERS
    assert (
        settings.distill_stage.epochs,
        settings.distill_stage.global_batch_size,
        settings.distill_stage.optim.lr,
    ) == (
        120,
        32,
        0.01,
    )
