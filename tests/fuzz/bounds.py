"""Limits of one case: processor time, memory, and what may come out of it.

Time is the process's own (so that a busy machine does not count), and memory its resident peak. Both are watched in the
process itself; a case that hangs outside Python ends the process, and the command's parent stores the files that the
process was reading.
"""

from __future__ import annotations

import contextlib
import faulthandler
import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from fourds_dist.data.io.range_reader import DataError
from fourds_dist.io.error_text import format_error

CPU_S = 20.0
"""Processor seconds that a case may take."""

GROWTH_BYTES = 400 << 20
"""Resident memory that a case may take on top of the process's."""

ADDRESS_BYTES = 4 << 30
"""Address space on top of the process's; an allocation past it fails."""

MOST_CHARACTERS = 4000
"""Of an error's text."""


class FaultError(AssertionError):
    """What a case did that none may do."""


class _HangError(BaseException):
    pass


def check(read: Callable[[Path], object], folder: Path, *, growth_bytes: int = GROWTH_BYTES) -> None:
    """Read a case's folder, which may succeed or be refused.

    Raises:
        FaultError: an error other than those that commands report in one line, an empty or too long message, too
            much time or memory.
    """
    before = _resident_bytes("VmRSS")
    _forget_peak()
    try:
        with _limited():
            read(folder)
    except (ValueError, OSError, DataError) as error:
        _check_words(error)
    except _HangError as error:
        raise FaultError(f"more than {CPU_S:g} s of processor time:\n{_where(error)}") from None
    except Exception as error:
        raise FaultError(f"{type(error).__name__}: {str(error)[:500]}\n{_where(error)}") from None
    grown = _resident_bytes("VmHWM") - before
    if grown > growth_bytes:
        raise FaultError(f"memory grew by {grown >> 20} MiB, where {growth_bytes >> 20} are the bound")


def _check_words(error: Exception) -> None:
    text = format_error(error)
    if not str(error).strip():
        raise FaultError(f"{type(error).__name__} without words\n{_where(error)}")
    if len(text) > MOST_CHARACTERS:
        raise FaultError(f"{len(text)} characters of error: {text[:200]} ...\n{_where(error)}")
    if isinstance(error, UnicodeError):
        raise FaultError(f"{type(error).__name__} as Python raises it: {text[:300]}\n{_where(error)}")
    for word in ("MemoryError", "RecursionError", "bad_alloc", "can't allocate memory", "recursion depth"):
        if word in text:
            raise FaultError(f"an error hides {word}: {text[:300]}\n{_where(error)}")


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def hangs(*_: object) -> None:
        raise _HangError

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = _resident_bytes("VmSize") + ADDRESS_BYTES
    held = signal.signal(signal.SIGPROF, hangs)
    resource.setrlimit(resource.RLIMIT_AS, (most if hard < 0 else min(most, hard), hard))
    faulthandler.dump_traceback_later(30 * CPU_S, exit=True)
    signal.setitimer(signal.ITIMER_PROF, CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, held)


def _where(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)[-8:])


def _resident_bytes(name: str) -> int:
    """VmRSS, VmHWM or VmSize of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    return 0


def _forget_peak() -> None:
    """Let VmHWM count from here on, where the system allows."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
