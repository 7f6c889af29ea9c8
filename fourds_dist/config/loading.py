"""Typed configuration: defaults < YAML < `key=value`, checked completely before any long work.

Each part of the package declares a frozen section beside the code that it configures: a subclass of `ConfigSection`
whose attributes have docstrings. The root `fourds_dist.stages.settings.Settings` combines the sections. This module
loads, merges, checks and dumps such a tree:

    settings = load(Settings, "configs/quickstart.yaml", ["launch.workers=4", "method.preset=4ds_released"])
"""

from __future__ import annotations

import difflib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML

from fourds_dist.config.keys import sections_of
from fourds_dist.config.section import ConfigError, ConfigSection
from fourds_dist.config.trees import copied, flatten, read_tree, set_key, shown_value, tree_of

S = TypeVar("S", bound=ConfigSection)


@dataclass(frozen=True)
class Draft:
    """A configuration as given, before validation: missing keys stay missing, so that a preset can fill them."""

    tree: dict[str, Any]
    origin: dict[str, str]
    """Dotted key -> file or override that gives it."""

    def changed(self, changes: Mapping[str, Any], where: str) -> Draft:
        """Return a copy with changed dotted keys; errors about these keys name `where`."""
        tree, origin = copied(self.tree), dict(self.origin)
        for key, value in changes.items():
            set_key(tree, key, value)
            origin[key] = where
        return Draft(tree, origin)

    def refuse_unknown_keys(self, root: type[ConfigSection]) -> None:
        """Raise ConfigError for a key that `root` does not have; the message suggests the nearest valid key."""
        _refuse_unknown_keys(root, self.tree, self.origin)

    def build(self, root: type[S]) -> S:
        """Return the typed configuration.

        Raises:
            ConfigError: unknown key (the message suggests the nearest valid key), wrong type, invalid value.
        """
        self.refuse_unknown_keys(root)
        try:
            # JSON mode is strict about scalars, and accepts a list for a tuple.
            return root.model_validate_json(json.dumps(self.tree))
        except ValidationError as error:
            raise ConfigError(_explain(error, self.origin)) from None


def draft(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Draft:
    """Read a YAML file (path or URL) and `dotted.key=value` overrides; later values win. See `load`.

    Raises:
        ConfigError: unreadable file, or an override that is not `key=value`.
    """
    given = Draft(*read_tree(str(path))) if path is not None else Draft({}, {})
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign or not key:
            raise ConfigError(f"override {override!r} is not of the form key=value, e.g. launch.workers=4")
        where = f"override {override!r}"
        given = given.changed({key.strip(): tree_of(text, where)}, where)
    return given


def parsed(text: str, where: str) -> Draft:
    """Read a YAML text.

    Raises:
        ConfigError: the text is not YAML, or has no `key: value` lines.
    """
    tree = tree_of(text, where)
    if not isinstance(tree, dict):
        raise ConfigError(f"{where} holds a {type(tree).__name__}; it should hold `key: value` lines")
    return Draft(tree, {key: where for key, _ in flatten(tree)})


def load(root: type[S], path: str | Path | None = None, overrides: Sequence[str] = ()) -> S:
    """Build `root` from its defaults, a YAML file and `dotted.key=value` overrides; later values win.

    `path` is a path or URL. The key `base` of a file names another file, relative to this one, whose values the file
    overrides. Values of overrides are YAML: `a.b=3`, `a.b=[1, 2]`, `a.b=null`.

    Raises:
        ConfigError: unreadable file, unknown key (the message suggests the nearest key), wrong type, invalid value.
    """
    return draft(path, overrides).build(root)


def builtin_config(name: str) -> Path:
    """Return the path of a configuration of the package: in configs/ of a clone, or inside the installed package."""
    installed = Path(__file__).parents[1] / "configs" / name
    return installed if installed.exists() else Path(__file__).parents[2] / "configs" / name


def dump(settings: ConfigSection) -> str:
    """Return the complete configuration as YAML; `load` of the text returns `settings`."""
    return to_yaml(settings.model_dump(mode="json"))


def to_yaml(tree: Mapping[str, Any]) -> str:
    """Return plain values as YAML, in their order."""
    out = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # pyright: ignore[reportAttributeAccessIssue]
    yaml.dump(dict(tree), out)
    return out.getvalue()


def differing(old: ConfigSection, new: ConfigSection) -> dict[str, str]:
    """Return dotted key -> 'key: old -> new' of the keys in which two configurations of one root differ."""
    before, after = dict(flatten(old.model_dump(mode="json"))), dict(flatten(new.model_dump(mode="json")))
    keys = [*before, *(key for key in after if key not in before)]
    return {k: f"{k}: {before.get(k)!r} -> {after.get(k)!r}" for k in keys if before.get(k) != after.get(k)}


def differences(old: ConfigSection, new: ConfigSection) -> list[str]:
    """Return 'key: old -> new' of the keys in which two configurations of one root differ."""
    return list(differing(old, new).values())


def as_words(settings: ConfigSection, keys: Iterable[str]) -> list[str]:
    """Return `key=value` words that set keys to their values in `settings`."""
    values, words = dict(flatten(settings.model_dump(mode="json"))), []
    for key in keys:
        value = values[key]
        is_plain = isinstance(value, str) and tree_of(value, key) == value if value else False
        words.append(f"{key}={value if is_plain else json.dumps(value)}")
    return words


def _refuse_unknown_keys(root: type[ConfigSection], tree: dict[str, Any], origin: dict[str, str]) -> None:
    valid = sections_of(root)

    def walk(node: dict[str, Any], prefix: str) -> None:
        for name, value in node.items():
            key = f"{prefix}{name}"
            if key not in valid:
                nearest = _nearest(key, list(valid))
                hint = f"did you mean {nearest!r}?" if nearest else "--help lists every key"
                raise ConfigError(f"unknown key {key!r} in {_where(key, origin)}; {hint}")
            if valid[key] is not None and isinstance(value, dict):
                walk(value, f"{key}.")

    walk(tree, "")


def _nearest(key: str, valid: list[str]) -> str | None:
    close = difflib.get_close_matches(key, valid, n=1, cutoff=0.6)
    if close:
        return close[0]
    # The key may be in another section: compare the last parts only.
    by_name = {candidate.rpartition(".")[2]: candidate for candidate in valid}
    close = difflib.get_close_matches(key.rpartition(".")[2], list(by_name), n=1, cutoff=0.8)
    return by_name[close[0]] if close else None


def _where(key: str, origin: dict[str, str]) -> str:
    for candidate, where in reversed(origin.items()):
        if candidate == key or candidate.startswith(f"{key}.") or key.startswith(f"{candidate}."):
            return where
    return "the defaults"


def _explain(error: ValidationError, origin: dict[str, str]) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        given = (
            "" if problem["type"] in ("missing", "value_error") else f", not {shown_value(problem['input'])}"
        )
        where = f" (from {_where(key, origin)})" if key else ""
        lines.append(f"{key}: {message}{given}{where}" if key else message)
    return "\n".join(dict.fromkeys(lines))
