"""A tar is read as a whole: its long names and sizes, and every fault of its bytes is reported."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourds_dist.data.pack.tar import TarFault
from tests.data.pack.tars import JPEG, index_of, samples, tar_bytes


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
