"""The option of the released numbers: declared by the plugin, and its default is the file in tests/method/."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import pytest

from fourds_dist import pytest_plugin
from tests.method.test_released_fixture import NUMBERS


def test_the_option_takes_a_path() -> None:
    parser = pytest.Parser(_ispytest=True)
    pytest_plugin.pytest_addoption(parser)
    assert parser.parse(["--fixture", "other.json"]).fixture == Path("other.json")
    assert parser.parse([]).fixture is None  # the test takes its own file


def test_the_help_names_the_default_s_file() -> None:
    parser = pytest.Parser(_ispytest=True)
    pytest_plugin.pytest_addoption(parser)
    (option,) = parser.getgroup("fourds_dist").options
    assert NUMBERS.relative_to(Path(__file__).parents[1]).as_posix() in (option.attrs()["help"])
    assert NUMBERS.is_file()


def test_pytest_finds_the_plugin() -> None:
    (found,) = entry_points(group="pytest11", name="fourds_dist")
    assert found.load() is pytest_plugin
