"""The S3 server of the tests does what tests rely on."""

from __future__ import annotations

import fsspec
import pytest

from tests.data.conftest import S3Server, forget_connections


def test_objects_and_ranges(s3_server: S3Server) -> None:
    url = s3_server.new_bucket()
    fs, path = fsspec.core.url_to_fs(f"{url}/a/b.bin")
    fs.pipe_file(path, bytes(range(200)))
    assert fs.cat_file(path, start=10, end=13) == bytes([10, 11, 12])
    assert s3_server.path(f"{url}/a/b.bin").read_bytes() == bytes(range(200))
    assert fs.ls(f"{url}/a", detail=False) == [path]


def test_a_wrong_secret_is_refused(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = s3_server.new_bucket()
    s3_server.fs.pipe_file(f"{url}/x", b"there")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong" * 5)
    forget_connections()
    fs, path = fsspec.core.url_to_fs(f"{url}/x")
    with pytest.raises(PermissionError):
        fs.cat_file(path)
    monkeypatch.undo()
    forget_connections()
    fs, path = fsspec.core.url_to_fs(f"{url}/x")
    assert fs.cat_file(path) == b"there"
