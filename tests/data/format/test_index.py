"""An index as a file: read as written, and refused when it is damaged or inconsistent."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourds_dist.data.format.index import ShardIndex
from tests.data.pack.tars import index_of, samples, tar_bytes

FIELDS = [field for field in ShardIndex.__dataclass_fields__ if field not in ("num_bytes", "sha256", "stamp")]

INDEX = index_of(tar_bytes(samples(6)))


def same(one: ShardIndex, other: ShardIndex) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in FIELDS)


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
