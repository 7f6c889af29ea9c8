"""A domain: one look of a set of classes, ready to be packed into one dataset folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fourds_dist.data.pack.example import Example


@dataclass(frozen=True)
class Domain:
    """What a source hands to the writer: images are made while they are iterated over, never held as a whole."""

    name: str
    """Also the name of the dataset folder under the packing destination."""

    classes: tuple[str, ...]
    """Class list in label order; the domains of one source share it."""

    produce: Callable[[], Iterable[Example]]
    """Makes a fresh pass over the images; every pass gives the same examples in the same order.

    Each example names its split: sources hold identities out across their domains, which no writer could see.
    """

    notes: Mapping[str, Any] = field(default_factory=dict)
    """How the domain came about (origin, version, counts, what was left out and why); kept in the manifest."""

    def __iter__(self) -> Iterator[Example]:
        return iter(self.produce())
