"""One run after the other in this process."""

from __future__ import annotations

from fourds_dist.experiments.executor.base import AfterEpoch, RunTask, TaskResult, execute


class InProcess:
    """One run after the other in this process.

    Args:
        after_epoch: called at the end of each epoch of each run.
        until_s: time in seconds since 1970 at which runs stop; None: at their end.
        is_quiet: do not show the progress of runs.
    """

    capacity = 1

    def __init__(
        self, after_epoch: AfterEpoch | None = None, *, until_s: float | None = None, is_quiet: bool = False
    ) -> None:
        self._after_epoch, self._until_s, self._is_quiet = after_epoch, until_s, is_quiet
        self._ended: list[TaskResult] = []

    def start(self, task: RunTask) -> None:
        """Execute the run to its end.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM stopped the run.
        """
        outcome = execute(task.settings, self._after_epoch, until_s=self._until_s, is_quiet=self._is_quiet)
        if outcome.is_interrupted:
            raise KeyboardInterrupt
        self._ended.append(TaskResult(task, outcome))

    def wait(self, timeout_s: float | None = None) -> TaskResult | None:
        """Return the run that ended."""
        return self._ended.pop()

    def end(self, grace_s: float) -> None:
        """Do nothing: no run is left in this process."""
