"""Tasks, their results, and what an executor is. A task is a run, and the folder of the run shows if it is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fourds_dist.io.error_text import format_error
from fourds_dist.launch.observer import RunObserver
from fourds_dist.launch.run import run
from fourds_dist.runs.events import EpochEnded, Event
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.runs.layout import DONE
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.settings import Settings
from fourds_dist.training.stop_signals import Stopped

GRACE_S = 60
"""Seconds that runs have to write a checkpoint and leave after Ctrl-C."""

LEASE_WAIT_S = GRACE_S + 30.0
"""Seconds for which a task waits for another driver that holds its run, such as that of a killed command."""

AfterEpoch = Callable[[str, EpochEnded], StopReason | None]
"""Takes the URL of a run and an epoch of it that ended; returns why the run has to stop, or None."""


@dataclass(frozen=True)
class RunTask:
    """A run to execute.

    Args:
        title: name for people.
        needs: URL of the run that has to be done before; None: nothing.
    """

    title: str
    settings: Settings
    needs: str | None = None

    @property
    def url(self) -> str:
        """The folder of the run."""
        return self.settings.run_url

    @property
    def is_done(self) -> bool:
        """Whether the last stage of the run is done."""
        return RunFolder(self.url).exists(DONE[self.settings.run.until])


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
        failure: why the run is not done; None for a run that is done or that was stopped early.
        stopped: why the run left before its end, with a checkpoint.
        is_permanent: the run would fail in the same way again.
    """

    failure: str | None = None
    stopped: StopReason | None = None
    is_permanent: bool = False

    @property
    def is_interrupted(self) -> bool:
        """Whether Ctrl-C or SIGTERM stopped the run."""
        kinds = (StopKind.CTRL_C, StopKind.SIGTERM, StopKind.INTERRUPTED)
        return self.stopped is not None and self.stopped.kind in kinds


@dataclass(frozen=True)
class TaskResult:
    """A task that ended."""

    task: RunTask
    outcome: Outcome


class Executor(Protocol):
    """Executes runs."""

    @property
    def capacity(self) -> int:
        """The largest number of runs at once."""
        ...

    def start(self, task: RunTask) -> None:
        """Start a run."""
        ...

    def wait(self, timeout_s: float | None = None) -> TaskResult | None:
        """Return the next started run that ends; None where none does within the time."""
        ...

    def end(self, grace_s: float) -> None:
        """Stop all runs with a checkpoint, and wait for them for at most so many seconds."""
        ...


def execute(
    settings: Settings,
    after_epoch: AfterEpoch | None = None,
    *,
    until_s: float | None = None,
    is_quiet: bool = False,
) -> Outcome:
    """Execute a run in this process.

    Args:
        after_epoch: called at the end of each epoch; the run stops soon after it has returned a reason.
        until_s: time in seconds since 1970 at which the run stops; None: at its end.
        is_quiet: do not show progress.
    """
    try:
        run(
            settings,
            wait_s=LEASE_WAIT_S,
            observer=_observer(settings.run_url, after_epoch, until_s, is_quiet=is_quiet),
        )
    except Stopped as stopped:
        is_early = stopped.reason.kind == StopKind.EARLY_STOPPING
        return Outcome(None if is_early else str(stopped), stopped.reason)
    except Exception as error:
        return Outcome(failure_text(error), is_permanent=isinstance(error, ValueError | FloatingPointError))
    return Outcome()


def failure_text(error: Exception) -> str:
    """Why a run is not done, given the exception."""
    return format_error(error).removeprefix("error: ")


def _observer(
    url: str, after_epoch: AfterEpoch | None, until_s: float | None = None, *, is_quiet: bool
) -> RunObserver:
    reasons: list[StopReason] = []

    def sink(event: Event) -> None:
        if after_epoch is not None and isinstance(event, EpochEnded) and (reason := after_epoch(url, event)):
            reasons.append(reason)

    def stop_reason() -> StopReason | None:
        if until_s is not None and time.time() > until_s:
            return StopReason(StopKind.BUDGET_TIME)
        return reasons[0] if reasons else None

    return RunObserver(sink, stop_reason, is_quiet=is_quiet)
