"""The index finds every byte that webdataset would, and nothing wrong with a tar goes unnoticed."""

from __future__ import annotations

import io
import tarfile
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from webdataset.writer import TarWriter

from fourds_dist.data.format.index import ShardIndex
from fourds_dist.data.pack.indexing import index_tar
from fourds_dist.data.pack.label_field import LabelField
from fourds_dist.data.pack.tar import TarFault
from tests.data.deep_images import tiff
from tests.data.pack.tars import JPEG, samples, tar_bytes, webdataset_samples

FIELDS = [field for field in ShardIndex.__dataclass_fields__ if field not in ("num_bytes", "sha256", "stamp")]


def index_of(data: bytes, **options: object) -> ShardIndex:
    return index_tar(io.BytesIO(data), "s.tar", **options)  # pyright: ignore[reportArgumentType]


def fields_of(index: ShardIndex, data: bytes, row: int) -> dict[str, bytes]:
    places = zip(index.fields, index.fields_offsets[row], index.fields_sizes[row], strict=True)
    return {name: data[begin : begin + size] for name, begin, size in places if begin >= 0}


def same(one: ShardIndex, other: ShardIndex) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in FIELDS)


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


parts = st.text("ab.ä_", min_size=1, max_size=6).filter(lambda part: part not in (".", ".."))
member_names = st.builds("/".join, st.lists(parts, min_size=1, max_size=3)).filter(
    lambda name: "/." not in f"/{name}"
)
members = st.lists(st.tuples(member_names, st.binary(max_size=600)), max_size=12)


@settings(max_examples=300, deadline=None)
@given(members, st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), st.booleans())
def test_grouping_is_webdataset_s(files: list[tuple[str, bytes]], format: int, long: bool) -> None:
    """Where we raise nothing, samples are those of webdataset's own reader."""
    prefix = "very/" * 40 if long else ""
    files = [(prefix + name + ".JPG", b"i" + data) for name, data in files]
    data = tar_bytes(files, format)
    try:
        index = index_of(data, allow_unlabelled=True)
    except TarFault:
        assume(False)
    theirs = webdataset_samples(data)
    assert index.keys.tolist() == [sample.pop("__key__") for sample in theirs]
    for row, sample in enumerate(theirs):
        assert fields_of(index, data, row) == sample


def test_long_names_of_every_kind() -> None:
    long = "d" * 90 + "/" + "k" * 180
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        data = tar_bytes(
            [(f"{long}.cls", b"1"), (f"{long}.jpg", JPEG), ("猫.cls", b"2"), ("猫.jpg", JPEG)], format
        )
        index = index_of(data)
        assert index.keys.tolist() == [long, "猫"]
        assert index.labels.tolist() == [1, 2]
        assert [data[o : o + s] for o, s in zip(index.offsets, index.sizes, strict=True)] == [JPEG, JPEG]


def test_a_size_in_a_pax_header_counts() -> None:
    out = io.BytesIO()
    info = tarfile.TarInfo("k.jpg")
    info.size = len(JPEG)
    info.pax_headers = {"size": str(len(JPEG)), "comment": "x=y\n"}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(JPEG))
        cls = tarfile.TarInfo("k.cls")
        cls.size = 1
        tar.addfile(cls, io.BytesIO(b"1"))
    assert index_of(out.getvalue()).sizes.tolist() == [len(JPEG)]


def test_directories_metadata_and_files_without_extension_are_no_samples() -> None:
    out = io.BytesIO(tar_bytes([]))
    with tarfile.open(fileobj=out, mode="w") as tar:
        folder = tarfile.TarInfo("k0000.d")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name in ("__index__", "__meta__/x.json", "LICENSE", "a/.hidden", "._k0000.jpg"):
            tar.addfile(tarfile.TarInfo(name))
        for name, data in samples(2):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert index_of(out.getvalue()).keys.tolist() == ["k0000", "k0001"]


GOOD = tar_bytes(samples(6))
INDEX = index_of(GOOD)
SAMPLE_BYTES = 5 * 512
END = 6 * SAMPLE_BYTES


