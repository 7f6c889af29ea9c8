"""Images that are equal byte for byte, and the groups of images that must stay in one split.

Images of unequal size differ. Of images of equal size, a few kilobytes are compared first; only images that are equal
there are read whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_SAMPLE_BYTES = 4096
_THREADS = 8
_IMAGES_PER_TASK = 64
"""Images that a thread takes at a time."""

Read = Callable[[int, int, int], bytes]
"""(number of the image, first byte, number of bytes) -> the bytes."""


def equal_images(sizes: Sequence[int], read: Read) -> list[list[int]]:
    """Return lists of the numbers of equal images, two or more in each list, in order."""

    def sample(number: int) -> bytes:
        size = sizes[number]
        return read(number, max(0, size // 2 - _SAMPLE_BYTES // 2), min(size, _SAMPLE_BYTES))

    def whole(number: int) -> bytes:
        return hashlib.sha256(read(number, 0, sizes[number])).digest()

    candidates = _repeated(range(len(sizes)), lambda number: sizes[number])
    if not candidates:
        return []
    with ThreadPoolExecutor(_THREADS) as pool:
        for read_key in (sample, whole):
            numbers = [number for numbers in candidates for number in numbers]
            starts = range(0, len(numbers), _IMAGES_PER_TASK)
            tasks = [numbers[begin : begin + _IMAGES_PER_TASK] for begin in starts]
            results = pool.map(lambda task, read_key=read_key: [read_key(number) for number in task], tasks)
            keys = dict(zip(numbers, (key for of_task in results for key in of_task), strict=True))
            candidates = [
                part
                for numbers in candidates
                for part in _repeated(numbers, lambda number, keys=keys: keys[number])
            ]
    return sorted(candidates)


def equal_files(paths: Sequence[Path]) -> list[list[int]]:
    """Return lists of the numbers of equal files, like `equal_images`.

    Raises:
        ValueError: a file no longer exists.
    """
    return equal_images(
        [_size(path) for path in paths], lambda number, *span: read_part(paths[number], *span)
    )


def read_part(path: Path, begin: int, num_bytes: int) -> bytes:
    """Return `num_bytes` bytes of a file from `begin` on.

    Raises:
        ValueError: the file no longer exists.
    """
    try:
        with path.open("rb") as file:
            file.seek(begin)
            return file.read(num_bytes)
    except FileNotFoundError:
        raise ValueError(f"{path} went away during packing; restore the file, or pack again") from None


def joined(groups: Sequence[Hashable | None], equal: Sequence[Sequence[int]]) -> list[int] | None:
    """Return the group of each image, as a number; images of one named group and equal images are in one group.

    Return None if every image is a group of one.
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


def _repeated(numbers: Sequence[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    """Return lists of the numbers with equal keys, two or more in each list."""
    by_key: dict[Hashable, list[int]] = {}
    for number in numbers:
        by_key.setdefault(key(number), []).append(number)
    return [members for members in by_key.values() if len(members) > 1]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise ValueError(f"{path} went away during packing; restore the file, or pack again") from None
