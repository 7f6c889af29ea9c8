"""A small configuration of two sections."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fourds_dist.config.section import ConfigSection


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
