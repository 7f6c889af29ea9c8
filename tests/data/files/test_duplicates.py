"""Equal images are found with little reading; groups and equal images are joined."""

from __future__ import annotations

from pathlib import Path

from fourds_dist.data.files.duplicates import equal_files, equal_images, joined


def test_equal_images_are_found_and_unequal_ones_hardly_read() -> None:
    big = 100_000
    images = [b"a" * big, b"b" * big, b"a" * big, b"a" * 7, b"c" * big, b"a" * (big - 1) + b"z", b"a" * big]
    read: dict[int, int] = dict.fromkeys(range(len(images)), 0)

    def part(number: int, begin: int, num_bytes: int) -> bytes:
        read[number] += num_bytes
        return images[number][begin : begin + num_bytes]

    assert equal_images([len(image) for image in images], part) == [[0, 2, 6]]
    assert read[3] == 0  # no other has its size
    assert read[1] == read[4] == 4096


def test_equal_files(tmp_path: Path) -> None:
    for name, data in (("a", b"x"), ("b", b"x"), ("c", b"y")):
        (tmp_path / name).write_bytes(data)
    assert equal_files([tmp_path / name for name in "abc"]) == [[0, 1]]


def test_groups_and_equal_images_are_joined() -> None:
    assert joined([None, None, None], []) is None
    assert joined(["p", "q", None], []) is None
    found = joined(["p", None, "p", None, "q", None], [[1, 2], [3, 5]])
    assert found is not None
    assert found[0] == found[1] == found[2] != found[3] == found[5] != found[4]
