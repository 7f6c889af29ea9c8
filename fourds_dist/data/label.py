"""Where a sample's label stands in a foreign tar, and how it is read.

cls            a field with the class's number
json:a/b       a number or a name at a path of keys in a JSON field
txt            any other field: the class's name
"""

from __future__ import annotations

from dataclasses import dataclass

from fourds_dist.json_text import parsed_json

_NUMBERED = ("cls", "cls2", "index", "inx", "idx", "id", "class")
"""Fields that hold a number by webdataset's conventions."""


@dataclass(frozen=True)
class LabelField:
    """A field of the sample, and the keys to the label in it."""

    extension: str = "cls"
    keys: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> LabelField:
        """From the command line's form.

        Raises:
            ValueError: no such form.
        """
        extension, colon, path = text.lower().partition(":")[0], *text.partition(":")[1:]
        keys = tuple(key for key in path.split("/") if key)
        if not extension or (colon and not keys) or "/" in extension:
            raise ValueError(
                f"label field {text!r}: expected FIELD or FIELD:KEY/KEY, e.g. cls, txt, json:class/id"
            )
        return cls(extension.lstrip("."), keys)

    def __str__(self) -> str:
        return ":".join((self.extension, *(["/".join(self.keys)] if self.keys else [])))

    def read(self, data: bytes) -> int | str | None:
        """A class's number, its name, or None for unlabelled.

        Raises:
            ValueError: what is wrong with the field.
        """
        try:
            text = data.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise ValueError("it is no text") from None
        value = self._at_keys(text) if self.keys else text
        if value is None or value in (-1, "-1", ""):
            return None
        if isinstance(value, str) and not self.keys and self.extension in _NUMBERED:
            if not value.isascii() or not value.isdecimal():
                raise ValueError(f"{value[:40]!r} is no class number from 0")
            value = int(value)
        if isinstance(value, int) and not 0 <= value < 2**31:
            raise ValueError(f"{value} is no class number")
        return value

    def _at_keys(self, text: str) -> int | str | None:
        try:
            value = parsed_json(text)
        except ValueError as error:
            raise ValueError(f"it is no JSON ({error})") from None
        for depth, key in enumerate(self.keys, start=1):
            if not isinstance(value, dict) or key not in value:
                raise ValueError(f"it has no key {'/'.join(self.keys[:depth])!r}")
            value = value[key]
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | str)):
            raise ValueError(f"{'/'.join(self.keys)!r} is {str(value)[:40]}, neither a number nor a name")
        return value
