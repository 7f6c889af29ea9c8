"""Group the members of a tar into samples by WebDataset's conventions, and report faulty samples.

A sample is a run of consecutive members with the same path up to the first dot in the file name; the rest of the name,
in lower case, is the field. Names like __this__ are metadata. Hidden files and files without an extension belong to no
sample.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from fourds_dist.data.decode.file_kinds import UNREAD_FORMATS, extension_of
from fourds_dist.data.format.class_list import ClassList, Label
from fourds_dist.data.pack.label_field import LabelField
from fourds_dist.data.pack.tar import Member, TarFault

IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm", "pbm")
"""Fields that are images. If a sample has several, the first in this order is the image."""

MOST_LABEL_BYTES = 1 << 20
"""Largest size of a label field, in bytes."""

MOST_FIELDS = 64
"""Largest number of field names in a tar. More mean that the samples' names contain dots."""

OnFault = Callable[[TarFault], None]

_META = re.compile(r"__[^/]*__($|/)")
_NAME = re.compile(r"((?:.*/|)[^./]+)[.]([^/]*)", re.DOTALL)


@dataclass(frozen=True)
class TarSample:
    """A complete sample."""

    key: str
    image: str
    """Field of the image."""
    members: dict[str, Member]
    """Field -> member."""
    label: Label | None
    """Label as in the tar; with a class list, a name or a position in the list; None: unlabelled."""


