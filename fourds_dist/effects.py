"""What a key of the configuration affects. Each key says so itself; what a run may change is asked of that alone.

threads: Annotated[int | None, SPEED] = None
source_fraction: Annotated[float, WEIGHTS.of("adapt", "distill")] = 0.0
launch: Annotated[LaunchConfig, SPEED] = LaunchConfig()        all keys of a section that say nothing themselves
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from fourds_dist.config import Section, section_of
from fourds_dist.runs.layout import STAGES


class Effect(enum.Enum):
    """What becomes another with another value."""

    WEIGHTS = enum.auto()
    """The weights that a stage leaves."""
    RATES = enum.auto()
    """The same, by the optimiser's rates alone: a checkpoint of one value fits a run with another."""
    IMAGES = enum.auto()
    """Where images are read from. The same images at another place leave the same weights."""
    NUMERICS = enum.auto()
    """Rounding, the order of images, or the parts of a batch that BatchNorm normalises: the same training in slightly
    other numbers."""
    SPEED = enum.auto()
    """Time, memory, workers."""
    COURSE = enum.auto()
    """How far a run goes, what it outlasts, what it keeps."""
    PLACE = enum.auto()
    """Names and folders."""
    LOG = enum.auto()
    """What is told of the run."""


LEARNT = frozenset({Effect.WEIGHTS, Effect.RATES})
"""Effects that change what is learnt."""
NO_RESULT = frozenset({Effect.SPEED, Effect.COURSE, Effect.PLACE, Effect.LOG})
"""Effects that change no bit of a result."""


@dataclass(frozen=True)
class Affects:
    """The mark of a key, or of a section for all its keys.

    Args:
        effect: None: the keys of the section say it themselves.
        stages: the stages that are affected.
    """

    effect: Effect | None = None
    stages: tuple[str, ...] = STAGES

    def of(self, *stages: str) -> Affects:
        """The same of some stages only."""
        return replace(self, stages=stages)

    def within(self, outer: Affects) -> Affects:
        """The same of a key in a section that is marked too."""
        stages = tuple(stage for stage in self.stages if stage in outer.stages)
        return Affects(self.effect or outer.effect, stages)


WEIGHTS, IMAGES, NUMERICS = Affects(Effect.WEIGHTS), Affects(Effect.IMAGES), Affects(Effect.NUMERICS)
SPEED, COURSE = Affects(Effect.SPEED), Affects(Effect.COURSE)
PLACE, LOG = Affects(Effect.PLACE), Affects(Effect.LOG)
RATES = Affects(Effect.RATES)
EACH_SAYS = Affects()


@cache
def affected(root: type[Section]) -> dict[str, Affects]:
    """Dotted key -> what it affects, of every key of a configuration.

    A key that says nothing, nor its section, has `effect` None; a test refuses such keys.
    """
    return dict(_affected(root, "", EACH_SAYS))


def effect_on(root: type[Section], key: str) -> Effect:
    """What a key affects, or a part of its value (space.x of `space`); a key that says nothing counts as weights."""
    marks = affected(root)
    while key not in marks and "." in key:
        key = key.rpartition(".")[0]
    mark = marks.get(key)
    return (mark and mark.effect) or Effect.WEIGHTS


def keys_with(root: type[Section], effects: Collection[Effect], stage: str | None = None) -> list[str]:
    """The keys that have one of some effects, on one stage or on any."""
    return [
        key
        for key, affects in affected(root).items()
        if effect_on(root, key) in effects and (stage is None or stage in affects.stages)
    ]


def _affected(root: type[Section], prefix: str, outer: Affects) -> Iterator[tuple[str, Affects]]:
    for name, field in root.model_fields.items():
        own = _mark(field.metadata).within(outer)
        section = section_of(field.annotation)
        if section is None:
            yield f"{prefix}{name}", own
        else:
            yield from _affected(section, f"{prefix}{name}.", own)


def _mark(metadata: list[Any]) -> Affects:
    return next((mark for mark in metadata if isinstance(mark, Affects)), EACH_SAYS)
