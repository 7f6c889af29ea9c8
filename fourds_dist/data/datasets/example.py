"""One image with its label, passed from a source to the writer of shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Example:
    """One encoded image to be written to a shard."""

    key: str
    """Name of the sample in the tar (WebDataset's key): unique within the domain, without dots."""

    image: bytes | Path
    """The encoded file as published, or its path on a local disk; the path is read when the shard is written."""

    extension: str
    """Extension of the image's format, without a dot: jpg, png, webp, ..."""

    label: str | None
    """Class name, one of the domain's classes; None: unlabelled."""

    split: str | None = None
    """train, val or test; None: the writer draws the split."""

    group: str | None = None
    """Examples of one group (a patient, a part, a scene) are in one split if the writer draws the splits."""

    file: Path | None = None
    """The file that an image given as bytes was made from, for messages of training; None: unknown."""

    def read(self) -> bytes:
        """Return the encoded file."""
        return self.image if isinstance(self.image, bytes) else self.image.read_bytes()
