"""Datasets appear whole or not at all, the same every time, on disks and in object stores."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.example import Example
from fourds_dist.data.format.index import ShardIndex
from fourds_dist.data.format.manifest import MANIFEST, read_manifest
from fourds_dist.data.pack import writer
from fourds_dist.data.pack.verify import verify
from fourds_dist.data.pack.writer import PACKING, pack_domain
from fourds_dist.processes.parent_death import die_with_parent
from tests.data.conftest import S3Server, forget_connections
from tests.data.pack.tars import webdataset_samples

CLASSES = ("big dog", "köter")


def domain(number: int = 40, *, salt: int = 0, size: int = 900, name: str = "photos") -> Domain:
    def produce():
        for n in range(number):
            label = None if n % 10 == 9 else CLASSES[n % 2]
            yield Example(f"k {n}", bytes([n % 256, salt]) * size, "jpg", label)

    return Domain(name, CLASSES, produce, notes={"origin": "a test", "tuple": (1, 2)})


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def pack(url: str | Path, made: Domain | None = None, **options: Any):
    return pack_domain(made or domain(), str(url), **({"shard_bytes": 20_000} | options))


def test_what_is_written_is_what_webdataset_reads(tmp_path: Path) -> None:
    manifest = pack(tmp_path / "d")
    assert read_manifest(str(tmp_path / "d")) == manifest
    assert manifest.class_counts == {"train": (14, 11), "val": (2, 2), "test": (4, 3)}
    assert manifest.num_samples("train") == 29
    assert len(manifest.splits["train"]) > 2
    assert manifest.notes["packing"] == {
        "seed": 42, "shard_bytes": 20_000, "val_fraction": 0.1, "test_fraction": 0.2,
    }  # fmt: skip
    expected = {e.key.replace(" ", "-"): e for e in domain()}
    found = {}
    for shards in manifest.splits.values():
        for shard in shards:
            path = tmp_path / "d" / shard.name
            assert path.stat().st_size == shard.num_bytes
            index = ShardIndex.from_bytes(Path(f"{path}.index").read_bytes(), "i")
            samples = webdataset_samples(path.read_bytes())
            assert [s["__key__"] for s in samples] == index.keys.tolist()
            assert [int(s["cls"]) for s in samples] == index.labels.tolist()
            data = path.read_bytes()
            for row, sample in enumerate(samples):
                begin = index.offsets[row]
                assert data[begin : begin + index.sizes[row]] == sample["jpg"]
                found[sample["__key__"]] = (sample["jpg"], int(sample["cls"]))
    assert found == {
        key: (e.image, -1 if e.label is None else CLASSES.index(e.label)) for key, e in expected.items()
    }
    assert verify(str(tmp_path / "d"))[1] == []


def test_equal_input_and_seed_give_equal_bytes(tmp_path: Path) -> None:
    for name, options in (("a", {}), ("b", {"num_threads": 1}), ("c", {"seed": 1})):
        pack(tmp_path / name, **options)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    a, c = files_of(tmp_path / "a"), files_of(tmp_path / "c")
    assert a["train-00000.tar"] != c["train-00000.tar"]


def test_a_finished_dataset_stays_or_is_replaced_on_request(tmp_path: Path) -> None:
    url = tmp_path / "d"
    first = pack(url)
    before = {path: path.stat().st_mtime_ns for path in url.iterdir()}
    told = []
    assert pack(url, on_progress=lambda what, done, total: told.append(what)) == first
    assert {path: path.stat().st_mtime_ns for path in url.iterdir()} == before
    assert "writing" not in told

    for other in (domain(salt=1), domain(39), domain(name="x"), domain(size=901)):
        with pytest.raises(
            ValueError, match=rf"{url} holds another dataset \(photos: 40 images\); --overwrite"
        ):
            pack(url, other)
    assert {path: path.stat().st_mtime_ns for path in url.iterdir()} == before

    second = pack(url, domain(10), overwrite=True)
    assert sum(second.num_samples(split) for split in second.splits) == 10
    assert set(files_of(url)) == {
        MANIFEST, *(f"{s.name}{end}" for shards in second.splits.values() for s in shards for end in ("", ".index"))
    }  # fmt: skip
    assert verify(str(url))[1] == []


def test_a_dataset_that_lost_a_shard_is_not_the_same(tmp_path: Path) -> None:
    pack(tmp_path)
    (tmp_path / "train-00000.tar").unlink()
    with pytest.raises(ValueError, match="--overwrite replaces it"):
        pack(tmp_path)
    pack(tmp_path, overwrite=True)
    assert verify(str(tmp_path))[1] == []


def test_other_folders_are_not_changed(tmp_path: Path) -> None:
    (tmp_path / "train-00000.tar").write_bytes(b"somebody's")
    (tmp_path / "notes.txt").write_bytes(b"also")
    with pytest.raises(ValueError, match=r"1 tars that were not packed by fourds_dist.*pack index"):
        pack(tmp_path, overwrite=True)
    assert files_of(tmp_path) == {"train-00000.tar": b"somebody's", "notes.txt": b"also"}
    with pytest.raises(ValueError, match=r"notes\.txt is a file; give a folder"):
        pack(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match=r"notes\.txt/below cannot be written|Not a directory"):
        pack(tmp_path / "notes.txt" / "below")


def test_a_source_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def produce():
        yield from domain()
        raise ValueError("the source is broken")

    with pytest.raises(ValueError, match="the source is broken"):
        pack(tmp_path / "d", Domain("photos", CLASSES, produce))
    assert not (tmp_path / "d").exists()
    with pytest.raises(ValueError, match="notes of 'photos' are not JSON"):
        pack(tmp_path / "d", Domain("photos", CLASSES, domain().produce, notes={"x": tmp_path}))
    assert not (tmp_path / "d").exists()


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.txt").write_bytes(b"not ours")
    real, calls = writer.put_file, []

    def fails(url: str, local: Path) -> None:
        calls.append(url)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(url, local)

    monkeypatch.setattr(writer, "put_file", fails)
    with pytest.raises(KeyboardInterrupt):
        pack(tmp_path, num_threads=1)
    assert files_of(tmp_path) == {"notes.txt": b"not ours"}


def in_child(function: Callable[[], Any]) -> tuple[int, str]:
    """(exit code, message of the ValueError) of a function in a forked process."""
    receiver, sender = multiprocessing.Pipe(duplex=False)

    parent = os.getpid()

    def run() -> None:
        die_with_parent(parent)
        try:
            function()
            sender.send("")
        except ValueError as error:
            sender.send(str(error))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    sender.close()
    try:
        message = receiver.recv()
    except EOFError:
        message = ""
    process.join()
    receiver.close()
    assert process.exitcode is not None
    return process.exitcode, message


def test_after_a_kill_the_same_command_starts_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = tmp_path / "d"
    real, calls = writer.put_file, []

    def killed(url: str, local: Path) -> None:
        calls.append(url)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        real(url, local)

    monkeypatch.setattr(writer, "put_file", killed)
    code, _ = in_child(lambda: pack(url, num_threads=1))
    assert code == -signal.SIGKILL
    monkeypatch.undo()
    left = files_of(url)
    assert PACKING in left
    assert MANIFEST not in left
    assert any(name.endswith(".partial") for name in left)
    with pytest.raises(ValueError, match="a packing that did not finish"):
        read_manifest(str(url))

    (url / "mine.txt").write_bytes(b"not ours")
    pack(url, domain(20))  # another domain even: fewer shards
    assert verify(str(url))[1] == []
    pack(tmp_path / "fresh", domain(20))
    assert files_of(url) == files_of(tmp_path / "fresh") | {"mine.txt": b"not ours"}


def test_a_kill_while_a_dataset_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = tmp_path / "d"
    pack(url)

    def killed(url: str, local: Path) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(writer, "put_file", killed)
    assert in_child(lambda: pack(url, domain(10), overwrite=True))[0] == -signal.SIGKILL
    monkeypatch.undo()
    pack(url, domain(10))
    pack(tmp_path / "fresh", domain(10))
    assert files_of(url) == files_of(tmp_path / "fresh")


def test_no_space_for_shards(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk; the images are files, so the shard is what grows."""
    (tmp_path / "x.jpg").write_bytes(bytes(1000))
    big = Domain(
        "big", ("a",), lambda: (Example(f"{n}", tmp_path / "x.jpg", "jpg", "a", "train") for n in range(300))
    )

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        pack(tmp_path / "d", big, shard_bytes=1 << 30)

    code, message = in_child(limited)
    assert code == 0
    assert f"no space left while packing {tmp_path}/d" in message
    assert files_of(tmp_path / "d") == {}


