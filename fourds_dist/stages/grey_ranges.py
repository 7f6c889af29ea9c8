"""The grey ranges of a run's domains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fourds_dist.data.decode.grey import GreyRange
from fourds_dist.data.format.manifest import read_manifest
from fourds_dist.io.url import split_pattern

if TYPE_CHECKING:
    from fourds_dist.stages.settings import Settings


def grey_ranges_of(settings: Settings) -> tuple[GreyRange, ...]:
    """Return data.grey_range, or the ranges in the manifests of source and target; empty for images of 8 bits.

    Raises:
        ValueError: a manifest that cannot be read.
    """
    if settings.data.grey_range is not None:
        return (settings.data.grey_range,)
    urls = [url for url in (settings.source.url, settings.target.url) if url is not None]
    ranges = [read_manifest(split_pattern(url)[0]).grey_range for url in urls]
    return tuple(range_ for range_ in ranges if range_ is not None)
