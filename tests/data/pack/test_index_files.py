"""Index files are written and read at paths and URLs, and errors name the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.data.pack.index_files import read_index, write_index
from tests.data.pack.tars import index_of, samples, tar_bytes


@pytest.mark.parametrize("store", ["{}", "file://{}", "memory://{}"])
def test_an_index_comes_back(tmp_path: Path, store: str) -> None:
    index = index_of(tar_bytes(samples(4)), stamp="v1")
    where = f"{store.format(tmp_path)}/train-0.tar.index"
    write_index(where, index)
    assert read_index(where).to_bytes() == index.to_bytes()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train-0\.tar\.index"):
        read_index(f"{tmp_path}/train-0.tar.index")
    (tmp_path / "a.index").write_bytes(b"torn")
    with pytest.raises(ValueError, match=rf"^{tmp_path}/a\.index is truncated or not an index of a shard"):
        read_index(f"{tmp_path}/a.index")
    write_index(f"{tmp_path}/a.index", index_of(tar_bytes([])))
    assert [path.name for path in tmp_path.iterdir()] == ["a.index"]
