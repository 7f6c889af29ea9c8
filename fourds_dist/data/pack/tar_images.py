"""Check the images of a tar during indexing: format, grey values, frames, and whether they can be decoded."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image, UnidentifiedImageError

from fourds_dist.data.decode.file_kinds import other_kind, why_unread
from fourds_dist.data.decode.grey import DEEP, Grey, joined, measured, to_json
from fourds_dist.data.decode.pixels import FORMATS
from fourds_dist.data.files import frames
from fourds_dist.data.pack.tar import Member, TarFault
from fourds_dist.data.pack.webdataset_samples import IMAGES, MOST_LABEL_BYTES, OnFault, TarSample, name_parts

MOST_IMAGE_BYTES = 1 << 30
"""Larger files are not analysed; a larger image that has to be analysed is a fault."""


class TarImages:
    """Analyses the members of a tar before `SampleGrouping`, and removes the bytes of images.

    Args:
        where, image, on_fault, measure, decode: as for `indexing.index_tar`.
        label: extension of the label's field, whose bytes are retained.
    """

    def __init__(
        self,
        where: str,
        label: str,
        image: str | None,
        on_fault: OnFault | None,
        *,
        measure: bool,
        decode: int | None,
    ) -> None:
        self._where, self._label, self._on_fault = where, label, on_fault
        self._decode = decode
        self._fields = frozenset(IMAGES if decode else (*DEEP, *frames.FIELDS) if measure else ())
        self._image = image if decode else None
        self._greys: dict[int, Grey] = {}  # offset of the image -> its grey values
        self._with_frames: set[int] = set()  # offsets of images of several frames
        self._faults: dict[int, str] = {}  # offset of the image -> why it cannot be read

    def most_kept(self, name: str) -> int:
        """Largest size of a member whose bytes are needed."""
        extension = name_parts(name)[1]
        if self._is_image(extension):
            return MOST_IMAGE_BYTES
        return MOST_LABEL_BYTES if extension == self._label else 0

    def passed(self, item: Member | TarFault) -> Member | TarFault:
        """Analyse the bytes of an image, and return the member without them."""
        if isinstance(item, TarFault):
            return item
        extension = name_parts(item.name)[1]
        if item.content is None:
            if item.size > MOST_IMAGE_BYTES and self._is_image(extension):
                self._faults[item.offset] = f"its {item.size} bytes are more than {MOST_IMAGE_BYTES}"
            return item
        if self._is_image(extension):
            if frames.file_has_more_frames(item.content):
                self._with_frames.add(item.offset)
            try:
                grey = measured(item.content) if self._is_measured(extension) else None
                if grey is None and item.content[:2] in (b"II", b"MM"):
                    _refuse_unread_tiff(item.content)
                if grey is not None:
                    self._greys[item.offset] = grey
                if self._decode:
                    self._check(item.content, grey, self._decode)
            except ValueError as error:
                self._faults[item.offset] = str(error)
        return item if extension == self._label else replace(item, content=None)

    def good(self, samples: Sequence[TarSample]) -> list[TarSample]:
        """Return the samples whose image has a known format and, if decoding was tried, can be decoded.

        Raises:
            TarFault: without `on_fault`, the first sample whose image cannot be read.
        """
        readable = []
        for sample in samples:
            image = sample.members[sample.image]
            why = other_kind(image.head) or self._faults.get(image.offset)
            if why is None:
                readable.append(sample)
                continue
            what = f"sample {sample.key!r} has an image that cannot be read: {why}"
            remedy = "repair the image, or leave out such samples by --skip-bad"
            fault = TarFault("unreadable image", self._where, image.header, image.name, what, remedy)
            if self._on_fault is None:
                raise fault
            self._on_fault(fault)
        return readable

    def grey(self, samples: Sequence[TarSample]) -> str:
        """Return the grey values of the samples' images as JSON, for the index.

        Raises:
            ValueError: the values of the images have no common scale.
        """
        try:
            return to_json(joined(self._greys.get(s.members[s.image].offset) for s in samples))
        except ValueError as error:
            raise ValueError(f"{self._where}: {error}") from None

    def with_frames(self, samples: Sequence[TarSample]) -> list[str]:
        """Return the keys of the samples whose image has several frames."""
        return [s.key for s in samples if s.members[s.image].offset in self._with_frames]

    def _is_image(self, extension: str) -> bool:
        return extension.rpartition(".")[2] in self._fields or (
            self._image is not None and extension == self._image
        )

    def _is_measured(self, extension: str) -> bool:
        return bool(self._decode) or extension.rpartition(".")[2] in DEEP

    @staticmethod
    def _check(data: bytes, grey: Grey | None, most_pixels: int) -> None:
        from fourds_dist.data.decode.decode import WHOLE_PX, decoded_whole  # here: it imports PyTorch

        decoded_whole(
            data, WHOLE_PX, grey_range=None if grey is None else grey.range, most_pixels=most_pixels
        )


def _refuse_unread_tiff(data: bytes) -> None:
    """Raise ValueError if a TIFF holds values of a type that Pillow does not read."""
    try:
        Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(why_unread(io.BytesIO(data))) from None
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return  # damage and size are reported by decoding
