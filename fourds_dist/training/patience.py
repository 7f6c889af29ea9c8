"""Patience with storage: what fails for a while is tried again, with growing pauses, before it counts as failed."""

from __future__ import annotations

import errno
import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from fourds_dist.runs.failures import StorageError

T = TypeVar("T")

_log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0


def patiently(
    action: Callable[[], T],
    what: str,
    *,
    patience_s: float,
    note: Callable[[str], None] = _log.warning,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """The result of `action`, called again while it fails, for `patience_s` seconds from the first failure on.

    Args:
        what: the thing that is done, for messages: "checkpoint s3://... could not be written".
        note: told once when the trouble begins and once when it is over.

    Raises:
        ValueError, PermissionError: at once; patience does not help against a wrong address or missing rights.
        StorageError: patience is at its end; the last error is its cause.
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
                note(f"{what} ({short(error)}); trying for {patience_s:.0f} s")
            if now - began + pause_s > patience_s:
                raise StorageError(
                    getattr(error, "errno", None) or errno.EIO,
                    f"{what}, tried for {now - began:.0f} s ({short(error)}){_remedy(error)}",
                ) from error
            # Rank and file must not knock at the same instant.
            sleep(pause_s * random.uniform(0.75, 1.25))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        else:
            if began is not None:
                note(f"{what} at first, and was after {time.monotonic() - began:.0f} s")
            return result


def _remedy(error: Exception) -> str:
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    return "; free space and give the same command again" if full else "; give the same command again later"


def short(error: Exception) -> str:
    """An error in a few words: its type and the beginning of its text."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
