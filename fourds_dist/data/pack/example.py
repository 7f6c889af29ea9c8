"""What a source hands to the writer, one image at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Example:
    """One encoded image on its way into a shard."""

    key: str
    """Unique within the domain; becomes the sample's name in the tar (WebDataset's key), so no dots."""

    image: bytes | Path
    """The encoded file, untouched; or where it lies on a local disk, to be read when it is written."""

    extension: str
    """Of the image's format, without a dot: jpg, png, webp, ..."""

    label: str | None
    """Class name, one of the domain's; None where the image is not labelled."""

    split: str | None = None
    """train, val or test; None leaves the choice to the writer."""

    group: str | None = None
    """Examples of one group (a patient, a part, a scene) come to one split where the writer draws it."""

    def read(self) -> bytes:
        """The encoded file."""
        return self.image if isinstance(self.image, bytes) else self.image.read_bytes()
