"""Loading, merging and refusing configurations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from fourds_dist.config.loading import describe, differences, draft, dump, load
from fourds_dist.config.section import ConfigError, ConfigSection
from fourds_dist.io.storage import write_bytes
from fourds_dist.stages.settings import Settings


class Engine(ConfigSection):
    """Inner section."""

    power: float = Field(default=1.0, gt=0)
    """Power in kW."""

    kind: Literal["petrol", "electric"] = "petrol"
    """What drives it."""


class Car(ConfigSection):
    """Root."""

    wheels: int = 4
    """How many."""

    name: str | None = None
    """Its name."""

    gears: tuple[float, ...] = (1.0, 2.0)
    """Ratios."""

    engine: Engine = Engine()
    """What moves it."""


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


def test_every_key_is_described() -> None:
    table = {key: (kind, default, meaning) for key, kind, default, meaning in describe(Car)}
    assert table["engine.power"] == ("float", "1.0", "Power in kW.")
    assert table["name"] == ("str | null", "null", "Its name.")
    assert table["gears"][0] == "[float, ...]"
    assert all(meaning for _, _, meaning in table.values())


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


def test_aliases_are_copies(tmp_path: Path) -> None:
    path = tmp_path / "garage.yaml"
    path.write_text("first: &engine { power: 2.0 }\nsecond: *engine\n")

    class Garage(ConfigSection):
        """Two engines."""

        first: Engine = Engine()
        """One."""

        second: Engine = Engine()
        """Another."""

    garage = load(Garage, path, ["first.power=3"])
    assert (garage.first.power, garage.second.power) == (3.0, 2.0)
    for text, told in (
        ("first: &me { power: *me }\n", r"an alias \(\*name\) holds itself"),
        ("".join(_bomb()), "more than 100000 values"),
        ("".join(_merges()), r"merge keys \(<<\) that stand for more than 100000 keys"),
        (_empty_merges(), r"merge keys \(<<\) that stand for more than 100000 keys"),
        (f"first: {'[' * 1500}\n", "nested too deeply"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=rf"garage\.yaml .*{told}"):
            load(Garage, path)


def test_merge_keys_fill_in_what_is_not_given(tmp_path: Path) -> None:
    path = tmp_path / "car.yaml"
    path.write_text("engine: &e { power: 2.0 }\n")
    car = load(Car, path)
    path.write_text("engine: { <<: [ { power: 2.0 }, { power: 3.0 } ] }\n<<: { wheels: 3 }\n")
    assert load(Car, path) == car.model_copy(update={"wheels": 3})


def _merges() -> Iterator[str]:
    yield "x0: &x0 { a: 1 }\n"
    for number in range(1, 12):
        yield f"x{number}: &x{number} {{ <<: [{', '.join([f'*x{number - 1}'] * 9)}] }}\n"


def _empty_merges() -> str:
    names = ", ".join(["{}"] * 400)
    return f"all: &all [{names}]\nto:\n" + "- <<: *all\n" * 400


def _bomb() -> Iterator[str]:
    yield "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    for number in range(1, 8):
        yield f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 10)}]\n"


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


def test_bases_that_go_in_circles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ConfigError, match="its own base"):
        load(Car, tmp_path / "a.yaml")


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
