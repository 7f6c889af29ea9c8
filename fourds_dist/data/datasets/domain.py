"""A domain: images of a list of classes, to be packed into one dataset folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fourds_dist.data.datasets.example import Example


@dataclass(frozen=True)
class Domain:
    """A domain whose images are produced during iteration; the images are never in memory all at once."""

    name: str
    """Name of the domain, and of the dataset folder below the packing destination."""

    classes: tuple[str, ...]
    """Class list in label order, the same for all domains of one source."""

    produce: Callable[[], Iterable[Example]]
    """Starts a pass over the images; every pass gives the same examples in the same order.

    Sources of several domains give the split of each example, so that an identity is in the same split in all domains.
    """

    notes: Mapping[str, Any] = field(default_factory=dict)
    """Origin, version, counts, and images left out with the reasons; stored in the manifest."""

    num_images: int | None = None
    """Number of images, for the time left; None: unknown before a pass."""

    def __iter__(self) -> Iterator[Example]:
        return iter(self.produce())
