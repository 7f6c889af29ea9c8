"""Ranged reads: transient faults are retried and counted, permanent errors are raised at once."""

from __future__ import annotations

import threading
import time

import pytest

from fourds_dist.data.io import range_reader as module
from fourds_dist.data.io.range_reader import DataError, RangeFetcher

CONTENT = bytes(range(200))


class Faulty(RangeFetcher):
    """Answers each read with the next of the given faults, then with the truth."""

    def __init__(self, *faults: object, retry_timeout_s: float = 60.0) -> None:
        super().__init__(retry_timeout_s)
        self.faults = list(faults)

    def _read(
        self, url: str, start: int, stop: int | None, limit_s: float, stopped: threading.Event
    ) -> bytes:
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, BaseException):
            raise fault
        return CONTENT[start:stop] if fault is None else CONTENT[start : start + fault]  # pyright: ignore


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 1e-4)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 1e-3)


def test_faults_are_outlasted_and_counted():
    fetcher = Faulty(OSError("503 Slow Down"), 7, ConnectionResetError(), TimeoutError(), 0)
    assert fetcher.range("u", 10, 30, 200) == CONTENT[10:30]
    assert fetcher.counts == {
        "retry": 5,
        "short_read": 2,
        "refusal": 1,
        "connection": 1,
        "timeout": 1,
        "bytes": 20,
    }


def test_thirty_faults_in_a_row_are_outlasted():
    fetcher = Faulty(*[OSError("503")] * 30)
    assert fetcher.range("u", 0, 200, 200) == CONTENT
    assert fetcher.counts["retry"] == 30


def test_patience_ends():
    fetcher = Faulty(*[OSError("503 Slow  Down")] * 100, retry_timeout_s=0.01)
    with pytest.raises(
        DataError, match=r"u, bytes 0 to 5: gave up after 0 s \(data.retry_timeout_s\).*503 Slow Down"
    ):
        fetcher.range("u", 0, 5, 200)


@pytest.mark.parametrize("error", [FileNotFoundError("u"), PermissionError("Forbidden")])
def test_permanent_errors_are_raised_at_once(error):
    fetcher = Faulty(error)
    with pytest.raises(DataError, match=type(error).__name__):
        fetcher.range("u", 0, 5, 200)
    assert fetcher.counts["retry"] == 0


def test_reads_ranges_of_files(tmp_path):
    path = tmp_path / "a b.bin"
    path.write_bytes(CONTENT)
    for url in (str(path), f"file://{path}"):
        assert RangeFetcher().range(url, 3, 9, 200) == CONTENT[3:9]
        assert RangeFetcher().object(url) == CONTENT
    with pytest.raises(DataError, match="FileNotFoundError"):
        RangeFetcher().object(str(tmp_path / "missing"))


def test_a_file_that_ends_too_early_is_given_up(tmp_path):
    path = tmp_path / "short"
    path.write_bytes(CONTENT[:50])
    with pytest.raises(DataError, match="returned 10 of 20 bytes"):
        RangeFetcher(retry_timeout_s=0.0).range(str(path), 40, 60, 200)


def test_a_file_shorter_than_in_its_index_is_an_error_after_three_tries(tmp_path):
    path = tmp_path / "short"
    path.write_bytes(CONTENT[:50])
    fetcher = RangeFetcher(retry_timeout_s=60.0)
    with pytest.raises(DataError, match=r"short has 50 bytes, but its index names byte 60.*restore it"):
        fetcher.range(str(path), 40, 60, 200)
    assert fetcher.counts["short_read"] == 3


def test_stopping_ends_the_reads_under_way_and_no_later_ones(monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 60.0)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 60.0)
    fetcher = Faulty(OSError("503"), OSError("503"))
    errors: list[DataError] = []

    def read() -> None:
        try:
            fetcher.range("u", 0, 5, 200)
        except DataError as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    while not fetcher.counts["retry"]:
        time.sleep(0.001)
    fetcher.stop()
    thread.join(5)
    assert "the read was cancelled" in str(errors[0])
    assert fetcher.range("u", 0, 5, 200) == CONTENT[:5]


class Hanging(RangeFetcher):
    """A file system that does not answer and cannot be broken off, like a dead network disk."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.released = threading.Event(), threading.Event()

    def _read(
        self, url: str, start: int, stop: int | None, limit_s: float, stopped: threading.Event
    ) -> bytes:
        self.began.set()
        self.released.wait(300)
        return b""


def test_a_read_that_hangs_raises_in_the_waiting_threads(monkeypatch):
    monkeypatch.setattr(module, "ANSWER_S", 0.05)
    monkeypatch.setattr(module, "LOST_S", 0.05)
    fetcher = Hanging()
    thread = threading.Thread(target=lambda: fetcher.object("slow"))
    fetcher.check()
    thread.start()
    assert fetcher.began.wait(60)
    told: list[str] = []
    while not told:
        time.sleep(0.01)
        try:
            fetcher.check()
        except DataError as error:
            told.append(str(error))
    assert "slow: the read hangs" in told[0]
    fetcher.released.set()
    thread.join(5)
    fetcher.check()
