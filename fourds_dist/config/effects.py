"""Effects of configuration keys. Each key is annotated with its effect, which decides whether a run may change the key.

threads: Annotated[int | None, SPEED] = None
source_fraction: Annotated[float, WEIGHTS.of("adapt", "distill")] = 0.0
launch: Annotated[LaunchConfig, SPEED] = LaunchConfig()        all keys of the section without an annotation
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from fourds_dist.config.keys import section_of
from fourds_dist.config.section import ConfigSection
from fourds_dist.config.stage_names import STAGES


class Effect(enum.Enum):
    """What another value of a key changes."""

    WEIGHTS = enum.auto()
    """Weights that a stage trains."""
    RATES = enum.auto()
    """Weights, through rates of the optimiser only: a run can resume a checkpoint of another value."""
    IMAGES = enum.auto()
    """Location of images; the same images at another URL give the same weights."""
    NUMERICS = enum.auto()
    """Rounding, order of images, or the parts of a batch that BatchNorm normalises: the same training with slightly
    different numbers."""
    SPEED = enum.auto()
    """Time, memory, workers."""
    COURSE = enum.auto()
    """Last stage of a run, retries, and the files that it keeps."""
    PLACE = enum.auto()
    """Names and folders of runs."""
    LOG = enum.auto()
    """Logs of the run."""


LEARNT = frozenset({Effect.WEIGHTS, Effect.RATES})
"""Effects that change the trained weights beyond rounding."""
NO_RESULT = frozenset({Effect.SPEED, Effect.COURSE, Effect.PLACE, Effect.LOG})
"""Effects that change no bit of the result."""


@dataclass(frozen=True)
class Affects:
    """Annotation of a key, or of a section for all its keys.

    Args:
        effect: None: the keys of the section have annotations.
        stages: affected stages.
    """

    effect: Effect | None = None
    stages: tuple[str, ...] = STAGES

    def of(self, *stages: str) -> Affects:
        """Return the same effect on fewer stages."""
        return replace(self, stages=stages)

    def within(self, outer: Affects) -> Affects:
        """Return the effect of a key in a section with the annotation `outer`."""
        stages = tuple(stage for stage in self.stages if stage in outer.stages)
        return Affects(self.effect or outer.effect, stages)


WEIGHTS, IMAGES, NUMERICS = Affects(Effect.WEIGHTS), Affects(Effect.IMAGES), Affects(Effect.NUMERICS)
SPEED, COURSE = Affects(Effect.SPEED), Affects(Effect.COURSE)
PLACE, LOG = Affects(Effect.PLACE), Affects(Effect.LOG)
RATES = Affects(Effect.RATES)
EACH_SAYS = Affects()


@cache
def affected(root: type[ConfigSection]) -> dict[str, Affects]:
    """Return dotted key -> effect of every key of a configuration.

    `effect` is None if neither the key nor its section is annotated; a test refuses such keys.
    """
    return dict(_affected(root, "", EACH_SAYS))


def effect_on(root: type[ConfigSection], key: str) -> Effect:
    """Return the effect of a key or of a part of its value (space.x of `space`); WEIGHTS without annotation."""
    marks = affected(root)
    while key not in marks and "." in key:
        key = key.rpartition(".")[0]
    mark = marks.get(key)
    return (mark and mark.effect) or Effect.WEIGHTS


def keys_with(root: type[ConfigSection], effects: Collection[Effect], stage: str | None = None) -> list[str]:
    """Return the keys with one of the effects, on `stage` or, for None, on any stage."""
    return [
        key
        for key, affects in affected(root).items()
        if (affects.effect or Effect.WEIGHTS) in effects and (stage is None or stage in affects.stages)
    ]


def _affected(root: type[ConfigSection], prefix: str, outer: Affects) -> Iterator[tuple[str, Affects]]:
    for name, field in root.model_fields.items():
        own = _mark(field.metadata).within(outer)
        section = section_of(field.annotation)
        if section is None:
            yield f"{prefix}{name}", own
        else:
            yield from _affected(section, f"{prefix}{name}.", own)


def _mark(metadata: list[Any]) -> Affects:
    return next((mark for mark in metadata if isinstance(mark, Affects)), EACH_SAYS)
