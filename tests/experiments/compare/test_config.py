"""The file of a comparison: pairs, baselines, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fourds_dist.experiments.compare.config import CompareConfig, EarlyStoppingConfig

GIVEN: dict[str, Any] = {"domains": {"a": "x", "b": "y", "c": "z"}, "methods": {"m": {}, "n": {}, "o": {}}}


def test_all_ordered_pairs_or_those_that_are_given() -> None:
    assert CompareConfig(**GIVEN).all_pairs == (
        ("a", "b"), ("a", "c"), ("b", "a"), ("b", "c"), ("c", "a"), ("c", "b"),
    )  # fmt: skip
    assert CompareConfig(**GIVEN, pairs=(("c", "a"),)).all_pairs == (("c", "a"),)


@pytest.mark.parametrize(
    ("baselines", "compared", "against"),
    [(None, ("m",), ("n", "o")), (("m",), ("n", "o"), ("m",)), ((), ("m", "n", "o"), ())],
)
def test_methods_are_compared_with_the_baselines(
    baselines: tuple[str, ...] | None, compared: tuple[str, ...], against: tuple[str, ...]
) -> None:
    config = CompareConfig(**GIVEN, baselines=baselines)
    assert (config.compared, config.all_baselines) == (compared, against)


def test_defaults() -> None:
    config = CompareConfig(**GIVEN)
    assert (config.name, config.seeds, config.regimes) == ("comparison", (0,), {"all": {}})
    assert (config.through, config.parallel, config.early_stopping) == ("ray", None, None)
    assert EarlyStoppingConfig() == EarlyStoppingConfig(after_epochs=5, margin_points=10.0)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"domains": {"a": "x"}}, "pairs: give at least one, and none twice"),
        ({"pairs": (("a", "b"), ("a", "b"))}, "pairs: give at least one, and none twice"),
        ({"seeds": ()}, "seeds: give at least one, and none twice"),
        ({"regimes": {}}, "regimes is empty"),
        ({"domains": {"a": "x", "b c": "y"}}, "domains: 'b c' becomes part of a folder's name"),
        ({"methods": {"m\n": {}}}, r"methods: 'm\\n' becomes part of a folder's name"),
        ({"baselines": ("n", "n")}, r"baselines: \['n', 'n'\] names a method twice"),
        ({"early_stopping": {"margin_points": 0.0}}, "margin_points"),
        ({"parallel": 0}, "parallel"),
        ({"through": "cluster"}, "through"),
    ],
)
def test_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CompareConfig(**{**GIVEN, **keys})


def test_no_two_pairs_share_a_folder_name() -> None:
    domains = {"a": "1", "b-to-c": "2", "a-to-b": "3", "c": "4"}
    message = "a -> b-to-c and a-to-b -> c would share the folder name 'a-to-b-to-c'; rename 'a-to-b'"
    with pytest.raises(ValidationError, match=message):
        CompareConfig(domains=domains, methods={"m": {}})
    pairs = (("a", "b-to-c"), ("a", "c"))
    assert CompareConfig(domains=domains, methods={"m": {}}, pairs=pairs).all_pairs == pairs