def test_no_space_for_images_on_their_way(tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        pack(tmp_path / "d")

    code, message = in_child(limited)
    assert code == 0
    assert "TMPDIR" in message
    assert not (tmp_path / "d").exists()


def test_an_object_store(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{s3_server.new_bucket()}/deep/photos"
    manifest = pack(url)
    assert pack(url) == manifest
    pack(tmp_path / "d")
    assert files_of(s3_server.path(url)) == files_of(tmp_path / "d")
    assert verify(url)[1] == []
    pack(url, domain(10), overwrite=True)
    assert verify(url)[1] == []

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong" * 5)
    forget_connections()
    with pytest.raises(ValueError, match=rf"{url}.*access denied.*AWS_ACCESS_KEY_ID"):
        pack(url, overwrite=True)
    monkeypatch.undo()
    forget_connections()
    with pytest.raises(ValueError, match=r"s3://no-such-bucket/photos cannot be written.*bucket"):
        pack("s3://no-such-bucket/photos")
    assert not s3_server.path("s3://no-such-bucket").exists()


def test_any_other_store() -> None:
    url = "memory://packed/photos"
    manifest = pack(url)
    assert read_manifest(url) == manifest
    assert verify(url)[1] == []
    fs, path = fsspec.core.url_to_fs(url)
    assert not [name for name in fs.ls(path, detail=False) if name.endswith(".partial") or PACKING in name]
    fs.rm(path, recursive=True)
