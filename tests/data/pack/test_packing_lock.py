"""One process packs at a destination at a time; errors of other processes, and the state after its end."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.example import Example
from fourds_dist.data.format.manifest import read_manifest
from fourds_dist.data.pack.destination import left_by_crash
from fourds_dist.data.pack.packing_lock import PACKING, PackingLock, check_unlocked
from fourds_dist.data.pack.verify import verify
from fourds_dist.data.pack.writer import pack_domain
from fourds_dist.io.storage import locate, write_bytes
from fourds_dist.processes.identity import own_identity


def url_in(store: str, tmp_path: Path) -> str:
    return f"{tmp_path}/a/set" if store == "disk" else f"memory:/{tmp_path}/set"


def domain(number: int = 30) -> Domain:
    return Domain(
        "d", ("a",), lambda: [Example(f"k{n}", b"%d" % n * 200, "jpg", "a", "train") for n in range(number)]
    )


@pytest.mark.parametrize("store", ["disk", "memory"])
def test_the_second_process_gets_the_name_of_the_first(store: str, tmp_path: Path) -> None:
    url = url_in(store, tmp_path)
    check_unlocked(url)
    with PackingLock(url):
        for attempt in (lambda: pack_domain(domain(), url), lambda: check_unlocked(url)):
            with pytest.raises(
                ValueError, match=r"is being packed by process \d+ on .* since 20.*; wait until"
            ):
                attempt()
    fs, path = locate(url)
    assert not fs.exists(f"{path}/{PACKING}")
    pack_domain(domain(), url)
    assert read_manifest(url).num_samples("train") == 30


def test_nothing_is_left_where_nothing_was_packed(tmp_path: Path) -> None:
    with PackingLock(f"{tmp_path}/a/b/set"):
        assert (tmp_path / "a/b/set" / PACKING).exists()
    assert not (tmp_path / "a").exists()


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each rank of a job packs: whichever succeeds, the set is complete, and the others get an error."""
    url = f"{tmp_path}/set"
    failed: list[str] = []

    def pack() -> None:
        try:
            pack_domain(domain(200), url, shard_bytes=20_000)
        except ValueError as error:
            failed.append(str(error))

    threads = [threading.Thread(target=pack) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) < 6
    assert all("is being packed by process" in error for error in failed)
    assert verify(url)[1] == []
    assert not [
        path for path in (tmp_path / "set").iterdir() if "partial" in path.name or path.name == PACKING
    ]


def test_a_killed_packing_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys; from fourds_dist.data.pack.packing_lock import PackingLock\n"
        f"claim = PackingLock({str(tmp_path / 'set')!r}).__enter__(); claim.list_shards(['train-00000.tar'])\n"
        "os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    (tmp_path / "set" / "train-00000.tar").write_bytes(b"half")
    check_unlocked(f"{tmp_path}/set")
    pack_domain(domain(), f"{tmp_path}/set")
    assert verify(f"{tmp_path}/set")[1] == []


def test_in_a_store_the_later_of_two_hosts_has_the_lock(tmp_path: Path) -> None:
    url = url_in("memory", tmp_path)
    other = {"token": "t", "pid": 7, "host": "elsewhere", "since": "2026-01-01 00:00:00 UTC"}

    def another_takes_over(what: str, done: int, total: int | None) -> None:
        if what == "writing" and done == 1:
            shards = [f"train-{n:05}.tar" for n in range(20)]
            write_bytes(f"{url}/{PACKING}", json.dumps({"shards": shards, "by": other}).encode())

    with pytest.raises(ValueError, match="is being packed by process 7 on elsewhere since 2026-01-01"):
        pack_domain(domain(200), url, shard_bytes=20_000, num_threads=1, on_progress=another_takes_over)
    fs, path = locate(url)
    assert fs.exists(f"{path}/{PACKING}")  # the other's
    assert fs.exists(f"{path}/train-00000.tar")
    pack_domain(domain(), url)  # on another host the process cannot be checked: this lock is newer
    assert verify(url)[1] == []


def test_a_set_that_is_there_already_stays_as_it_is(tmp_path: Path) -> None:
    url = f"{tmp_path}/set"
    first = pack_domain(domain(), url)
    assert pack_domain(domain(), url) == first
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [
        "manifest.json",
        "train-00000.tar",
        "train-00000.tar.index",
    ]


@pytest.mark.parametrize("text", [b'{"shards": [', b"[" * 100_000, b"9" * 5000, b"\xff\xfe", b"[1]", b"{}"])
def test_an_unreadable_lock_has_no_owner(tmp_path: Path, text: bytes) -> None:
    (tmp_path / PACKING).write_bytes(text)
    check_unlocked(str(tmp_path))
    assert left_by_crash(str(tmp_path)) == []


@pytest.mark.parametrize(
    "changes", [{"began": "1"}, {"began": None}, {"space": "an earlier boot"}, {"pid": -1}]
)
def test_in_a_store_a_process_that_is_gone_holds_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    url = url_in("memory", tmp_path)
    running = own_identity()
    write_bytes(f"{url}/{PACKING}", json.dumps({"shards": [], "by": running}).encode())
    with pytest.raises(
        ValueError, match=f"is being packed by process {running['pid']} on {running['host']} since"
    ):
        check_unlocked(url)
    write_bytes(f"{url}/{PACKING}", json.dumps({"shards": [], "by": running | changes}).encode())
    check_unlocked(url)
    with PackingLock(url) as lock:
        assert lock.is_ours()
