"""What a source hands to the writer, one image at a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """One encoded image on its way into a shard."""

    key: str
    """Unique within the domain; becomes the sample's name in the tar (WebDataset's key), so no dots."""

    image: bytes
    """The encoded file, untouched."""

    extension: str
    """Of the image's format, without a dot: jpg, png, webp, ..."""

    label: str | None
    """Class name, one of the domain's; None where the image is not labelled."""

    split: str | None = None
    """train, val or test; None leaves the choice to the writer."""
