"""Loading, merging and refusing configurations."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.config.loading import differences, draft, dump, load
from fourds_dist.config.section import ConfigError
from fourds_dist.io.storage import write_bytes
from fourds_dist.stages.settings import Settings
from tests.config.sections import Car, Engine


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "car.yaml"
    path.write_text("wheels: 3\nengine:\n  power: 1e2\n")
    return path


def test_later_sources_win(file: Path) -> None:
    car = load(Car, file, ["engine.kind=electric", "wheels=6", "gears=[3, 4.5]"])
    assert car == Car(wheels=6, gears=(3.0, 4.5), engine=Engine(power=100.0, kind="electric"))


def test_null_and_quoted_words_are_yaml() -> None:
    assert load(Car, None, ["name=null"]).name is None
    assert load(Car, None, ["name=no"]).name == "no"
    assert load(Car, None, ["name='12'"]).name == "12"


def test_dump_loads_back(file: Path, tmp_path: Path) -> None:
    car = load(Car, file)
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump(car))
    assert load(Car, copy) == car


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("wheel=3", ["'wheel'", "override 'wheel=3'", "'wheels'"]),
        ("engine.powr=3", ["'engine.powr'", "'engine.power'"]),
        ("power=3", ["'power'", "'engine.power'"]),
        ("wheels=many", ["wheels", "integer", "'many'"]),
        ("wheels=true", ["wheels", "integer"]),
        ("wheels=3.5", ["wheels", "integer"]),
        ("engine.power=-1", ["engine.power", "greater than 0", "-1"]),
        ("engine.kind=steam", ["engine.kind", "petrol", "steam"]),
        ("engine=3", ["engine"]),
        ("wheels", ["key=value"]),
        ("name=[", ["not YAML"]),
        ("engine.power.deep=1", ["engine.power"]),
    ],
)
def test_errors_name_key_file_and_remedy(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load(Car, None, [override])
    assert all(word in str(error.value) for word in words), error.value


def test_errors_name_the_file(file: Path) -> None:
    file.write_text("engine: {power: zero}\n")
    with pytest.raises(ConfigError, match=r"engine\.power.*car\.yaml"):
        load(Car, file)
    file.write_text("engin: {power: 1}\n")
    with pytest.raises(ConfigError, match=r"'engin'.*car\.yaml.*'engine'"):
        load(Car, file)
    file.write_text("- a list\n")
    with pytest.raises(ConfigError, match=r"car\.yaml holds a list"):
        load(Car, file)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(Car, file.with_name("absent.yaml"))


def test_differences_name_both_values(file: Path) -> None:
    assert differences(load(Car), load(Car, file)) == ["wheels: 4 -> 3", "engine.power: 1.0 -> 100.0"]


def test_a_file_builds_on_its_base(file: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "van.yaml").write_text("base: ../car.yaml\nengine: { kind: electric }\nname: van\n")
    car = load(Car, tmp_path / "sub" / "van.yaml", ["wheels=5"])
    assert car == Car(wheels=5, name="van", engine=Engine(power=100.0, kind="electric"))


def test_an_error_names_the_file_that_holds_it(file: Path, tmp_path: Path) -> None:
    file.write_text("engine: { power: -1 }\n")
    (tmp_path / "van.yaml").write_text("base: car.yaml\nwheels: 3\n")
    with pytest.raises(ConfigError, match=r"engine.power: .*car\.yaml"):
        load(Car, tmp_path / "van.yaml")


def test_files_at_urls() -> None:
    write_bytes("memory://conf/base.yaml", b"wheels: 3\nname: base\n")
    write_bytes("memory://conf/deep/er/van.yaml", b"base: ../../base.yaml\nname: van\n")
    assert load(Car, "memory://conf/deep/er/van.yaml", ["engine.power=2"]) == Car(
        wheels=3, name="van", engine=Engine(power=2.0)
    )
    with pytest.raises(ConfigError, match=r"memory://conf/absent\.yaml cannot be read: no such file"):
        load(Car, "memory://conf/absent.yaml")
    write_bytes("memory://conf/picture.yaml", b"\xff\xd8\xff")
    with pytest.raises(ConfigError, match="it is not text in UTF-8"):
        load(Car, "memory://conf/picture.yaml")
    write_bytes("memory://conf/round.yaml", b"base: deep/../round.yaml\n")
    with pytest.raises(ConfigError, match="its own base"):
        load(Car, "memory://conf/round.yaml")


@pytest.mark.parametrize(
    "key",
    [
        "data.resize_px", "data.crop_px", "data.threads", "data.read_threads", "data.prefetch_batches",
        "distill_stage.epochs", "distill_stage.global_batch_size",
        "source_stage.global_batch_size", "step.gradient_accumulation_steps",
        "step.eval_batch_size_per_rank", "launch.workers",
    ],
)  # fmt: skip
def test_a_number_that_nothing_could_hold_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=key.rpartition(".")[2]):
        draft(None, [f"{key}=999999999999"]).build(Settings)
