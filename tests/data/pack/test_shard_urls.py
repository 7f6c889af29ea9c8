"""Which tars a path or URL means: ranges without a listing, folders of folders, compressed tars, splits in names."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fourds_dist.cli.pack import main
from fourds_dist.data.format.manifest import read_manifest
from fourds_dist.data.pack.existing_tars import index_existing_tars
from fourds_dist.data.pack.shard_urls import expand, splits_by_name
from fourds_dist.data.pack.verify import verify
from tests.data.pack.tars import samples, tar_bytes


class Ranges(SimpleHTTPRequestHandler):
    """Serves ranges of files, and 404 for folders."""

    def do_GET(self) -> None:
        self._serve(body=True)

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _serve(self, *, body: bool) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        match = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        begin, end = (int(match[1]), int(match[2] or len(data) - 1)) if match else (0, len(data) - 1)
        part = data[begin : end + 1]
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {begin}-{begin + len(part) - 1}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if body:
            self.wfile.write(part)


@pytest.fixture
def http(tmp_path: Path) -> Iterator[str]:
    """URL of a server of tmp_path/web that lists no folder."""
    pytest.importorskip("aiohttp")
    (tmp_path / "web").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(tmp_path / "web")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def put(path: Path, number: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(samples(number)))


def test_a_range_needs_no_listing(http: str, tmp_path: Path) -> None:
    for n in range(2):
        put(tmp_path / "web/ds" / f"train-{n:04}.tar")
    to = str(tmp_path / "mine")
    done = index_existing_tars([f"{http}/ds/train-{{0000..0001}}.tar"], to=to)
    assert done.manifest.num_samples("train") == 6
    assert verify(to)[1] == []
    for url, message in (
        ("ds/train-{0000..0003}.tar", "names 4 tars, of which 2 do not exist, first .*/ds/train-0002.tar"),
        ("ds/x-{0000..0003}.tar", "no shards match .*none of them is in .*/ds"),
        ("ds", "the server lists no such folder; name the tars .* brace range"),
        ("ds/*.tar", "the server lists no such folder; name the tars .* brace range"),
    ):
        with pytest.raises(ValueError, match=message):
            index_existing_tars([f"{http}/{url}"], to=to)
    with pytest.raises(ValueError, match=r"nothing can be written over HTTP; give a folder .*--to DEST"):
        index_existing_tars([f"{http}/ds/train-{{0000..0001}}.tar"])


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("a.tar.gz", "gunzip -k a.tar.gz"),
        ("a.tgz", "gunzip -k a.tgz"),
        ("a.tar.bz2", "bunzip2 -k a.tar.bz2"),
        ("a.tar.xz", "unxz -k a.tar.xz"),
        ("a.tar.zst", "unzstd a.tar.zst"),
        ("A.TAR.GZ", "gunzip -k A.TAR.GZ"),
    ],
)
def test_compressed_tars(tmp_path: Path, name: str, command: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    for url in (tmp_path, tmp_path / name, tmp_path / "*", tmp_path / f"{{{name},b.tar}}"):
        with pytest.raises(ValueError, match=f"{re.escape(name)} is compressed.*`{re.escape(command)}`"):
            expand(str(url))
    put(tmp_path / "b.tar")
    with pytest.raises(ValueError, match="is compressed"):  # nor is it passed over beside others
        expand(str(tmp_path))


def test_a_tar_that_was_decompressed_beside_its_source(tmp_path: Path) -> None:
    put(tmp_path / "a.tar")
    if shutil.which("gzip") is None:
        pytest.skip("no gzip")
    subprocess.run(["gzip", "-k", str(tmp_path / "a.tar")], check=True)
    assert expand(str(tmp_path)) == [f"{tmp_path}/a.tar"]


def test_archives_are_no_tars(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"a\.zip is no tar; unpack it and run"):
        expand(f"{tmp_path}/a.zip")


def test_folders_of_folders(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        put(tmp_path / part / "00000.tar")
    with pytest.raises(ValueError, match="holds test, train, val, which hold tars") as error:
        index_existing_tars([str(tmp_path)])
    advised = re.search(r"give '(.*)'", str(error.value))
    assert advised is not None
    manifest = index_existing_tars([advised[1]]).manifest
    assert {split: [s.name for s in shards] for split, shards in manifest.splits.items()} == {
        "train": ["train/00000.tar"], "val": ["val/00000.tar"], "test": ["test/00000.tar"],
    }  # fmt: skip
    assert verify(str(tmp_path))[1] == []
    assert index_existing_tars([f"{tmp_path}/val"]).manifest.num_samples("val") == 3
    assert expand(f"{tmp_path}/{{train,val}}/0000?.tar") == [
        f"{tmp_path}/train/00000.tar", f"{tmp_path}/val/00000.tar",
    ]  # fmt: skip


@pytest.mark.parametrize("pattern", ["a-{0..999999999}.tar", "{0..999}-{0..9999}.tar"])
def test_a_range_takes_no_memory_by_its_ends(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ValueError, match=r"stands for 10+ names, and at most 1000000 are"):
        expand(f"{tmp_path}/{pattern}")


def test_unbalanced_braces(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="its braces do not match"):
        expand(f"{tmp_path}/a-{{0..9.tar")


def test_words_of_splits() -> None:
    def told(*names: str) -> list[str | None]:
        return list(splits_by_name([f"s3://test/train-data/{name}" for name in names]).values())

    assert told("imagenet1k-train-0.tar", "imagenet1k-validation-0.tar") == ["train", "val"]
    assert told("train/0.tar", "dev/0.tar", "Testing/0.tar") == ["train", "val", "test"]
    assert told("test-rig-train-0.tar", "test-rig-val-0.tar") == ["train", "val"]
    assert told("latest-0.tar", "val-0.tar") == [None, "val"]
    assert told("0.tar", "1.tar") == ["train", "train"]  # the folder's whole name
    assert list(splits_by_name(["/home/test/photos/0.tar", "/home/test/photos/1.tar"]).values()) == [None] * 2


def test_a_shard_moves_to_another_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for n in range(3):
        put(tmp_path / f"part-{n}.tar", 3 + n)
    assert main(["index", str(tmp_path)]) == 0
    assert main(["index", f"{tmp_path}/part-2.tar", "--split", "val"]) == 0
    manifest = read_manifest(str(tmp_path))
    assert (manifest.num_samples("train"), manifest.num_samples("val")) == (7, 5)
    assert (manifest.class_counts["train"], manifest.class_counts["val"]) == ((3, 2, 2), (2, 2, 1))
    assert main(["verify", str(tmp_path)]) == 0
    assert main(["index", f"{tmp_path}/part-*.tar", "--split", "test"]) == 0
    assert list(read_manifest(str(tmp_path)).splits) == ["test"]
    capsys.readouterr()
