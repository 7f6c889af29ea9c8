"""Files and values as trees: aliases, merge keys, bases, and bounds on all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fourds_dist.config.loading import load
from fourds_dist.config.section import ConfigError, ConfigSection
from fourds_dist.config.trees import copied, set_key, tree_of
from tests.config.sections import Car, Engine


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
    for text, message in (
        ("first: &me { power: *me }\n", r"an alias \(\*name\) holds itself"),
        ("".join(_bomb()), "more than 100000 values"),
        ("".join(_merges()), r"merge keys \(<<\) that stand for more than 100000 keys"),
        (_empty_merges(), r"merge keys \(<<\) that stand for more than 100000 keys"),
        (f"first: {'[' * 1500}\n", "nested too deeply"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=rf"garage\.yaml .*{message}"):
            load(Garage, path)


def test_merge_keys_fill_in_what_is_not_given(tmp_path: Path) -> None:
    path = tmp_path / "car.yaml"
    path.write_text("engine: &e { power: 2.0 }\n")
    car = load(Car, path)
    path.write_text("engine: { <<: [ { power: 2.0 }, { power: 3.0 } ] }\n<<: { wheels: 3 }\n")
    assert load(Car, path) == car.model_copy(update={"wheels": 3})


def test_a_text_that_is_read_again_is_not_what_was_made_of_it_before() -> None:
    text = "engine: { power: 2.0, gears: [1, { ratio: 2 }] }\n"
    first = tree_of(text, "one")
    set_key(first, "engine.power", 3.0)
    first["engine"]["gears"][1]["ratio"] = 3
    assert tree_of(text, "two") == {"engine": {"power": 2.0, "gears": [1, {"ratio": 2}]}}
    for where in ("one", "two"):  # and errors name where they are
        with pytest.raises(ConfigError, match=f"^{where} is not YAML"):
            tree_of("a: [", where)
        with pytest.raises(ConfigError, match=f"^{where}: a is read as a datetime"):
            tree_of("a: 2001-01-01T00:00:00Z", where)


def test_a_copy_shares_nothing() -> None:
    tree = {"engine": {"power": 2.0}, "gears": [1, {"ratio": [2]}], "name": None}
    copy = copied(tree)
    assert copy == tree
    copy["engine"]["power"] = 3.0
    copy["gears"][1]["ratio"].append(3)
    assert tree == {"engine": {"power": 2.0}, "gears": [1, {"ratio": [2]}], "name": None}


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


def test_bases_that_go_in_circles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ConfigError, match="its own base"):
        load(Car, tmp_path / "a.yaml")
