"""One driver at a time in a folder, on a disk and in a store; the lease of a dead driver is released."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fourds_dist.io.storage import locate
from fourds_dist.processes.identity import own_identity, start_of
from fourds_dist.runs import lease
from fourds_dist.runs.layout import RunFile
from fourds_dist.runs.lease import HeldError, Lease, held, read_lease
from fourds_dist.runs.run_folder import RunFolder
from tests.s3_server import S3Server


@pytest.fixture(params=["local", "file", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "local":
            return str(tmp_path / "run")
        case "file":
            return f"file://{tmp_path}/run"
        case "memory":
            return f"memory://leases/{tmp_path.name}"
        case _:
            server: S3Server = request.getfixturevalue("s3_server")
            return f"{server.new_bucket()}/runs/one"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("RENEW_S", 0.1), ("STALE_S", 1.0), ("POLL_S", 0.05), ("SETTLE_S", 0.2)):
        monkeypatch.setattr(lease, name, seconds)


def of_another(**keys: Any) -> dict[str, Any]:
    """A lease of another driver, by default on another host."""
    about = {"id": "theirs", "host": "elsewhere", "space": "x", "pid": 7, "began": "1", "since": "noon"}
    return {**about, "renewed": lease.time.time(), **keys}


def test_held_renewed_and_given_back(url: str) -> None:
    folder = RunFolder(url)
    with held(url) as mine:
        first = read_lease(url)
        assert first is not None
        assert (first["id"], first["pid"], first["host"]) == (mine.id, os.getpid(), socket.gethostname())
        with pytest.raises(HeldError, match="in use by this very process"), held(url):
            pass
        renewed = threading.Event()

        def watch() -> None:
            while (now := read_lease(url)) is None or now["renewed"] == first["renewed"]:
                pass
            renewed.set()

        threading.Thread(target=watch, daemon=True).start()
        assert renewed.wait(20)
    assert read_lease(url) is None
    assert not (
        folder.is_local and Path(folder.url).exists()
    )  # nothing was there before, and nothing is left
    with pytest.raises(ZeroDivisionError), held(url):
        _ = 1 / 0
    assert read_lease(url) is None


def test_a_live_driver_of_this_host_is_reported_and_a_dead_one_is_not_awaited(url: str) -> None:
    other = subprocess.Popen(["sleep", "600"])
    theirs = of_another(**own_identity() | {"pid": other.pid, "began": start_of(other.pid), "since": "noon"})
    RunFolder(url).write_json(RunFile.LEASE, theirs)
    try:
        with (
            pytest.raises(
                HeldError, match=rf"held by process {other.pid} on {socket.gethostname()} since noon"
            ),
            held(url),
        ):
            pass
        assert read_lease(url) == theirs
    finally:
        other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # a zombie, until it is waited for
    with held(url) as mine:
        assert (read_lease(url) or {})["id"] == mine.id
    other.wait()
    RunFolder(url).write_json(RunFile.LEASE, theirs)
    with held(url):
        pass
    RunFolder(url).write_json(
        RunFile.LEASE, {**theirs, "pid": os.getpid()}
    )  # its number has gone to another process
    with held(url):
        pass


def test_a_driver_of_another_host_is_watched(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(url)
    folder.write_json(RunFile.LEASE, of_another())
    with held(url) as mine:  # it is silent for STALE_S
        assert (read_lease(url) or {})["id"] == mine.id
    assert "held by process 7 on elsewhere since noon; waiting up to 1 s" in capsys.readouterr().out
    folder.write_json(RunFile.LEASE, of_another())
    ends = threading.Event()

    def renew() -> None:
        while not ends.wait(0.1):
            folder.write_json(RunFile.LEASE, of_another())

    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        with pytest.raises(HeldError, match="process 7 on elsewhere"), held(url):
            pass
    finally:
        ends.set()
        renewing.join()
    folder.write_text(RunFile.LEASE, '{"id": ')  # truncated
    with held(url):
        pass


def test_a_lease_is_expired_by_its_time_and_its_file_s_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / RunFile.LEASE
    for years, file_is_old, is_watched in ((50, True, False), (50, False, True), (-50, True, True)):
        renewed = lease.time.time() - years * 365 * 86400
        file.write_text(json.dumps(of_another(renewed=renewed)))
        if file_is_old:
            os.utime(file, (0, 0))
        with held(str(tmp_path)):
            pass
        assert ("waiting" in capsys.readouterr().out) == is_watched


@pytest.mark.parametrize(
    "renewed",
    ["null", '"noon"', "true", "[" * 100_000, "9" * 400, "-" + "9" * 400, "9" * 5000, "NaN", "1e999"],
)
def test_a_lease_that_holds_anything_is_waited_for_or_taken(tmp_path: Path, renewed: str) -> None:
    (tmp_path / RunFile.LEASE).write_text(f'{{"id": "x", "host": "elsewhere", "renewed": {renewed}}}')
    os.utime(tmp_path / RunFile.LEASE, (0, 0))
    with held(str(tmp_path)) as mine:
        assert (read_lease(str(tmp_path)) or {})["id"] == mine.id


def test_a_folder_at_the_path_of_a_lease_is_an_error(tmp_path: Path) -> None:
    (tmp_path / RunFile.LEASE).mkdir()
    with pytest.raises(ValueError, match=r"lease\.json is a folder.*remove it"), held(str(tmp_path)):
        pass


def test_names_in_a_lease_do_not_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / RunFile.LEASE).write_text(json.dumps(of_another(host="\x1b[31mred")))
    with held(str(tmp_path)):
        pass
    assert r"\x1b[31mred" in capsys.readouterr().out


def test_a_driver_that_leaves_is_waited_for(tmp_path: Path) -> None:
    url = str(tmp_path)
    first = Lease(url)
    first._content["pid"] = os.getppid()
    first._content["began"] = start_of(os.getppid())
    first.acquire(0)
    lease._held_ids.clear()  # as in another process
    threading.Timer(0.3, first.release).start()
    with held(url, wait_s=60) as mine:
        assert (read_lease(url) or {})["id"] == mine.id


@pytest.fixture
def _switches_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_switches_often")
def test_of_many_that_come_at_once_one_has_it(tmp_path: Path) -> None:
    for state in (None, *[of_another(renewed=0)] * 60):  # a free folder, and many with a dead driver's lease
        if state is not None:
            RunFolder(str(tmp_path)).write_json(RunFile.LEASE, state)
            os.utime(tmp_path / RunFile.LEASE, (0, 0))
        many = [Lease(str(tmp_path)) for _ in range(8)]
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda one: one._try(), many))
        assert found.count(None) == 1
        (winner,) = [one for one, holder in zip(many, found, strict=True) if holder is None]
        assert json.loads((tmp_path / RunFile.LEASE).read_text())["id"] == winner.id
        assert [file.name for file in tmp_path.iterdir()] == [RunFile.LEASE]
        (tmp_path / RunFile.LEASE).unlink()


def test_on_a_disk_without_locks_the_last_writer_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lease.fcntl, "flock", refuse)
    RunFolder(str(tmp_path)).write_json(RunFile.LEASE, of_another(renewed=0))
    os.utime(tmp_path / RunFile.LEASE, (0, 0))
    mine, theirs = Lease(str(tmp_path)), of_another(id="later")
    monkeypatch.setattr(
        lease.time, "sleep", lambda seconds: RunFolder(str(tmp_path)).write_json(RunFile.LEASE, theirs)
    )
    assert mine._try() == theirs  # written while this driver waited for the last writer


def test_a_folder_that_is_locked_for_long_is_taken_all_the_same(tmp_path: Path) -> None:
    RunFolder(str(tmp_path)).write_json(RunFile.LEASE, of_another(renewed=0))
    os.utime(tmp_path / RunFile.LEASE, (0, 0))
    with lease._locked(tmp_path) as is_locked, held(str(tmp_path)) as mine:
        assert is_locked
        assert (read_lease(str(tmp_path)) or {})["id"] == mine.id


def test_a_driver_whose_lease_was_taken_stops(url: str) -> None:
    def work() -> None:
        with held(url):
            RunFolder(url).write_json(RunFile.LEASE, of_another())
            threading.Event().wait(30)

    with pytest.raises(HeldError, match="was taken over by process 7 on elsewhere"):
        work()
    assert (read_lease(url) or {})["id"] == "theirs"  # what is theirs stays
    fs, path = locate(f"{url}/{RunFile.LEASE}")
    fs.rm(path)