@settings(deadline=None, max_examples=200)
@given(st.integers(0, END + 511) | st.integers(0, END // 512).map(lambda block: block * 512))
def test_a_tar_cut_anywhere_is_refused(length: int) -> None:
    with pytest.raises(TarFault, match=r"^s\.tar.*, byte \d+: .*(copy|pack)"):
        index_of(GOOD[:length])
    faults: list[TarFault] = []
    left = index_of(GOOD[:length], on_fault=faults.append)
    assert faults
    n = len(left)
    whole = length // SAMPLE_BYTES
    assert max(0, whole - 1) <= n <= whole  # no more is given up than what stands at the cut
    for name in ("keys", "offsets", "sizes", "labels", "checksums"):
        assert np.array_equal(getattr(left, name), getattr(INDEX, name)[:n])


# The two bytes after the checksum's digits have no meaning.
header_bytes = st.tuples(st.integers(0, 11), st.integers(0, 153) | st.integers(156, 511))


@settings(deadline=None, max_examples=200)
@given(header_bytes, st.integers(1, 255))
def test_a_garbled_header_is_refused(place: tuple[int, int], flip: int) -> None:
    member, byte = place
    offset = [*INDEX.fields_offsets[:, 0], *INDEX.fields_offsets[:, 1]][member] - 512 + byte
    bad = bytearray(GOOD)
    bad[offset] ^= flip
    with pytest.raises(TarFault, match=r"^s\.tar, byte"):
        index_of(bytes(bad))
    faults: list[TarFault] = []
    left = index_of(bytes(bad), on_fault=faults.append)
    assert faults
    assert 6 - 3 <= len(left) < 6
    rows = [INDEX.keys.tolist().index(key) for key in left.keys]
    for name in ("offsets", "sizes", "labels", "checksums"):
        assert np.array_equal(getattr(left, name), getattr(INDEX, name)[rows])


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


def test_links_and_sparse_members_have_no_range() -> None:
    for kind, expected in (
        (tarfile.LNKTYPE, "link"),
        (tarfile.SYMTYPE, "link"),
        (tarfile.GNUTYPE_SPARSE, "type"),
    ):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for name, data in [*samples(1), ("z.cls", b"1")]:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo("z.jpg")
            link.type, link.linkname = kind, "k0000.jpg"
            tar.addfile(link)
        with pytest.raises(TarFault, match=r"z\.jpg") as error:
            index_of(out.getvalue())
        assert error.value.kind == expected


def test_many_kinds_of_fields_are_dots_in_names() -> None:
    files = [file for n in range(70) for file in ((f"{n:02}.jpg", JPEG), (f"{n:02}.{n}.cls", b"1"))]
    with pytest.raises(TarFault, match="field names; a field is the name after its first dot"):
        index_of(tar_bytes(files), allow_unlabelled=True)


def test_the_image_of_several() -> None:
    data = tar_bytes([("a.png", b"mask"), ("a.jpg", JPEG), ("a.seg.png", b"x"), ("a.cls", b"0"),
                      ("b.image.webp", b"w"), ("b.cls", b"0")])  # fmt: skip
    assert index_of(data).extensions.tolist() == ["jpg", "image.webp"]
    chosen = index_of(data, image="png", on_fault=lambda fault: None)
    assert chosen.extensions.tolist() == ["png"]


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


def test_labels_from_folders_of_the_tar() -> None:
    data = tar_bytes(
        [("./train/cat.v1/1.jpg", JPEG), ("./train/cat.v1/2.jpg", JPEG), ("./train/Ko\u0308ter/1.jpg", JPEG)]
    )
    index = index_of(data, label=LabelField.parse("path"))
    assert (index.classes, index.labels.tolist()) == (("K\u00f6ter", "cat.v1"), [1, 1, 0])
    assert index_of(data, label=LabelField.parse("path:0")).classes == ("train",)
    assert index_of(data, label=LabelField.parse("path:-2")).classes == ("train",)
    listed = index_of(data, label=LabelField.parse("path:1"), classes=["cat.v1", "x", "K\u00f6ter"])
    assert listed.labels.tolist() == [0, 0, 2]
    with pytest.raises(TarFault, match=r"its path has only the folders train/cat.v1, but --label path:2"):
        index_of(data, label=LabelField.parse("path:2"))
    with pytest.raises(TarFault, match="its path has no folder, but --label path:-1 takes"):
        index_of(tar_bytes([("a.jpg", JPEG)]), label=LabelField.parse("path"))
    with pytest.raises(TarFault, match=r"has no field 'cls'.*take the folder's name by --label path"):
        index_of(data)
    numbered = tar_bytes([(f"{n}/a.jpg", JPEG) for n in (10, 9, 2)])
    assert index_of(numbered, label=LabelField.parse("path")).classes == ("2", "9", "10")


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


@pytest.mark.parametrize("content", [b"1.0", b"+1", b"\xef\xbb\xbf1\r\n", b"001"])
def test_spellings_of_a_class_number(content: bytes) -> None:
    assert index_of(tar_bytes([("a.jpg", JPEG), ("a.cls", content)])).labels.tolist() == [1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"9" * 5000, "is not a class number, an integer from 0"),
        (b"3000000000", "is not a class number, an integer from 0"),
        (b"x" * (1 << 20) + b"y", "1048577 bytes, more than"),
    ],
)
def test_a_label_decides_on_no_size(content: bytes, message: str) -> None:
    with pytest.raises(TarFault, match=message):
        index_of(tar_bytes([("a.jpg", JPEG), ("a.cls", content)]))


