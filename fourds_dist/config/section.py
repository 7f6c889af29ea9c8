"""Base class of configuration sections, and the error for invalid configurations."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ConfigSection(BaseModel):
    """Base of every configuration section: immutable, strict about types, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class ConfigError(ValueError):
    """An invalid configuration; the message names the key, the file or override that gives it, and the remedy."""
