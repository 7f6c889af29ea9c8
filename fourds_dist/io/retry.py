"""Retries of storage operations, with growing pauses up to a time limit."""

from __future__ import annotations

import errno
import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from fourds_dist.io.error_text import error_line
from fourds_dist.io.errors import StorageError

T = TypeVar("T")

_log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0


def with_retries(
    action: Callable[[], T],
    what: str,
    *,
    retry_timeout_s: float,
    note: Callable[[str], None] = _log.warning,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Return the result of `action`; retry a failing `action` for `retry_timeout_s` seconds after the first failure.

    Args:
        what: the failure, for messages: "checkpoint s3://... could not be written".
        note: receives a line at the first failure and a line at the recovery.

    Raises:
        ValueError, TypeError, PermissionError: at once; retries do not help against a wrong URL or missing rights.
        StorageError: the time limit is reached; the last error is the cause.
    """
    began: float | None = None
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            result = action()
        except (ValueError, TypeError, PermissionError):
            raise
        except Exception as error:
            now = time.monotonic()
            if began is None:
                began = now
                note(f"{what} ({error_line(error)}); trying for {retry_timeout_s:.0f} s")
            if now - began + pause_s > retry_timeout_s:
                raise StorageError(
                    getattr(error, "errno", None) or errno.EIO,
                    f"{what}, tried for {now - began:.0f} s ({error_line(error)}){_remedy(error)}",
                ) from error
            # Jitter, so that ranks do not retry at once.
            sleep(pause_s * random.uniform(0.75, 1.25))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        else:
            if began is not None:
                note(f"{what} at first; a retry succeeded after {time.monotonic() - began:.0f} s")
            return result


def _remedy(error: Exception) -> str:
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    return "; free space and give the same command again" if full else "; give the same command again later"
