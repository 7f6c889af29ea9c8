"""Images that are equal byte for byte, found with little reading, and what they and named groups have to stay with.

Images of unequal size differ. Of those of one size a few kilobytes are compared, and only what is equal there is read
whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_SAMPLE_BYTES = 4096
_THREADS = 8
_AT_ONCE = 64
"""Images that a thread takes at a time."""

Read = Callable[[int, int, int], bytes]
"""(number of the image, first byte, number of bytes) -> the bytes."""


def equal_images(sizes: Sequence[int], read: Read) -> list[list[int]]:
    """Numbers of the images that are equal, two or more in each list, in order."""

    def sample(number: int) -> bytes:
        size = sizes[number]
        return read(number, max(0, size // 2 - _SAMPLE_BYTES // 2), min(size, _SAMPLE_BYTES))

    def whole(number: int) -> bytes:
        return hashlib.sha256(read(number, 0, sizes[number])).digest()

    alike = _several(range(len(sizes)), lambda number: sizes[number])
    if not alike:
        return []
    with ThreadPoolExecutor(_THREADS) as pool:
        for look in (sample, whole):
            numbers = [number for numbers in alike for number in numbers]
            parts = [numbers[begin : begin + _AT_ONCE] for begin in range(0, len(numbers), _AT_ONCE)]
            looked = pool.map(lambda part, look=look: [look(number) for number in part], parts)
            seen = dict(zip(numbers, (value for values in looked for value in values), strict=True))
            alike = [
                part
                for numbers in alike
                for part in _several(numbers, lambda number, seen=seen: seen[number])
            ]
    return sorted(alike)


def equal_files(paths: Sequence[Path]) -> list[list[int]]:
    """Numbers of the files that are equal, as `equal_images`.

    Raises:
        ValueError: a file is gone.
    """
    return equal_images(
        [_size(path) for path in paths], lambda number, *span: read_part(paths[number], *span)
    )


def read_part(path: Path, begin: int, num_bytes: int) -> bytes:
    """Bytes of a file.

    Raises:
        ValueError: it is gone.
    """
    try:
        with path.open("rb") as file:
            file.seek(begin)
            return file.read(num_bytes)
    except FileNotFoundError:
        raise ValueError(f"{path} went away while it was packed") from None


def joined(groups: Sequence[Hashable | None], equal: Sequence[Sequence[int]]) -> list[int] | None:
    """The group of each image, as a number: images of one named group and equal images belong together.

    None where each image is by itself.
    """
    parent = list(range(len(groups)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    first: dict[Hashable, int] = {}
    for number, group in enumerate(groups):
        if group is not None:
            parent[root(number)] = root(first.setdefault(group, number))
    for numbers in equal:
        for number in numbers[1:]:
            parent[root(number)] = root(numbers[0])
    roots = [root(number) for number in range(len(groups))]
    return roots if len(set(roots)) < len(roots) else None


def _several(numbers: Sequence[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    """Numbers of one key, where there are several."""
    by_key: dict[Hashable, list[int]] = {}
    for number in numbers:
        by_key.setdefault(key(number), []).append(number)
    return [members for members in by_key.values() if len(members) > 1]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise ValueError(f"{path} went away while it was packed") from None
