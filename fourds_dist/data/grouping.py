"""From members of a tar to samples, by webdataset's conventions, and what may be wrong with a sample.

Consecutive members with one name up to the first dot of its last part are a sample; the rest of the name, in lower
case, is the field. Names like __this__ are metadata. Hidden files and files without an extension belong to no sample.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fourds_dist.data.label import LabelField
from fourds_dist.data.tar import Member, TarFault

IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm", "pbm")
"""Fields that are images. Of several in a sample, the first in this order is the image."""

MOST_FIELDS = 64
"""A tar with more kinds of fields has dots in its samples' names, which are then not what their writer meant."""

OnFault = Callable[[TarFault], None]

_META = re.compile(r"__[^/]*__($|/)")
_NAME = re.compile(r"((?:.*/|)[^./]+)[.]([^/]*)", re.DOTALL)


@dataclass(frozen=True)
class Sample:
    """A whole sample."""

    key: str
    image: str
    """Field of the image."""
    members: dict[str, Member]
    """By field."""
    label: int | str | None
    """As it stands in the tar; None: unlabelled."""


class Grouping:
    """Takes members in order and makes samples of them.

    Args:
        where, label, image, classes, allow_unlabelled, on_fault: as of `index.index_tar`.
    """

    def __init__(
        self,
        where: str,
        *,
        label: LabelField,
        image: str | None,
        classes: Sequence[str] | None,
        allow_unlabelled: bool,
        on_fault: OnFault | None,
    ) -> None:
        self._where = where
        self._label = label
        self._image = image
        self._classes = classes
        self._names = frozenset(classes or ())
        self._allow_unlabelled = allow_unlabelled
        self._on_fault = on_fault
        self._key = ""
        self._members: dict[str, Member] = {}
        self._fault: TarFault | None = None  # what is wrong with the sample at hand
        self._after_damage = False
        self._nameless: Member | None = None  # the first member that belongs to no sample
        self._num_faults = 0
        self._begins: dict[str, int] = {}  # key -> offset of the sample
        self._fields: set[str] = set()
        self._samples: list[Sample] = []

    def add(self, item: Member | TarFault) -> None:
        """The next member; or damage, which takes the samples before and after it along.

        Raises:
            TarFault: without `on_fault`, whatever is wrong.
        """
        if isinstance(item, TarFault):
            self._tell(item)
            if self._members:
                self._fault = self._about("beside damage", "stands before damage, and may have lost fields")
            self._close()
            self._after_damage = True
        elif not _META.match(item.name):
            self._add_member(item)

    def finish(self) -> list[Sample]:
        """All samples, once every member was added."""
        self._close()
        if self._nameless is not None and not self._samples and not self._num_faults:
            what = "no member's name has a field after a dot, so there are no samples"
            remedy = "write the tars by WebDataset's conventions"
            self._tell(
                TarFault("no samples", self._where, self._nameless.header, self._nameless.name, what, remedy)
            )
        return self._samples

    def _add_member(self, member: Member) -> None:
        key, extension = name_parts(member.name)
        if not key:
            self._nameless = self._nameless or member
            return
        if key != self._key:
            self._close()
            self._key = key
        duplicate = extension in self._members
        self._members[extension] = member
        if duplicate:
            self._fault = self._about("duplicate field", f"has the field {extension!r} twice", member)
        elif self._after_damage:
            self._fault = self._about(
                "beside damage", "stands after damage, and may have lost fields", member
            )
            self._after_damage = False

    def _close(self) -> None:
        """The sample at hand is whole: it counts, or its fault is told."""
        if self._members:
            try:
                if self._fault is not None:
                    raise self._fault
                self._samples.append(self._sample())
            except TarFault as fault:
                self._tell(fault)
        self._key, self._members, self._fault = "", {}, None

    def _tell(self, fault: TarFault) -> None:
        self._num_faults += 1
        if self._on_fault is None:
            raise fault
        self._on_fault(fault)

    def _sample(self) -> Sample:
        begin = min(member.header for member in self._members.values())
        if (earlier := self._begins.setdefault(self._key, begin)) != begin:
            what = f"has a namesake at byte {earlier}, but members of a sample must follow each other"
            raise self._about("duplicate key", what)
        if len(fields := self._fields.union(self._members)) > MOST_FIELDS:
            what = f"brings the shard to {len(fields)} kinds of fields: a field is all that follows a name's first dot"
            raise self._about("dots", what, remedy="write the tars anew, without dots in samples' names")
        image = self._members[name := self._image_field()]
        if image.is_link:
            remedy = "write the tars with --dereference --hard-dereference"
            raise self._about("link", "is a link, whose content lies elsewhere", image, remedy)
        if image.size == 0:
            raise self._about("empty image", "has an empty image", image)
        sample = Sample(self._key, name, self._members, self._read_label())
        self._fields = fields
        return sample

    def _image_field(self) -> str:
        present = ", ".join(sorted(self._members)[:8])
        if self._image is not None:
            if self._image in self._members:
                return self._image
            raise self._about("no image", f"has no field {self._image!r}, but {present}")
        for extension in IMAGES:
            if extension in self._members:
                return extension
        compound = [name for name in self._members if name.rpartition(".")[2] in IMAGES]
        if len(compound) == 1:
            return compound[0]
        if not compound:
            raise self._about("no image", f"has no image, but {present}")
        what = f"has several images, none of them plain: {', '.join(sorted(compound)[:5])}"
        remedy = f"say which is meant, e.g. --image {compound[0]}; if each is a sample, their names must hold no dots"
        raise self._about("several images", what, remedy=remedy)

    def _read_label(self) -> int | str | None:
        member = self._members.get(self._label.extension)
        if member is None or member.content is None:
            if self._allow_unlabelled:
                return None
            what = f"has no field {self._label.extension!r}, but {', '.join(sorted(self._members)[:8])}"
            remedy = "name the label's field by --label, or accept unlabelled samples by --unlabelled"
            raise self._about("no label", what, remedy=remedy)
        remedy = "correct it, or see --label and --classes"
        try:
            value = self._label.read(member.content)
        except ValueError as error:
            raise self._about("label", f"has a label that cannot be read: {error}", member, remedy) from None
        if self._classes is None or value is None:
            return value
        if isinstance(value, str):
            if value not in self._names:
                raise self._about("label", f"is a {value!r}, which the class list lacks", member, remedy)
        elif value >= len(self._classes):
            raise self._about("label", f"is of class {value} of {len(self._classes)} from 0", member, remedy)
        return value

    def _about(
        self, kind: str, what: str, member: Member | None = None, remedy: str = "correct the tar"
    ) -> TarFault:
        first = member or min(self._members.values(), key=lambda m: m.header)
        return TarFault(kind, self._where, first.header, first.name, f"sample {self._key!r} {what}", remedy)


def name_parts(name: str) -> tuple[str, str]:
    """(key, field) of a member's name; empty ones where it belongs to no sample."""
    match = _NAME.fullmatch(name)
    return (match[1], match[2].lower()) if match else ("", "")
