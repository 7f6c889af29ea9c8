"""Equal images of existing tars are found by size and CRC-32, over all tars and splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fourds_dist.data.format.manifest import index_url
from fourds_dist.data.pack.existing_tars import TarReadOptions, index_existing_tars
from fourds_dist.data.pack.tar_doubles import Prints, tar_leaks
from tests.data.pack.tars import JPEG, index_of, tar_bytes
from tests.data.pack.test_existing_tars import named


def images(folder: Path, name: str, members: list[tuple[int, str]]) -> None:
    """NAME.tar of (number that makes the image, class)."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for n, (number, label) in enumerate(members):
        files += [(f"{n}.jpg", JPEG + bytes([number] * 9)), (f"{n}.txt", label.encode())]
    (folder / f"{name}.tar").write_bytes(tar_bytes(files))


SEVERAL_CLASSES = "equal images of several classes: "


SEVERAL_SPLITS = "equal images in several given splits: "


def remarks_of(folder: Path, *urls: str, **options: Any) -> list[str]:
    reading = TarReadOptions(label="txt", unlabelled=True)
    done = index_existing_tars(
        [f"{folder}/{url}" for url in urls], to=str(folder), reading=reading, **options
    )
    return done.manifest.notes.get("remarks", [])


def test_equal_images_of_tars_are_reported(tmp_path: Path) -> None:
    images(tmp_path, "train-0", [(1, "cat"), (2, "dog"), (3, "cat"), (2, "dog"), (9, "cat")])
    images(tmp_path, "val-0", [(4, "cat"), (5, "dog"), (3, "cat")])
    images(tmp_path, "test-0", [(6, "dog"), (2, "cat"), (1, "cat")])
    told = [
        "7 images are equal byte for byte to others (3 are different); their sizes and CRC-32 are equal",
        f"{SEVERAL_CLASSES}1 (first: {tmp_path}/train-0.tar/1 is dog, {tmp_path}/test-0.tar/1 is cat); correct or "
        "remove them",
        f"{SEVERAL_SPLITS}3 (first: {tmp_path}/train-0.tar/0 in train, {tmp_path}/test-0.tar/2 in test); scores on "
        "these images are unreliable",
    ]
    assert remarks_of(tmp_path, "train-0.tar", "val-0.tar", "test-0.tar") == told
    assert remarks_of(tmp_path, "train-0.tar", "val-0.tar", "test-0.tar") == told  # by indices that are there


def test_equal_images_of_splits_indexed_earlier_are_reported(tmp_path: Path) -> None:
    images(tmp_path, "a", [(1, "cat"), (2, "dog")])
    images(tmp_path, "b", [(3, "cat"), (2, "dog"), (1, "cat")])
    assert remarks_of(tmp_path, "a.tar", split="train") == []
    equal, splits = remarks_of(tmp_path, "b.tar", split="test")
    assert equal.startswith("4 images are equal byte for byte to others (2 are different)")
    assert splits.startswith(
        f"{SEVERAL_SPLITS}2 (first: {tmp_path}/b.tar/1 in test, {tmp_path}/a.tar/1 in train)"
    )
    Path(f"{index_url(str(tmp_path), str(tmp_path / 'a.tar'))}").write_bytes(b"torn")
    assert remarks_of(tmp_path, "b.tar", split="test") == [
        "1 tars that were indexed earlier were not compared for equal images"
    ]


def test_unlabelled_images_have_no_other_class_and_numbers_are_compared_as_classes(tmp_path: Path) -> None:
    images(tmp_path, "train-0", [(1, "cat"), (2, "dog")])
    (tmp_path / "train-1.tar").write_bytes(tar_bytes([("u.jpg", JPEG + bytes([1] * 9))]))
    images(tmp_path, "train-2", [(2, "eel"), (3, "dog")])  # classes that this tar counts otherwise
    equal, classes = remarks_of(tmp_path, "train-*.tar")
    assert equal.startswith("4 images")
    assert (
        f"{SEVERAL_CLASSES}1 (first: {tmp_path}/train-0.tar/1 is dog, {tmp_path}/train-2.tar/0 is eel)"
        in classes
    )


def test_images_of_one_size_or_one_checksum_alone_differ() -> None:
    prints = np.array([(7 << 32) | 5, (8 << 32) | 5, (7 << 32) | 6], np.uint64)
    one = Prints(prints, np.array([0, 1, 0], np.int32))
    assert tar_leaks([("train", one)], ("a", "b"), lambda *_: "") == []
    assert tar_leaks([], (), lambda *_: "") == []
    empty = Prints(prints[:0], one.labels[:0])
    assert tar_leaks([("train", empty)], (), lambda *_: "") == []
    (told,) = tar_leaks([("train", one), ("train", empty), ("train", one)], ("a", "b"), lambda *_: "")
    assert told.startswith("6 images are equal byte for byte to others (3 are different)")


def test_equal_images_are_reported_over_all_tars(tmp_path: Path) -> None:
    named(tmp_path, "train-0.tar", ["cat", "dog", "cat"])
    named(tmp_path, "train-1.tar", ["cat"])
    named(tmp_path, "test-0.tar", ["cat", "cat"])
    reading = TarReadOptions(label="txt")
    remarks = index_existing_tars([str(tmp_path)], reading=reading).manifest.notes["remarks"]
    assert remarks[0].startswith("5 images are equal byte for byte to others (2 are different); their sizes")
    assert "several classes: 1 (first: test-0.tar/1 is cat, train-0.tar/1 is dog)" in remarks[1]
    assert "equal images in several given splits: 2" in remarks[2]
    one_by_one = tmp_path / "one"
    for split in ("train", "test"):
        url = f"{tmp_path}/{split}-*.tar"
        done = index_existing_tars([url], reading=reading, split=split, to=str(one_by_one))
    assert "5 images are equal byte for byte" in done.manifest.notes["remarks"][0]
    again = index_existing_tars([f"{tmp_path}/*.tar"], reading=reading, to=str(one_by_one))
    assert (again.num_read, again.manifest.notes["remarks"][0]) == (0, done.manifest.notes["remarks"][0])


def test_labels_are_mapped_and_labels_without_a_class_become_unlabelled() -> None:
    prints = Prints.of(index_of(tar_bytes([(f"{n}.{x}", data) for n, label in enumerate((b"2", b"7", b"2"))
                                           for x, data in (("jpg", JPEG), ("cls", label))])))  # fmt: skip
    assert prints.labels.tolist() == [2, 7, 2]
    assert len(set(prints.sizes_and_checksums.tolist())) == 1
    assert int(prints.sizes_and_checksums[0]) >> 32 == len(JPEG)
    assert prints.placed(None) is prints
    assert prints.placed({2: 0}).labels.tolist() == [0, -1, 0]
    assert prints.labels.tolist() == [2, 7, 2]
