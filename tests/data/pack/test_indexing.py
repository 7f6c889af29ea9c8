"""A tar is indexed in one pass: places, checksums and labels of its samples, and an error for each kind of fault."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from webdataset.writer import TarWriter

from fourds_dist.data.pack.label_field import LabelField
from fourds_dist.data.pack.tar import TarFault
from tests.data.deep_images import tiff
from tests.data.pack.tars import JPEG, fields_of, index_of, samples, tar_bytes
from tests.data.pack.test_tar import GOOD, SAMPLE_BYTES


def test_a_tar_of_webdataset_s_writer() -> None:
    out = io.BytesIO()
    with TarWriter(out, mtime=0, encoder=False) as tar:
        for n in range(5):
            tar.write(
                {"__key__": f"a/köter{n}", "jpg": JPEG + bytes(n), "cls": b"%d" % n, "seg.png": b"mask"}
            )
    data = out.getvalue()
    index = index_of(data)
    assert index.keys.tolist() == [f"a/köter{n}" for n in range(5)]
    assert index.extensions.tolist() == ["jpg"] * 5
    assert index.labels.tolist() == [0, 1, 2, 3, 4]
    assert index.fields == ("cls", "jpg", "seg.png")
    for row, (begin, size) in enumerate(zip(index.offsets, index.sizes, strict=True)):
        assert data[begin : begin + size] == JPEG + bytes(row)
        assert index.checksums[row] == zlib.crc32(JPEG + bytes(row))
        assert fields_of(index, data, row)["seg.png"] == b"mask"
    assert index.num_bytes == len(data)


FAULTY: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "empty", "the file is empty"),
    "gzip": (
        b"\x1f\x8b\x08" + bytes(2000),
        "no tar",
        "gzip; ranges can only be read from plain tars; decompress",
    ),
    "zip": (b"PK\x03\x04" + bytes(2000), "no tar", "no tar but zip"),
    "an error page": (b"<html>" + b" " * 2000, "no tar", "probably an error page"),
    "noise": (bytes(range(1, 256)) * 5, "no tar", "copy or pack it again"),
    "a few bytes": (b"abc", "no tar", "this is no tar"),
    "two tars in one file": (GOOD + GOOD, "after end", "joined by `cat`"),
    "an overwritten block": (
        GOOD[: 2 * SAMPLE_BYTES] + bytes(512) + GOOD[2 * SAMPLE_BYTES + 512 :],
        "after end",
        "zeros overwrote a part",
    ),
    "allocated but not filled": (
        GOOD[: 2 * SAMPLE_BYTES] + bytes(2 << 20),
        "cut",
        "a copy did not finish",
    ),
    "no image": (
        tar_bytes([*samples(2), ("x.cls", b"1"), ("x.json", b"{}")]),
        "no image",
        "has no image, but cls, json",
    ),
    "interleaved": (
        tar_bytes([("a.cls", b"1"), ("b.cls", b"1"), ("a.jpg", JPEG), ("b.jpg", JPEG)]),
        "apart",
        "sample 'a' has cls at byte 0 and jpg here, but the members .* must be consecutive; .*`tar --sort=name`",
    ),
    "a key twice": (
        tar_bytes(samples(2) + samples(1)),
        "duplicate key",
        "sample 'k0000' has the same key as a sample at byte 0, and both have cls, jpg; .* each sample once",
    ),
    "a field twice": (
        tar_bytes([("a.cls", b"1"), ("a.jpg", JPEG), ("a.JPG", JPEG)]),
        "duplicate field",
        "has the field 'jpg' twice",
    ),
    "dots in names": (
        tar_bytes([("a.1.jpg", JPEG), ("a.2.jpg", JPEG), ("a.cls", b"1")]),
        "several images",
        "none in a field such as jpg or png: 1.jpg, 2.jpg",
    ),
    "a TIFF of three floats": (
        tar_bytes([("a.tif", tiff(np.zeros((4, 4, 3), "f4"))), ("a.cls", b"1")]),
        "unreadable image",
        "a TIFF of 3 32-bit float values per pixel, which is not read; convert it",
    ),
    "a format that is not read": (
        tar_bytes([("a.jp2", b"x"), ("a.cls", b"1")]),
        "no image",
        r"a format that is not supported: jp2 \(JPEG 2000\); convert such images to JPEG",
    ),
    "a page of an error": (
        tar_bytes([("a.jpg", b"<html>404"), ("a.cls", b"1"), ("b.jpg", JPEG), ("b.cls", b"1")]),
        "unreadable image",
        "sample 'a' has an image that cannot be read: it is a page of HTML",
    ),
    "an empty image": (tar_bytes([("a.cls", b"1"), ("a.jpg", b"")]), "empty image", "has an empty image"),
    "no label": (
        tar_bytes([("a.jpg", JPEG), ("a.txt", b"cat")]),
        "no label",
        "has no field 'cls', but jpg, txt",
    ),
    "a label that is no number": (
        tar_bytes([("a.jpg", JPEG), ("a.cls", b"cat")]),
        "label",
        "'cat' is not a class number",
    ),
    "a negative label": (
        tar_bytes([("a.jpg", JPEG), ("a.cls", b"-2")]),
        "label",
        "'-2' is not a class number",
    ),
    "a binary label": (
        tar_bytes([("a.jpg", JPEG), ("a.cls", b"\xff\xfe")]),
        "label",
        "the field is not text",
    ),
    "nothing with a field": (tar_bytes([("a", JPEG), ("b", JPEG)]), "no samples", "there are no samples"),
}


@pytest.mark.parametrize("name", FAULTY)
def test_errors_name_the_problem(name: str) -> None:
    data, kind, message = FAULTY[name]
    with pytest.raises(TarFault, match=message) as error:
        index_of(data)
    assert error.value.kind == kind
    assert str(error.value).startswith("s.tar")
    assert f"byte {error.value.offset}" in str(error.value)
    faults: list[TarFault] = []
    index_of(data, on_fault=faults.append)
    assert kind in [fault.kind for fault in faults]


def test_labels_by_name_number_and_json() -> None:
    data = tar_bytes(
        [("a.jpg", JPEG), ("a.txt", "köter\n".encode()), ("a.json", b'{"c": {"id": 1, "name": "dog"}}'),
         ("b.jpg", JPEG), ("b.txt", b"cat"), ("b.json", b'{"c": {"id": -1, "name": null}}')]
    )  # fmt: skip
    by_name = index_of(data, label=LabelField("txt"))
    assert (by_name.classes, by_name.labels.tolist()) == (("cat", "köter"), [1, 0])
    listed = index_of(data, label=LabelField("txt"), classes=["köter", "x", "cat"])
    assert (listed.classes, listed.labels.tolist()) == (("köter", "x", "cat"), [0, 2])
    assert index_of(data, label=LabelField.parse("json:c/id")).labels.tolist() == [1, -1]
    named = index_of(data, label=LabelField.parse("json:c/name"), classes=["cat", "dog"])
    assert named.labels.tolist() == [1, -1]
    with pytest.raises(TarFault, match="is a 'köter', which the class list lacks"):
        index_of(data, label=LabelField("txt"), classes=["cat"])
    with pytest.raises(TarFault, match="is of class 1 of 1 from 0"):
        index_of(data, label=LabelField.parse("json:c/id"), classes=["cat"])
    with pytest.raises(TarFault, match="the field has no key 'c/colour'"):
        index_of(data, label=LabelField.parse("json:c/colour"))
    with pytest.raises(TarFault, match="the field is not JSON"):
        index_of(data, label=LabelField.parse("txt:c"))


def test_numbers_and_names_by_a_list() -> None:
    data = tar_bytes(
        [f for k, c in enumerate(("2", "10", "007")) for f in ((f"{k}.jpg", JPEG), (f"{k}.cls", c.encode()))]
    )
    names = ["0", "1", "10", "11", "2", "7"]
    index = index_of(data, classes=names)
    assert [index.classes[label] for label in index.labels] == ["2", "10", "7"]
    with pytest.raises(TarFault, match="sample '2' is a '7', which the class list lacks"):
        index_of(data, classes=["10", "2"])
    mixed = tar_bytes(
        [("a.jpg", JPEG), ("a.json", b'{"c": 1}'), ("b.jpg", JPEG), ("b.json", b'{"c": "cat"}')]
    )
    field = LabelField.parse("json:c")
    with pytest.raises(
        ValueError, match=r"both class names \('cat'\) and class numbers as labels; give --classes"
    ):
        index_of(mixed, label=field)
    index = index_of(mixed, label=field, classes=["cat", "dog"], stamp="v1")
    assert (index.labels.tolist(), index.stamp) == ([1, 0], "")
    text = tar_bytes([("a.jpg", JPEG), ("a.json", b'{"c": 1}'), ("b.jpg", JPEG), ("b.json", b'{"c": "0"}')])
    assert index_of(text, label=field).labels.tolist() == [1, 0]
