"""Members are grouped into the samples that webdataset finds, and faulty samples are reported."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fourds_dist.data.pack.tar import TarFault
from tests.data.pack.tars import JPEG, fields_of, index_of, samples, tar_bytes, webdataset_samples

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
