"""Small files are written atomically; errors of stores name the cause."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import fsspec
import pytest

from fourds_dist.io import extras
from fourds_dist.io.storage import (
    beside,
    check_file,
    check_writable,
    join,
    locate,
    parent,
    plain,
    put_file,
    translate_storage_errors,
    write_bytes,
)
from tests.harness.s3 import serving


def test_a_local_file_is_never_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(tmp_path / "deep" / "x.json")
    write_bytes(url, b"one")

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(url, b"two")
    monkeypatch.undo()
    assert Path(url).read_bytes() == b"one"
    write_bytes(url, b"two")
    assert Path(url).read_bytes() == b"two"


@pytest.mark.parametrize("place", ["local", "memory"])
def test_a_file_is_moved_to_its_path(tmp_path: Path, place: str) -> None:
    url = str(tmp_path / "there.tar") if place == "local" else "memory://moved/deep/there.tar"
    local = tmp_path / "here.partial"
    local.write_bytes(bytes(3000))
    put_file(url, local)
    fs, path = fsspec.core.url_to_fs(url)
    assert fs.cat_file(path) == bytes(3000)
    assert not fs.exists(path + ".partial")
    assert not local.exists()


def test_a_short_upload_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fs, _ = fsspec.core.url_to_fs("memory://short/x")
    (local := tmp_path / "x").write_bytes(bytes(3000))
    monkeypatch.setattr(type(fs), "put_file", lambda self, source, path: self.pipe_file(path, bytes(2999)))
    with pytest.raises(OSError, match="memory://short/x has 2999 bytes after 3000 were sent"):
        put_file("memory://short/x", local)
    assert local.exists()


def test_what_is_explained_and_what_passes() -> None:
    with (
        pytest.raises(ValueError, match=r"s3://b: access denied \(no\); .*AWS_ACCESS_KEY_ID"),
        translate_storage_errors("s3://b"),
    ):
        raise PermissionError("no")
    with (
        pytest.raises(ValueError, match=r"/disk: access denied .*check its owner and permissions"),
        translate_storage_errors("/disk"),
    ):
        raise PermissionError(13, "Permission denied")
    for error in (FileNotFoundError("x"), OSError(28, "full"), KeyError("bug")):
        with pytest.raises(type(error)), translate_storage_errors("s3://b"):
            raise error


@pytest.mark.usefixtures("no_credentials")
def test_a_public_bucket_is_read_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    (tmp_path / "root/public").mkdir(parents=True)
    (tmp_path / "root/public/x").write_text("there")
    command = serving(str(tmp_path / "root"), "127.0.0.1:0", str(tmp_path / "rclone.conf"))
    at = command.index("--auth-key")
    del command[at : at + 2]  # public read access
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        lines = iter(process.stderr)
        match = next(
            m for line in lines if (m := re.search(r"Starting s3 server on \[(http://[^/\]]+)", line))
        )
        monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": match[1]})
        monkeypatch.setenv("FSSPEC_S3_ENDPOINT_URL", match[1])  # the session's server may stand there
        s3fs.S3FileSystem.clear_instance_cache()
        refused = pytest.raises(ValueError, match=r"no credentials were found; .*with FSSPEC_S3_ANON=true")
        with refused as error, translate_storage_errors("s3://public/x"):
            locate("s3://public/x")[0].cat_file("public/x")
        name, _, value = str(error.value).rpartition("with ")[2].partition("=")
        monkeypatch.setenv(name, value)
        fsspec.config.set_conf_env(fsspec.config.conf)  # what fsspec does when it is imported
        s3fs.S3FileSystem.clear_instance_cache()
        assert locate("s3://public/x")[0].cat_file("public/x") == b"there"
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def test_a_driver_that_is_not_installed() -> None:
    told = f"abfs://c/x: the driver for abfs:// is not installed; {extras.fix('azure')}"
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        locate("abfs://c/x")


class TestWritable:
    def test_a_folder_to_be_made_is_left_to_be_made(self, tmp_path: Path) -> None:
        check_writable(str(tmp_path / "a" / "b"))
        assert not (tmp_path / "a").exists()
        check_writable("memory://bucket/a")
        assert not fsspec.filesystem("memory").exists("/bucket/a/.fourds")

    def test_a_file_in_its_way(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        for place in (tmp_path / "file", tmp_path / "file" / "runs"):
            with pytest.raises(ValueError, match=f"^{place} cannot be written .*give another path or URL"):
                check_writable(str(place))

    def test_a_store_is_left_as_it_was(self) -> None:
        memory = fsspec.filesystem("memory")
        memory.store.clear()
        memory.pseudo_dirs[:] = [""]
        memory.pipe_file("/there/x", b"x")
        for place in ("memory://there/a/b", "memory://new/a", "memory://"):
            check_writable(place)
        check_file("memory://new/a.json")
        assert memory.find("/", withdirs=True) == ["/there", "/there/x"]
        for place in ("memory://there/x", "memory://there/x/y"):
            with pytest.raises(ValueError, match=r"/there/x is a file.*give another path or URL"):
                check_writable(place)

    @pytest.mark.parametrize(
        "place", ["http://127.0.0.1:9/x", "https://127.0.0.1:9/x", "simplecache::http://h/x"]
    )
    def test_the_web_takes_nothing_and_is_not_asked(self, place: str) -> None:
        for check in (check_writable, check_file):
            with pytest.raises(
                ValueError, match="nothing can be written over HTTP; give another path or URL"
            ):
                check(place)

    def test_a_file_is_not_a_folder(self, tmp_path: Path) -> None:
        check_file(str(tmp_path / "new" / "x.json"))
        check_file(f"file://{tmp_path}/x.json")
        for place in (str(tmp_path), f"{tmp_path}/new/", f"file://{tmp_path}"):
            with pytest.raises(ValueError, match="is a folder; give a file in it"):
                check_file(place)
        assert not list(tmp_path.iterdir())

    def test_a_disk_that_takes_nothing(self) -> None:
        with pytest.raises(ValueError, match="cannot be written"):
            check_writable("/proc/x/y")


@pytest.mark.parametrize(
    ("place", "as_it_is", "its_parent", "an_entry"),
    [
        ("runs/", "runs", ".", "runs/x"),
        ("/", "/", "/", "/x"),
        ("/runs/a//", "/runs/a", "/runs", "/runs/a/x"),
        ("file:///runs/a/", "/runs/a", "/runs", "/runs/a/x"),
        ("local:///runs", "/runs", "/", "/runs/x"),
        ("memory://", "memory://", "memory://", "memory://x"),
        ("memory://a/", "memory://a", "memory://", "memory://a/x"),
        ("s3://bucket/runs/", "s3://bucket/runs", "s3://bucket", "s3://bucket/runs/x"),
        ("simplecache::s3://bucket/a", "simplecache::s3://bucket/a", "simplecache::s3://bucket",
         "simplecache::s3://bucket/a/x"),
    ],
)  # fmt: skip
def test_places(place: str, as_it_is: str, its_parent: str, an_entry: str) -> None:
    assert (plain(place), parent(place), join(place, "x")) == (as_it_is, its_parent, an_entry)


def test_what_a_file_names_beside_itself() -> None:
    assert beside("s3://b/conf/a.yaml", "../base.yaml") == "s3://b/base.yaml"
    assert beside("conf/a.yaml", "sub/b.yaml") == "conf/sub/b.yaml"
    assert beside("a.yaml", "b.yaml") == "b.yaml"
    assert beside("s3://b/conf/a.yaml", "/etc/base.yaml") == "/etc/base.yaml"
    assert beside("/conf/a.yaml", "s3://b/base.yaml") == "s3://b/base.yaml"
