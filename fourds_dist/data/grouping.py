"""From members of a tar to samples, by webdataset's conventions, and what may be wrong with a sample.

Consecutive members with one name up to the first dot of its last part are a sample; the rest of the name, in lower
case, is the field. Names like __this__ are metadata. Hidden files and files without an extension belong to no sample.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from fourds_dist.data.class_list import ClassList, Label
from fourds_dist.data.file_kinds import UNREAD_FORMATS, extension_of
from fourds_dist.data.label import LabelField
from fourds_dist.data.tar import Member, TarFault

IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm", "pbm")
"""Fields that are images. Of several in a sample, the first in this order is the image."""

MOST_LABEL_BYTES = 1 << 20
"""No label needs more."""

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
    label: Label | None
    """As it stands in the tar; with a class list, a name in it or a position; None: unlabelled."""


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
        classes: ClassList | None,
        allow_unlabelled: bool,
        on_fault: OnFault | None,
    ) -> None:
        self._where = where
        self._label = label
        self._image = image
        self._classes = classes
        self._allow_unlabelled = allow_unlabelled
        self._on_fault = on_fault
        self._key = ""
        self._members: dict[str, Member] = {}
        self._fault: TarFault | None = None  # what is wrong with the sample at hand
        self._after_damage = False
        self._nameless: Member | None = None  # the first member that belongs to no sample
        self._num_faults = 0
        self._fields: set[str] = set()
        self._samples: list[Sample | None] = []  # None: was taken back
        self._places: dict[str, int] = {}  # key -> place in samples
        self._broken: dict[str, dict[str, Member]] = {}  # key -> fields of a sample that lacks some
        self._incomplete: TarFault | None = None  # the first such, until it is known where its fields are

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
        if self._incomplete is not None:
            raise self._incomplete
        if self._nameless is not None and not self._samples and not self._num_faults:
            what = "no member's name has a field after a dot, so there are no samples"
            remedy = "write the tars by WebDataset's conventions"
            self._tell(
                TarFault("no samples", self._where, self._nameless.header, self._nameless.name, what, remedy)
            )
        return [sample for sample in self._samples if sample is not None]

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
                self._refuse_apart()
                sample = self._sample()
                self._places[self._key] = len(self._samples)
                self._samples.append(sample)
            except TarFault as fault:
                self._tell(fault)
        self._key, self._members, self._fault = "", {}, None

    def _tell(self, fault: TarFault) -> None:
        self._num_faults += 1
        if fault.kind in ("no image", "no label"):
            self._broken.setdefault(self._key, self._members)
            if self._on_fault is None:  # its other fields may come yet, which is another fault
                self._incomplete = self._incomplete or fault
                return
        if self._on_fault is None:
            raise self._incomplete if self._incomplete and fault.kind != "apart" else fault
        self._on_fault(fault)

    def _refuse_apart(self) -> None:
        """Refuse a second stretch of members of one name; what the first made of them is taken back.

        Raises:
            TarFault: its fields are others than before (they stand apart), or the same (two samples have one name).
        """
        place = self._places.get(self._key)
        earlier = self._samples[place] if place is not None else None
        before = earlier.members if earlier is not None else self._broken.get(self._key)
        if before is None:
            self._refuse_other_folder()
            return
        at = min(member.header for member in before.values())
        if set(before) & set(self._members):
            what = f"has a namesake at byte {at}, but members of a sample must follow each other"
            raise self._about("duplicate key", what)
        if place is not None:
            self._samples[place] = None
        what = (
            f"has {_listed(before)} at byte {at} and {_listed(self._members)} here: the fields of a sample must follow "
            "each other"
        )
        raise self._about("apart", what, remedy="write the tar again from its files with `tar --sort=name`")

    def _refuse_other_folder(self) -> None:
        """Refuse fields of the first incomplete sample that lie in another folder of the tar."""
        if self._incomplete is None or self._on_fault is not None:
            return
        key, members = next(iter(self._broken.items()))
        if key.rpartition("/")[2] == self._key.rpartition("/")[2] and not set(members) & set(self._members):
            other = next(iter(members.values())).name
            what = f"has its fields in two folders ({other})"
            raise self._about(
                "apart", what, remedy="put the files of a sample into one folder and write the tar again"
            )

    def _sample(self) -> Sample:
        if len(fields := self._fields.union(self._members)) > MOST_FIELDS:
            what = f"brings the shard to {len(fields)} kinds of fields: a field is all that follows a name's first dot"
            raise self._about("dots", what, remedy="write the tars anew, without dots in samples' names")
        image = self._members[name := self._image_field()]
        if image.is_link:
            remedy = "write the tars with --dereference --hard-dereference"
            raise self._about("link", "is a link, whose content lies elsewhere", image, remedy)
        if image.size == 0:
            raise self._about("empty image", "has an empty image", image)
        sample = Sample(self._key, name, self._members, self._read_label(image))
        self._fields = fields
        return sample

    def _image_field(self) -> str:
        present = _listed(self._members)
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
            unread = {
                field: kind
                for field in self._members
                if (kind := UNREAD_FORMATS.get(extension_of(f"x.{field}")))
            }
            if unread:
                field, kind = min(unread.items())
                what, remedy = (
                    f"has an image in a format that is not read: {field} ({kind})",
                    "convert it to JPEG or PNG",
                )
                raise self._about("no image", what, remedy=f"{remedy} and write the tar again")
            raise self._about("no image", f"has no image, but {present}")
        what = f"has several images, none of them plain: {', '.join(sorted(compound)[:5])}"
        remedy = f"say which is meant, e.g. --image {compound[0]}; if each is a sample, their names must hold no dots"
        raise self._about("several images", what, remedy=remedy)

    def _read_label(self, image: Member) -> Label | None:
        member = image if self._label.folder is not None else self._members.get(self._label.extension)
        if member is None or (member.content is None and member.is_link):
            if self._allow_unlabelled:
                return None
            what = f"has no field {self._label.extension!r}, but {_listed(self._members)}"
            folder = ", or take the folder's name by --label path" if "/" in self._key else ""
            remedy = (
                f"name the label's field by --label{folder}, or accept unlabelled samples by --unlabelled (with "
                "--classes)"
            )
            raise self._about("no label", what, remedy=remedy)
        remedy = "correct it, or see --label and --classes"
        try:
            value = self._value(member)
        except ValueError as error:
            raise self._about("label", f"has a label that cannot be read: {error}", member, remedy) from None
        if value is None:
            return None
        if self._classes is not None:
            if self._classes.position(value) is not None:
                return value
            if value in (-1, "-1"):
                return None
            raise self._about("label", self._classes.refusal(value), member, remedy)
        return None if value in (-1, "-1") else value

    def _value(self, member: Member) -> Label | None:
        """The label in a member.

        Raises:
            ValueError: none can be read there, or without a class list no class can have it.
        """
        if self._label.folder is not None:
            return self._label.of_path(member.name)
        if member.content is None:
            raise ValueError(
                f"its {member.size} bytes are more than the {MOST_LABEL_BYTES} of a class's name"
            )
        value = self._label.read(member.content)
        if self._classes is not None or value in (None, -1):
            return value
        is_number = isinstance(value, int)
        if (self._label.is_number and not is_number) or (is_number and not 0 <= value < 2**31):
            raise ValueError(f"{str(value)[:40]!r} is no class number from 0")
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


def _listed(fields: dict[str, Member]) -> str:
    return ", ".join(sorted(fields)[:8])
