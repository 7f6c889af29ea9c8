"""An example gives the bytes of its file, in memory or on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.data.datasets.example import Example


def test_bytes_in_memory_and_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    on_disk = Example("k", path, "png", "ant")
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        on_disk.read()
    path.write_bytes(b"later")
    assert on_disk.read() == b"later"
    assert Example("k", b"here", "png", None).read() == b"here"
