"""The loaders that `benchmark data` compares, and the processes that measure them."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from fourds_dist.benchmark import peers
from fourds_dist.processes.parent_death import die_with_parent


@pytest.mark.parametrize("name", [peers.OURS, peers.WEBDATASET, "ImageFolder"])
@pytest.mark.parametrize("start", [0.0, 0.5])
def test_contenders_give_batches(folder, monkeypatch, name, start):
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    setup = peers.Setup(name, str(folder), batch_size=4, shuffle=8, start=start, cores=(0,))
    batches = peers.PEERS[name].batches(setup)
    assert [next(batches) for _ in range(8)] == [4] * 8
    batches.close()  # pyright: ignore[reportAttributeAccessIssue]


def test_memory_counts_a_process_and_its_children():
    import multiprocessing

    # Of a process of its own: this one's other children (Ray's among them) come and go.
    fork = multiprocessing.get_context("fork")
    gate = fork.Event()
    parent = fork.Process(target=_hold_in_child, args=(gate, os.getpid()))
    parent.start()
    try:
        assert gate.wait(300)
        assert parent.pid is not None
        (child,) = set(peers.family(parent.pid)) - {parent.pid}
        alone = peers.memory_bytes(child)
        assert alone > 60 << 20
        assert peers.memory_bytes(parent.pid) >= alone
    finally:
        parent.kill()
        parent.join()


def _hold_in_child(gate, parent: int) -> None:
    import multiprocessing

    die_with_parent(parent)
    child = multiprocessing.get_context("fork").Process(target=_hold, args=(gate, os.getpid()))
    child.start()
    child.join()


def _hold(gate, parent: int) -> None:
    die_with_parent(parent)
    held = np.ones(64 << 20, np.uint8)
    gate.set()
    __import__("time").sleep(1000 + int(held[0]))


def test_data_come_from_the_store_if_there_is_one() -> None:
    assert peers.Setup("x", "/tmp/photos").url == "/tmp/photos"
    assert peers.Setup("x", "/tmp/photos", remote="s3://b/photos").url == "s3://b/photos"


def test_packages_that_are_missing_are_named() -> None:
    peer = peers.Peer("x", ("torch", "no_such_package"), lambda _: iter(()))
    assert peer.missing == ["no_such_package"]
    assert peers.PEERS[peers.OURS].missing == []
    assert [name for name, peer in peers.PEERS.items() if not peer.remote] == [
        "fourds_dist's decoder in processes",
        "ImageFolder",
    ]
    assert all(name == peer.name for name, peer in peers.PEERS.items())


def test_children_count_as_cpu_time(tmp_path) -> None:
    busy = (
        "import time; end = time.process_time() + 0.2\n"
        "while time.process_time() < end: pass\n"
        "print(1, flush=True); input()"
    )
    before = peers.cpu_s()
    with subprocess.Popen(
        [sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        child.stdout.readline()
        assert peers.cpu_s() - before >= 0.15
        child.communicate(b"\n")
