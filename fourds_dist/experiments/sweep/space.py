"""The search space: distributions over dotted keys, some of them active only where other keys have certain values.

    method.phase_loss:       { choice: [circular, squared] }
    method.gate_reduction:   { choice: [8, 16], when: { method.phase_loss: squared } }
    distill_stage.optim.lr:        { loguniform: [0.003, 0.3] }

Keys that are separated by commas, `teacher.stages, student.stages`, take the same value.

A point of the space is a dict of its active keys; the other keys keep the values of the base configuration.
"""

from __future__ import annotations

import difflib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any, Self

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import Field, model_validator

from fourds_dist.config.section import ConfigError, ConfigSection

Params = dict[str, Any]
"""Dotted key -> value."""


class SearchDimension(ConfigSection):
    """The distribution of one key: `choice`, `grid`, `uniform`, `loguniform` or `randint`, and `when` it is active."""

    choice: tuple[Any, ...] | None = None
    """One of these values, all equally likely."""

    grid: tuple[Any, ...] | None = None
    """Each of these values, combined with each value of every other grid."""

    uniform: tuple[float, float] | None = None
    """A number between two numbers, both included."""

    loguniform: tuple[float, float] | None = None
    """A number between two positive numbers, uniform in its logarithm."""

    randint: tuple[int, int] | None = None
    """A whole number between two whole numbers, both included."""

    when: dict[str, Any] = Field(default_factory=dict)
    """Keys, each with the value or list of values that makes this key active; otherwise the base gives its value."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [name for name in KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give one of {', '.join(KINDS)}, not {' and '.join(given) if given else 'none of them'}"
            )
        values = getattr(self, given[0])
        if not values:
            raise ValueError(f"{given[0]} is empty")
        if given[0] in ("choice", "grid") and len({label(value) for value in values}) < len(values):
            raise ValueError(f"{given[0]}: {list(values)} names a value twice")
        if given[0] in ("uniform", "loguniform", "randint") and not values[0] < values[1]:
            raise ValueError(f"{given[0]}: {list(values)} should be [low, high]")
        if self.loguniform is not None and self.loguniform[0] <= 0:
            raise ValueError(f"loguniform: {self.loguniform[0]:g} is not above 0")
        return self

    @property
    def kind(self) -> str:
        """Name of the distribution."""
        return next(name for name in KINDS if getattr(self, name) is not None)

    @property
    def values(self) -> tuple[Any, ...]:
        """All values of a choice or grid, or the two ends of a range."""
        return getattr(self, self.kind)

    def draw(self, rng: np.random.Generator) -> Any:
        """Draw a value; any value of a grid."""
        match self.kind:
            case "uniform":
                return float(rng.uniform(*self.values))
            case "loguniform":
                low, high = map(math.log, self.values)
                return float(min(max(math.exp(rng.uniform(low, high)), self.values[0]), self.values[1]))
            case "randint":
                return int(rng.integers(*self.values, endpoint=True))
            case _:
                return self.values[int(rng.integers(len(self.values)))]

    @property
    def distribution(self) -> BaseDistribution:
        """The distribution of Optuna; values of choices are their labels."""
        match self.kind:
            case "uniform" | "loguniform":
                return FloatDistribution(*self.values, log=self.kind == "loguniform")
            case "randint":
                return IntDistribution(*self.values)
            case _:
                return CategoricalDistribution([label(value) for value in self.values])

    def of_label(self, value: Any) -> Any:
        """The value that a value of Optuna stands for."""
        if self.kind in ("choice", "grid"):
            return next(v for v in self.values if label(v) == value)
        return value

    def to_label(self, value: Any) -> Any:
        """The value of Optuna for a value."""
        return label(value) if self.kind in ("choice", "grid") else value


MOST_POINTS = 100_000
"""Points of all grids of a space together, at most."""

KINDS = ("choice", "grid", "uniform", "loguniform", "randint")


def label(value: Any) -> str:
    """A value as short text, unique for every value."""
    return value if isinstance(value, str) else json.dumps(value)


def flattened(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, distribution) of a space whose keys are dotted or nested.

    Raises:
        ConfigError: a value that is no distribution.
    """
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if not isinstance(value, Mapping):
            near = difflib.get_close_matches(str(name), KINDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"give one of {', '.join(KINDS)}"
            raise ConfigError(f"space.{key}: {value!r} is no distribution; {hint}")
        if value.keys() & {*KINDS, "when"}:
            yield key, {k: tuple(v) if k in KINDS and isinstance(v, list) else v for k, v in value.items()}
        else:
            yield from flattened(value, f"{key}.")


def keys_of(key: str) -> list[str]:
    """The keys of the configuration that a key of the space stands for."""
    return [part.strip() for part in key.split(",")]


def expanded(params: Mapping[str, Any]) -> Params:
    """A point by keys of the configuration."""
    return {own: value for key, value in params.items() for own in keys_of(key)}


class Space:
    """All dimensions, each after the keys that its `when` names.

    Args:
        parameters: dotted key -> its distribution.
        base: returns the value of the base configuration for a dotted key that does not vary.

    Raises:
        ConfigError: conditions that depend on each other in a circle, or that never hold.
    """

    def __init__(self, parameters: Mapping[str, SearchDimension], base: Callable[[str], Any]) -> None:
        needs = {key: [k for k in p.when if k in parameters] for key, p in parameters.items()}
        try:
            order = list(TopologicalSorter(needs).static_order())
        except CycleError as error:
            raise ConfigError(
                f"space: the `when` of these keys go in a circle: {' -> '.join(error.args[1])}"
            ) from None
        self.parameters = {key: parameters[key] for key in order}
        self._base = base
        sizes = {key: len(parameters[key].values) for key in self.grid_keys}
        if (num := math.prod(sizes.values())) > MOST_POINTS:
            shown = " x ".join(f"{size} of {key}" for key, size in sizes.items())
            raise ConfigError(
                f"space: its grids are {num} points ({shown}), and at most {MOST_POINTS} are allowed; make some of "
                "them a choice"
            )
        for key, parameter in self.parameters.items():
            self._refuse_impossible(key, parameter)
            drawn = [k for k in needs[key] if parameters[k].kind != "grid"]
            if parameter.kind == "grid" and drawn:
                raise ConfigError(
                    f"space.{key}: a grid cannot depend on {drawn[0]}, which is drawn; make that one a grid too"
                )

    def _refuse_impossible(self, key: str, parameter: SearchDimension) -> None:
        for other, wanted in parameter.when.items():
            allowed = _listed(wanted)
            held = self.parameters.get(other)
            if held is None:
                if self._base(other) not in allowed:
                    raise ConfigError(
                        f"space.{key}.when: {other} is {self._base(other)!r} and does not vary; it is never {wanted!r}"
                    )
            elif held.kind in ("choice", "grid") and not any(value in allowed for value in held.values):
                raise ConfigError(
                    f"space.{key}.when: {other} is never {wanted!r}; it varies over {list(held.values)}"
                )

    @property
    def grid_keys(self) -> list[str]:
        """Keys whose values are enumerated."""
        return [key for key, parameter in self.parameters.items() if parameter.kind == "grid"]

    def walk(self, pick: Callable[[str, SearchDimension], Any]) -> Params:
        """Make a point by picking the value of each active key in turn."""
        params: Params = {}
        for key, parameter in self.parameters.items():
            if self._is_active(parameter, params):
                params[key] = pick(key, parameter)
        return params

    def draw(self, rng: np.random.Generator, fixed: Mapping[str, Any] | None = None) -> Params:
        """Draw a random point; values of active keys may be given."""
        given = fixed or {}
        return self.walk(lambda key, p: given[key] if key in given else p.draw(rng))

    def grid(self) -> list[Params]:
        """All combinations of the values of grids, each once; one empty point without a grid."""
        return self._grid

    @cached_property
    def _grid(self) -> list[Params]:
        grids = {key: self.parameters[key] for key in self.grid_keys}
        points: dict[str, Params] = {}
        for values in itertools.product(*(parameter.values for parameter in grids.values())):
            params: Params = {}
            for (key, parameter), value in zip(grids.items(), values, strict=True):
                if self._is_active(parameter, params):
                    params[key] = value
            points[json.dumps(params)] = params
        return list(points.values())

    def ask(self, trial: optuna.trial.BaseTrial) -> Params:
        """The point that Optuna proposes."""
        return self.walk(lambda key, p: p.of_label(_suggested(trial, key, p.distribution)))

    def as_optuna(self, params: Params) -> dict[str, Any]:
        """A point's values as Optuna knows them."""
        return {key: self.parameters[key].to_label(value) for key, value in params.items()}

    def distributions(self, params: Params) -> dict[str, BaseDistribution]:
        """Optuna's distributions of the keys that are active in a point."""
        return {key: self.parameters[key].distribution for key in params}

    def _is_active(self, parameter: SearchDimension, params: Params) -> bool:
        """Whether its conditions hold; keys that they name stand before it, or do not vary."""
        return all(
            (params[key] if key in params else self._base(key)) in _listed(wanted)
            for key, wanted in parameter.when.items()
        )


def _listed(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [wanted]


def _suggested(trial: optuna.trial.BaseTrial, key: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(key, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(key, distribution.low, distribution.high)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(key, distribution.low, distribution.high, log=distribution.log)
