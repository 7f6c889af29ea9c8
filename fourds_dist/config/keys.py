"""The keys of a configuration: dotted names with type, default and meaning, read from the sections."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from fourds_dist.config.section import ConfigSection


def describe(root: type[ConfigSection]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (dotted key, type, default, meaning) of every key, in the order of declaration.

    The default is that of the section, or the value of the default preset.
    """
    yield from _described(root, "", None)


def _described(
    root: type[ConfigSection], prefix: str, default: ConfigSection | None
) -> Iterator[tuple[str, str, str, str]]:
    for name, field in root.model_fields.items():
        value = getattr(default, name) if default else field.get_default(call_default_factory=True)
        section = section_of(field.annotation)
        if section is not None:
            yield from _described(
                section, f"{prefix}{name}.", value if isinstance(value, ConfigSection) else None
            )
        else:
            shown = "required" if value is PydanticUndefined else json.dumps(plain_value(value))
            yield (
                prefix + name,
                _type_name(field.annotation),
                shown,
                " ".join((field.description or "").split()),
            )


def section_of(annotation: Any) -> type[ConfigSection] | None:
    """Return the section X of an annotation `X` or `X | None`; None for other annotations."""
    options = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    found = [o for o in options if isinstance(o, type) and issubclass(o, ConfigSection)]
    return found[0] if len(found) == 1 else None


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def fields_of(
    root: type[ConfigSection], prefix: str = ""
) -> Iterator[tuple[str, Any, type[ConfigSection] | None]]:
    """Yield (dotted key, pydantic's field, section or None) of every key, sections before their keys."""
    for name, field in root.model_fields.items():
        section = section_of(field.annotation)
        yield prefix + name, field, section
        if section is not None:
            yield from fields_of(section, f"{prefix}{name}.")


@cache
def sections_of(root: type[ConfigSection]) -> Mapping[str, type[ConfigSection] | None]:
    """Return dotted key -> section, or None for a key that is no section, of every key."""
    return MappingProxyType({key: section for key, _, section in fields_of(root)})


def plain_value(value: Any) -> Any:
    """Return a section as a dictionary of plain values; other values are returned as given."""
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _type_name(annotation: Any) -> str:
    if annotation is type(None):
        return "null"
    if typing.get_origin(annotation) is typing.Literal:
        return " | ".join(map(str, typing.get_args(annotation)))
    if _is_union(annotation):
        return " | ".join(_type_name(option) for option in typing.get_args(annotation))
    if typing.get_origin(annotation) is typing.Annotated:
        return _type_name(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is tuple:
        return f"[{_type_name(typing.get_args(annotation)[0])}, ...]"
    return getattr(annotation, "__name__", str(annotation))