class SampleGrouping:
    """Groups members, added in the order of the tar, into samples.

    Args:
        where, label, image, classes, allow_unlabelled, on_fault: as for `indexing.index_tar`.
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
        self._fault: TarFault | None = None  # fault of the current sample
        self._after_damage = False
        self._nameless: Member | None = None  # the first member that belongs to no sample
        self._num_faults = 0
        self._fields: set[str] = set()
        self._samples: list[TarSample | None] = []  # None: the sample was removed
        self._positions: dict[str, int] = {}  # key -> position in samples
        self._broken: dict[str, dict[str, Member]] = {}  # key -> fields of an incomplete sample
        self._incomplete: TarFault | None = (
            None  # fault of the first incomplete sample; its fields may follow later
        )

    def add(self, item: Member | TarFault) -> None:
        """Add the next member, or damage; the samples before and after damage are faulty too.

        Raises:
            TarFault: without `on_fault`, the first fault.
        """
        if isinstance(item, TarFault):
            self._report(item)
            if self._members:
                self._fault = self._fault_of("beside damage", "is next to damage, and may have lost fields")
            self._close()
            self._after_damage = True
        elif not _META.match(item.name):
            self._add_member(item)

    def finish(self) -> list[TarSample]:
        """Return all samples, after the last member was added."""
        self._close()
        if self._incomplete is not None:
            raise self._incomplete
        if self._nameless is not None and not self._samples and not self._num_faults:
            what = "no member's name has a field after a dot, so there are no samples"
            remedy = "write the tars by WebDataset's conventions"
            self._report(
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
            self._fault = self._fault_of("duplicate field", f"has the field {extension!r} twice", member)
        elif self._after_damage:
            self._fault = self._fault_of(
                "beside damage", "is next to damage, and may have lost fields", member
            )
            self._after_damage = False

    def _close(self) -> None:
        """Add the current sample to the samples, or report its fault."""
        if self._members:
            try:
                if self._fault is not None:
                    raise self._fault
                self._refuse_apart()
                sample = self._sample()
                self._positions[self._key] = len(self._samples)
                self._samples.append(sample)
            except TarFault as fault:
                self._report(fault)
        self._key, self._members, self._fault = "", {}, None

    def _report(self, fault: TarFault) -> None:
        self._num_faults += 1
        if fault.kind in ("no image", "no label"):
            self._broken.setdefault(self._key, self._members)
            if self._on_fault is None:  # the missing fields may follow, which is another fault
                self._incomplete = self._incomplete or fault
                return
        if self._on_fault is None:
            raise self._incomplete if self._incomplete and fault.kind != "apart" else fault
        self._on_fault(fault)

    def _refuse_apart(self) -> None:
        """Refuse a sample whose key occurred before.

        Raises:
            TarFault: the two runs of members have different fields (the fields of one sample are apart; the earlier
                sample is removed), or a common field (two samples have one key).
        """
        position = self._positions.get(self._key)
        earlier = self._samples[position] if position is not None else None
        before = earlier.members if earlier is not None else self._broken.get(self._key)
        if before is None:
            self._refuse_other_folder()
            return
        offset = min(member.header for member in before.values())
        if both := {field: self._members[field] for field in before if field in self._members}:
            what = f"has the same key as a sample at byte {offset}, and both have {_listed(both)}"
            remedy = "write the tar again with one key for each sample, and each sample once"
            raise self._fault_of("duplicate key", what, remedy=remedy)
        if position is not None:
            self._samples[position] = None
        what = (
            f"has {_listed(before)} at byte {offset} and {_listed(self._members)} here, but the members of a sample "
            "must be consecutive"
        )
        raise self._fault_of(
            "apart", what, remedy="write the tar again from its files with `tar --sort=name`"
        )

    def _refuse_other_folder(self) -> None:
        """Refuse fields of the first incomplete sample that are in another folder of the tar."""
        if self._incomplete is None or self._on_fault is not None:
            return
        key, members = next(iter(self._broken.items()))
        if key.rpartition("/")[2] == self._key.rpartition("/")[2] and not set(members) & set(self._members):
            other = next(iter(members.values())).name
            what = f"has its fields in two folders ({other})"
            raise self._fault_of(
                "apart", what, remedy="put the files of a sample into one folder and write the tar again"
            )

    def _sample(self) -> TarSample:
        if len(fields := self._fields.union(self._members)) > MOST_FIELDS:
            what = f"brings the tar to {len(fields)} field names; a field is the name after its first dot"
            raise self._fault_of(
                "dots", what, remedy="write the tars again without dots in the samples' names"
            )
        image = self._members[name := self._image_field()]
        if image.is_link:
            remedy = "write the tars with --dereference --hard-dereference"
            raise self._fault_of("link", "has an image that is a link to another file", image, remedy)
        if image.size == 0:
            raise self._fault_of("empty image", "has an empty image", image)
        sample = TarSample(self._key, name, self._members, self._read_label(image))
        self._fields = fields
        return sample

    def _image_field(self) -> str:
        present = _listed(self._members)
        if self._image is not None:
            if self._image in self._members:
                return self._image
            raise self._fault_of("no image", f"has no field {self._image!r}, but {present}")
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
                what = f"has an image in a format that is not supported: {field} ({kind})"
                remedy = "convert such images to JPEG or PNG and write the tar again"
                raise self._fault_of("no image", what, remedy=remedy)
            raise self._fault_of("no image", f"has no image, but {present}")
        what = f"has several images, none in a field such as jpg or png: {', '.join(sorted(compound)[:5])}"
        remedy = (
            f"choose one, e.g. --image {compound[0]}; if each is a sample, write their names without dots"
        )
        raise self._fault_of("several images", what, remedy=remedy)

    def _read_label(self, image: Member) -> Label | None:
        member = image if self._label.folder is not None else self._members.get(self._label.extension)
        if member is None or (member.content is None and member.is_link):
            if self._allow_unlabelled:
                return None
            what = f"has no field {self._label.extension!r}, but {_listed(self._members)}"
            folder = ", take the folder's name by --label path" if "/" in self._key else ""
            remedy = f"give the label's field by --label{folder}, or accept such samples by --unlabelled --classes FILE"
            raise self._fault_of("no label", what, remedy=remedy)
        remedy = "correct the label, or give --label or --classes"
        try:
            value = self._value(member)
        except ValueError as error:
            raise self._fault_of(
                "label", f"has a label that cannot be read: {error}", member, remedy
            ) from None
        if value is None:
            return None
        if self._classes is not None:
            if self._classes.position(value) is not None:
                return value
            if value in (-1, "-1"):
                return None
            raise self._fault_of("label", self._classes.refusal(value), member, remedy)
        return None if value in (-1, "-1") else value

    def _value(self, member: Member) -> Label | None:
        """Return the label in a member.

        Raises:
            ValueError: the label cannot be read, or is invalid without a class list.
        """
        if self._label.folder is not None:
            return self._label.of_path(member.name)
        if member.content is None:
            raise ValueError(
                f"the field has {member.size} bytes, more than the {MOST_LABEL_BYTES} bytes allowed for a label"
            )
        value = self._label.read(member.content)
        if self._classes is not None or value in (None, -1):
            return value
        is_number = isinstance(value, int)
        if (self._label.is_number and not is_number) or (is_number and not 0 <= value < 2**31):
            raise ValueError(f"{str(value)[:40]!r} is not a class number, an integer from 0")
        return value

    def _fault_of(
        self, kind: str, what: str, member: Member | None = None, remedy: str = "correct the tar"
    ) -> TarFault:
        first = member or min(self._members.values(), key=lambda m: m.header)
        return TarFault(kind, self._where, first.header, first.name, f"sample {self._key!r} {what}", remedy)


def name_parts(name: str) -> tuple[str, str]:
    """Return (key, field) of a member's name; ("", "") if the member belongs to no sample."""
    match = _NAME.fullmatch(name)
    return (match[1], match[2].lower()) if match else ("", "")


def _listed(fields: dict[str, Member]) -> str:
    return ", ".join(sorted(fields)[:8])
