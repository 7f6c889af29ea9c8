"""The base of all sections: immutable, strict, and without unknown keys."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fourds_dist.config.section import ConfigError, ConfigSection
from tests.config.sections import Car, Engine


def test_a_section_is_immutable_and_hashable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Engine().power = 2.0
    assert hash(Engine(power=2.0)) == hash(Engine(power=2.0))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"wheel": 3}, "extra_forbidden"),
        ({"wheels": "3"}, "int_type"),
        ({"wheels": True}, "int_type"),
        ({"engine": {"power": "1"}}, "float_type"),
    ],
)
def test_unknown_keys_and_other_types_are_refused(values: dict[str, Any], kind: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        Car.model_validate(values)
    assert [error["type"] for error in refusal.value.errors()] == [kind]


def test_docstrings_describe_the_keys() -> None:
    assert Engine.model_fields["power"].description == "Power in kW."
    assert issubclass(Engine, ConfigSection)


def test_an_invalid_configuration_is_a_value_error() -> None:
    assert issubclass(ConfigError, ValueError)
