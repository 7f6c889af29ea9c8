"""What the runs of a question have shown."""

from __future__ import annotations

from dataclasses import dataclass, field

from fourds_dist.experiments.advise.candidates import Candidate
from fourds_dist.experiments.advise.domains import DomainGap
from fourds_dist.experiments.advise.lengths import Length
from fourds_dist.experiments.advise.observation import Observation


@dataclass(frozen=True)
class Trained:
    """A finished run of a candidate."""

    candidate: Candidate
    length: Length
    seen: Observation
    url: str


@dataclass(frozen=True)
class Effect:
    """What a change does to the accuracy, in points, by leaving something out.

    Args:
        what: the change, as in "half of the labels".
    """

    what: str
    points: float
    sd: float


@dataclass
class Findings:
    """What the runs have shown so far."""

    gap: DomainGap | None = None
    source: Length | None = None
    trained: list[Trained] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    """Parts that the budget had no time for."""

    def of(self, name: str) -> list[Trained]:
        """Return the runs of a candidate, the shortest first."""
        return sorted((t for t in self.trained if t.candidate.name == name), key=lambda t: t.length.shown)
