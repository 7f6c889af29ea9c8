"""The label field of samples in existing tars, and how a label is read from the field.

cls            a field with the class number
json:a/b       a number or a name at a path of keys in a JSON field
txt            any other field: the class name
path           the folder of the image in the tar: cat/1.jpg is of class cat
path:0         the first folder of the image's path; path:1: the second; path:-2: the last but one
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fourds_dist.data.format.class_list import Label, as_label, is_missing, number_of
from fourds_dist.io.json_text import parse_json
from fourds_dist.io.names import composed

_NUMBERED = ("cls", "cls2", "index", "inx", "idx", "id", "class")
"""Fields that hold a number by WebDataset's conventions."""

_OF_PATH = re.compile(r"path(?::(-?[0-9]{1,3}))?", re.IGNORECASE)


@dataclass(frozen=True)
class LabelField:
    """A field of the sample with the keys to the label in its JSON, or a folder of the image's path."""

    extension: str = "cls"
    """Extension of the field; empty if the label is a folder's name."""
    keys: tuple[str, ...] = ()
    folder: int | None = None
    """Index of the folder in the image's path that is the label, as in Python; None: the label is in a field."""

    @classmethod
    def parse(cls, text: str) -> LabelField:
        """Parse the value of --label.

        Raises:
            ValueError: the text is no label field.
        """
        if of_path := _OF_PATH.fullmatch(text):
            return cls("", folder=int(of_path[1] or -1))
        extension, colon, path = text.lower().partition(":")[0], *text.partition(":")[1:]
        keys = tuple(key for key in path.split("/") if key)
        if not extension or (colon and not keys) or "/" in extension:
            raise ValueError(
                f"label field {text!r}: expected FIELD or FIELD:KEY/KEY, e.g. cls, txt, json:class/id; or path"
            )
        return cls(extension.lstrip("."), keys)

    def __str__(self) -> str:
        if self.folder is not None:
            return f"path:{self.folder}"
        return ":".join((self.extension, *(["/".join(self.keys)] if self.keys else [])))

    @property
    def is_number(self) -> bool:
        """Whether the field holds a class number by convention."""
        return not self.keys and self.extension in _NUMBERED

    def read(self, data: bytes) -> Label | None:
        """Return the class number, the class name, or None for unlabelled; -1 is returned as a number.

        Raises:
            ValueError: the field cannot be read as a label; the message says why.
        """
        try:
            text = data.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise ValueError("the field is not text in UTF-8") from None
        value = as_label(self._at_keys(text) if self.keys else text)
        if self.is_number and isinstance(value, str):
            number = number_of(value)
            return value if number is None else number
        return value

    def of_path(self, name: str) -> str | None:
        """Return the folder name in a member's path that is the label; None if that name means unlabelled.

        Raises:
            ValueError: the path has no such folder.
        """
        assert self.folder is not None
        folders = [part for part in name.split("/")[:-1] if part not in ("", ".")]
        if not -len(folders) <= self.folder < len(folders):
            path = f"only the folders {'/'.join(folders)}" if folders else "no folder"
            raise ValueError(f"its path has {path}, but --label {self} takes the label from a folder's name")
        found = composed(folders[self.folder])
        return None if is_missing(found) else found

    def _at_keys(self, text: str) -> object:
        try:
            value = parse_json(text)
        except ValueError as error:
            raise ValueError(f"the field is not JSON ({error})") from None
        for depth, key in enumerate(self.keys, start=1):
            if isinstance(value, list) and key.isascii() and key.isdecimal() and int(key) < len(value):
                value = value[int(key)]
            elif isinstance(value, dict) and key in value:
                value = value[key]
            else:
                raise ValueError(f"the field has no key {'/'.join(self.keys[:depth])!r}")
        if isinstance(value, bool | dict | list) or (isinstance(value, float) and not _is_whole(value)):
            raise ValueError(f"{'/'.join(self.keys)!r} is {str(value)[:40]}, neither a number nor a name")
        return value


def _is_whole(value: float) -> bool:
    return value != value or value.is_integer()
