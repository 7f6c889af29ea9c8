"""What follows from labels that are there, hidden or missing: criteria, and the share of source images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fourds_dist.config.loading import load
from fourds_dist.config.section import ConfigError
from fourds_dist.config.stage_names import StageName
from fourds_dist.method.presets import WITH_TARGET_LABELS, WITHOUT_TARGET_LABELS
from fourds_dist.runs.accuracy import LABEL_FREE
from fourds_dist.stages.run_identity import depends_on
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.target_labels import (
    BEST_LABEL_FREE,
    computes_criteria,
    criterion,
    has_labels,
    label_free_method,
    method_of,
    source_fraction,
)
from tests.data.shards import write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder / "labelled", [6])
    write_dataset(folder / "bare", [6], labels=[-1] * 6)
    write_dataset(folder / "one", [6], labels=[1, 1, 1, -1, -1, -1])
    return folder


def settings(data: Path, target: str = "bare", source: str | None = "labelled", *words: str) -> Settings:
    urls = [f"target.url={data / target}", *([f"source.url={data / source}"] if source else [])]
    return load(Settings, None, [*urls, *words])


@pytest.mark.parametrize(
    ("target", "words", "by"),
    [
        ("labelled", (), "accuracy"),
        ("labelled", ("target.validation_labels=ignore",), BEST_LABEL_FREE),
        ("bare", (), BEST_LABEL_FREE),
        ("one", (), BEST_LABEL_FREE),  # a network that predicts one class would be perfect
        ("labelled", ("run.select_by=snd",), "snd"),
        ("bare", ("run.select_by=snd", "distill_stage.select_by=entropy"), "entropy"),
        ("labelled", ("run.select_by=snd", "distill_stage.select_by=auto"), "accuracy"),
        ("labelled", ("run.select_by=macro_f1",), "macro_f1"),
    ],
)
def test_the_criterion(data: Path, target: str, words: tuple[str, ...], by: str) -> None:
    given = settings(data, target, "labelled", *words)
    assert criterion("distill", given) == by
    assert criterion("source", given) == ("macro_f1" if by == "macro_f1" else "accuracy")
    assert computes_criteria("distill", given) == (by in LABEL_FREE)
    assert not computes_criteria("source", given)
    assert (
        depends_on(given, "distill")["run.select_by"]
        == depends_on(given, "distill")["distill_stage.select_by"]
    )
    assert computes_criteria("distill", settings(data, target, "labelled", *words, "run.criteria=all"))


@pytest.mark.parametrize(
    ("target", "source", "words", "fraction"),
    [
        ("bare", "labelled", (), 0.5),
        ("bare", None, (), 0.0),
        ("labelled", "labelled", (), 0.0),
        ("labelled", "labelled", ("target.labels_per_class=0",), 0.5),
        ("labelled", "labelled", ("target.labels_per_class=1",), 0.0),
        ("one", "labelled", (), 0.0),
        ("bare", "labelled", ("data.source_fraction=0",), 0.0),
        ("bare", "labelled", ("data.source_fraction=0.25",), 0.25),
        ("labelled", "labelled", ("data.source_fraction=0.25",), 0.25),
    ],
)
def test_the_share_of_source_images(
    data: Path, target: str, source: str | None, words: tuple[str, ...], fraction: float
) -> None:
    given = settings(data, target, source, *words)
    assert source_fraction(given) == fraction
    resolved = depends_on(given, "distill")
    assert resolved["data.source_fraction"] == fraction
    assert any(key.startswith("source.") for key in resolved) == (fraction > 0)


@pytest.mark.parametrize(
    ("target", "words", "is_free"),
    [
        ("bare", (), True),
        ("bare", ("data.source_fraction=0",), True),
        ("labelled", (), False),
        ("labelled", ("target.labels_per_class=0",), True),
        ("labelled", ("target.labels_per_class=1",), False),
        ("one", (), False),
        ("bare", ("method.preset=4ds_released",), False),
        ("bare", ("method.preset=distillation",), False),
    ],
)
def test_the_method(data: Path, target: str, words: tuple[str, ...], is_free: bool) -> None:
    given = settings(data, target, "labelled", *words)
    used = method_of(given)
    expected = WITHOUT_TARGET_LABELS["4ds"] if is_free else WITH_TARGET_LABELS
    assert {key: getattr(used, key) for key in WITH_TARGET_LABELS} == expected
    resolved = depends_on(given, "distill")
    assert {key: resolved[f"method.{key}"] for key in WITH_TARGET_LABELS} == expected
    assert not any(key.startswith("method.") for key in depends_on(given, "source"))
    line = label_free_method(given.method, used)
    assert (line is not None) == is_free
    assert line is None or "method.domain_batch_norm=true, method.infomax_weight=1" in line


def test_given_keys_of_the_method_win_and_are_not_told(data: Path) -> None:
    keys = {"domain_batch_norm": False, "infomax_weight": 0, "adapter_kd": "all"}
    words = [f"method.{key}={str(value).lower()}" for key, value in keys.items()]
    given = settings(data, "bare", "labelled", *words)
    assert method_of(given) == given.method
    assert label_free_method(given.method, method_of(given)) is None
    one, other = depends_on(given, "distill"), depends_on(settings(data, "labelled"), "distill")
    assert all(one[key] == value for key, value in other.items() if key.startswith("method."))


def test_data_that_cannot_be_read_count_as_labelled_for_the_identity(tmp_path: Path) -> None:
    given = settings(tmp_path, "gone", "gone")
    assert depends_on(given, "distill")["run.select_by"] == "accuracy"
    assert depends_on(given, "distill")["data.source_fraction"] == 0


def test_labels_of_a_split(data: Path) -> None:
    given = settings(data, "one", "labelled").target
    assert [has_labels(given, split) for split in ("train", "val", "test")] == [True, False, True]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("run.select_by=source_accuracy",),
            r"run\.select_by=source_accuracy needs labelled source",
        ),
        (
            ("distill_stage.select_by=confidence",),
            r"distill_stage\.select_by=confidence needs labelled source images",
        ),
        (
            ("source.url=s", "run.select_by=agreement", "method.preset=cross_entropy"),
            r"run\.select_by=agreement needs a teacher, and method\.preset=cross_entropy",
        ),
        (
            ("source.url=s", "source_stage.select_by=snd"),
            r"source_stage\.select_by=snd is for images without labels",
        ),
        (
            ("source.validation_labels=ignore",),
            r"source\.validation_labels=ignore: the source's labels are needed",
        ),
        (
            ("target.validation_labels=ignore", "run.select_by=accuracy"),
            r"run\.select_by=accuracy needs the labels that target\.validation_labels=ignore hides",
        ),
        (("run.select_by=snds",), "snd"),
    ],
)
def test_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(Settings, None, ["target.url=t", *words])


def test_agreement_of_a_given_teacher_is_allowed() -> None:
    names: tuple[StageName, ...] = ("adapt", "distill")
    given: dict[str, Any] = {"target": {"url": "t"}, "run": {"select_by": "agreement"}}
    assert [criterion(name, Settings.model_validate(given)) for name in names] == ["agreement"] * 2