def test_deep_json_is_a_fault() -> None:
    data = tar_bytes([("a.jpg", JPEG), ("a.json", b"[" * 100_000)])
    with pytest.raises(TarFault, match="the field is not JSON"):
        index_of(data, label=LabelField.parse("json:c"))


@pytest.mark.parametrize("order", ["images first", "labels first"])
def test_fields_that_stand_apart(order: str) -> None:
    images, labels = [[(f"{n}.{x}", b"1") for n in range(9)] for x in ("jpg", "cls")]
    files = images + labels if order == "images first" else labels + images
    with pytest.raises(
        TarFault, match=r"the members of a sample must be consecutive.*`tar --sort=name`"
    ) as error:
        index_of(tar_bytes(files))
    assert error.value.kind == "apart"
    for unlabelled in (False, True):  # no image without its label is taken for an unlabelled one
        faults: list[TarFault] = []
        assert len(index_of(tar_bytes(files), on_fault=faults.append, allow_unlabelled=unlabelled)) == 0
        assert "apart" in {fault.kind for fault in faults}
    assert len(index_of(tar_bytes(sorted(files)))) == 9  # what `tar --sort=name` writes


def test_fields_in_two_folders() -> None:
    data = tar_bytes(
        [("images/a.jpg", JPEG), ("images/b.jpg", JPEG), ("labels/a.cls", b"1"), ("labels/b.cls", b"1")]
    )
    with pytest.raises(TarFault, match=r"has its fields in two folders \(images/a.jpg\); put the files"):
        index_of(data)


def test_unlabelled_samples() -> None:
    data = tar_bytes([("a.jpg", JPEG), ("b.jpg", JPEG), ("b.cls", b"-1"), ("c.jpg", JPEG), ("c.cls", b"2")])
    assert index_of(data, allow_unlabelled=True).labels.tolist() == [-1, -1, 2]


def test_an_index_as_a_file() -> None:
    index = index_of(tar_bytes(samples(20)), stamp="v1")
    data = index.to_bytes()
    again = ShardIndex.from_bytes(data, "s.tar.index")
    assert again.to_bytes() == data
    assert same(again, index)
    assert (again.num_bytes, again.sha256, again.stamp) == (index.num_bytes, index.sha256, "v1")
    assert again.offsets.dtype == again.sizes.dtype == np.int64
    assert (again.labels.dtype, again.checksums.dtype) == (np.int32, np.uint32)
    none = ShardIndex.from_bytes(index_of(tar_bytes([])).to_bytes(), "e")
    assert len(none) == 0


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_a_harmed_index_is_refused_or_unchanged(data: st.DataObject) -> None:
    good = INDEX.to_bytes()
    if data.draw(st.booleans()):
        harmed = good[: data.draw(st.integers(0, len(good) - 1))]
    else:
        place = data.draw(st.integers(0, len(good) - 1))
        harmed = good[:place] + bytes([good[place] ^ data.draw(st.integers(1, 255))]) + good[place + 1 :]
    try:
        read = ShardIndex.from_bytes(harmed, "x/s.tar.index")
    except ValueError as error:
        told = str(error)
    else:
        assert same(read, INDEX)  # bytes without meaning, e.g. dates in the archive
        return
    assert told.startswith("x/s.tar.index")
    assert "index or pack its shard again" in told


def test_an_inconsistent_index_is_refused() -> None:
    for change, message in (
        ({"labels": INDEX.labels[:-1]}, "labels has shape"),
        ({"num_bytes": 1000}, "points past the tar's 1000 bytes"),
        ({"offsets": INDEX.offsets - 10**6}, "points past"),
        ({"fields": ("jpg",)}, "fields_offsets has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            ShardIndex.from_bytes(replace(INDEX, **change).to_bytes(), "i")
    pickled = io.BytesIO()
    np.savez(pickled, format=np.array({"code": 1}, dtype=object))
    with pytest.raises(ValueError, match="is truncated or not an index"):
        ShardIndex.from_bytes(pickled.getvalue(), "i")


def test_label_fields_on_the_command_line() -> None:
    assert str(LabelField.parse("json:a/b")) == "json:a/b"
    assert LabelField.parse(".CLS") == LabelField("cls")
    assert str(LabelField.parse("path")) == "path:-1"
    assert LabelField.parse(".path") == LabelField("path")
    for wrong in ("", "json:", ":x", "a/b"):
        with pytest.raises(ValueError, match="expected FIELD"):
            LabelField.parse(wrong)
