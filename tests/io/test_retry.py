"""Storage operations are retried with growing pauses up to a time limit, and only where retries can help."""

from __future__ import annotations

import errno

import pytest

from fourds_dist.io import retry
from fourds_dist.io.errors import StorageError
from fourds_dist.io.retry import with_retries


def test_patience_ends_and_grows_its_pauses() -> None:
    pauses: list[float] = []

    def fail() -> None:
        raise ConnectionError("away")

    clock = iter(range(0, 1000, 10))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fourds_dist.io.retry.time.monotonic", lambda: float(next(clock)))
        with pytest.raises(OSError, match="x failed, tried for 50 s"):
            with_retries(fail, "x failed", retry_timeout_s=60, note=lambda text: None, sleep=pauses.append)
    assert len(pauses) == 5
    assert pauses[-1] > 4 * pauses[0]


def test_patience_is_not_wasted_on_what_it_cannot_mend() -> None:
    def refuse() -> None:
        raise PermissionError("no")

    with pytest.raises(PermissionError):
        with_retries(refuse, "x failed", retry_timeout_s=60, sleep=lambda s: pytest.fail("waited"))


def test_what_succeeds_at_once_is_told_to_no_one() -> None:
    assert (
        with_retries(
            lambda: 7, "x failed", retry_timeout_s=0, note=pytest.fail, sleep=lambda _: pytest.fail("waited")
        )
        == 7
    )


def test_a_retry_that_succeeds_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    pauses: list[float] = []
    errors = [ConnectionError("away\n again"), OSError("still away")]
    clock = iter([100.0, 101.0, 103.0])
    monkeypatch.setattr(retry.time, "monotonic", lambda: next(clock))

    def action() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    found = with_retries(action, "x failed", retry_timeout_s=60, note=told.append, sleep=pauses.append)
    assert found == "done"
    assert told == [
        "x failed (ConnectionError: away again); trying for 60 s",
        "x failed at first; a retry succeeded after 3 s",
    ]
    assert 0.375 <= pauses[0] <= 0.625
    assert 0.75 <= pauses[1] <= 1.25


@pytest.mark.parametrize("error", [ValueError("x"), TypeError("x"), PermissionError("x")])
def test_errors_that_retries_cannot_help(error: Exception) -> None:
    calls: list[int] = []

    def action() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)) as caught:
        with_retries(
            action, "x failed", retry_timeout_s=60, note=pytest.fail, sleep=lambda _: pytest.fail("waited")
        )
    assert (caught.value, calls) == (error, [1])


@pytest.mark.parametrize(
    ("error", "number", "remedy"),
    [
        (OSError(errno.ENOSPC, "No space"), errno.ENOSPC, "free space and give the same command again"),
        (OSError(errno.EDQUOT, "Quota"), errno.EDQUOT, "free space and give the same command again"),
        (OSError(errno.EIO, "Disk"), errno.EIO, "give the same command again later"),
        (RuntimeError("no number"), errno.EIO, "give the same command again later"),
    ],
)
def test_the_last_error_gives_number_cause_and_remedy(error: Exception, number: int, remedy: str) -> None:
    def action() -> None:
        raise error

    with pytest.raises(StorageError) as caught:
        with_retries(action, "a could not be written", retry_timeout_s=0, note=lambda _: None)
    assert caught.value.errno == number
    assert caught.value.__cause__ is error
    assert str(caught.value).startswith(
        f"[Errno {number}] a could not be written, tried for 0 s ({type(error).__name__}: "
    )
    assert str(caught.value).endswith(f"; {remedy}")
