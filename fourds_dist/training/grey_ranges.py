"""The grey ranges by which a run reads the images of its domains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fourds_dist.data.grey import GreyRange
from fourds_dist.data.manifest import read_manifest
from fourds_dist.data.url import split_pattern

if TYPE_CHECKING:
    from fourds_dist.settings import Settings


def grey_ranges_of(settings: Settings) -> tuple[GreyRange, ...]:
    """data.grey_range, else what the manifests of source and target say; none for images of 8 bits.

    Raises:
        ValueError: a manifest that cannot be read.
    """
    if settings.data.grey_range is not None:
        return (settings.data.grey_range,)
    urls = [url for url in (settings.source.url, settings.target.url) if url is not None]
    ranges = [read_manifest(split_pattern(url)[0]).grey_range for url in urls]
    return tuple(range_ for range_ in ranges if range_ is not None)
