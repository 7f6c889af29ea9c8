"""What executors are asked for: runs as tasks, one process's part of doing them, and their results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fourds_dist.io.error_text import format_error
from fourds_dist.launch.run import run
from fourds_dist.runs.layout import DONE
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.settings import Settings
from fourds_dist.training.stop_signals import Stopped

GRACE_S = 60
"""How long runs may take to leave with a checkpoint, after Ctrl-C."""


LEASE_WAIT_S = GRACE_S + 30.0
"""Seconds for which a cell waits for the driver that holds its run: one of a killed comparison may still be leaving."""


@dataclass(frozen=True)
class RunTask:
    """A run that is to be done.

    Args:
        title: in words.
        needs: URL of the run that must be done before; None: nothing.
    """

    title: str
    settings: Settings
    needs: str | None = None

    @property
    def url(self) -> str:
        """The run's folder."""
        return self.settings.run_url

    @property
    def is_done(self) -> bool:
        """Whether its last stage is done."""
        return RunFolder(self.url).exists(DONE[self.settings.run.until])


@dataclass(frozen=True)
class TaskResult:
    """A run that ended; `failure` says why it is not done, if it is not."""

    task: RunTask
    failure: str | None


class Executor(Protocol):
    """Where runs are done."""

    @property
    def capacity(self) -> int:
        """Runs at once, at most."""
        ...

    def start(self, task: RunTask) -> None:
        """Begin a run."""
        ...

    def wait(self) -> TaskResult:
        """The next run that ends, of those begun."""
        ...

    def end(self, grace_s: float) -> None:
        """Have all runs leave with a checkpoint, and wait for them so long."""
        ...


def try_run(settings: Settings) -> str | None:
    """Do a run; why it is not done, if it is not.

    Raises:
        Stopped: by SIGTERM or Ctrl-C, with a checkpoint.
    """
    try:
        run(settings, wait_s=LEASE_WAIT_S)
    except Stopped:
        raise
    except Exception as error:
        return failure_text(error)
    return None


def failure_text(error: Exception) -> str:
    """Why a run is not done, by what it raised."""
    return format_error(error).removeprefix("error: ")


def try_run_json(settings_json: str) -> str | None:
    """`try_run`, for another process; a run that was told to stop is one that is not done."""
    try:
        return try_run(Settings.model_validate_json(settings_json))
    except Stopped as stopped:
        return str(stopped)
