"""Every key of the configuration declares what it affects; lists of keys are derived from this."""

from __future__ import annotations

from typing import Annotated

import pytest

from fourds_dist.config.effects import (
    EACH_SAYS,
    RATES,
    SPEED,
    STAGES,
    WEIGHTS,
    Effect,
    affected,
    effect_on,
    keys_with,
)
from fourds_dist.config.section import ConfigSection
from fourds_dist.experiments.sweep.config import SweepConfig
from fourds_dist.stages.settings import Settings


@pytest.mark.parametrize("root", [Settings, SweepConfig])
def test_every_key_declares_what_it_affects(root: type[ConfigSection]) -> None:
    silent = [key for key, mark in affected(root).items() if mark.effect is None]
    assert not silent, f"mark these as `fourds_dist.config.effects` says: {silent}"


def test_a_section_speaks_for_its_keys_and_narrows_their_stages() -> None:
    class Inner(ConfigSection):
        """Inner."""

        loud: Annotated[int, WEIGHTS.of("source", "distill")] = 1
        """Marked."""

        silent: int = 1
        """Not marked."""

    class Root(ConfigSection):
        """Root."""

        one: Annotated[Inner, SPEED.of("distill")] = Inner()
        """Marked."""

        other: Annotated[Inner, EACH_SAYS.of("adapt")] = Inner()
        """Marked with stages alone."""

    marks = affected(Root)
    assert marks["one.loud"] == WEIGHTS.of("distill")
    assert marks["one.silent"] == SPEED.of("distill")
    assert marks["other.loud"] == WEIGHTS.of()
    assert marks["other.silent"].effect is None
    assert effect_on(Root, "other.silent") == Effect.WEIGHTS  # what says nothing is taken seriously
    assert keys_with(Root, {Effect.WEIGHTS}, "distill") == ["one.loud"]


def test_what_keys_of_a_run_say() -> None:
    marks = affected(Settings)
    assert marks["data.threads"].effect == Effect.SPEED
    assert marks["teacher.stages"] == WEIGHTS.of("distill")
    assert marks["distill_stage.optim.lr"] == RATES.of("distill")
    assert marks["source_stage.optim.adapter_lr"].stages == ()  # the source stage has no adapters
    assert marks["run.seed"].stages == STAGES
