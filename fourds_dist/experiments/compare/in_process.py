"""One run after the other, in this process."""

from __future__ import annotations

from fourds_dist.experiments.compare.executor import RunTask, TaskResult, try_run
from fourds_dist.training.stop_signals import Stopped


class InProcess:
    """One run after the other, in this process."""

    capacity = 1

    def __init__(self) -> None:
        self._ended: list[TaskResult] = []

    def start(self, task: RunTask) -> None:
        """Do the run, to its end.

        Raises:
            KeyboardInterrupt: it was told to stop, and so no other begins.
        """
        try:
            self._ended.append(TaskResult(task, try_run(task.settings)))
        except Stopped:
            raise KeyboardInterrupt from None

    def wait(self) -> TaskResult:
        """What ended."""
        return self._ended.pop()

    def end(self, grace_s: float) -> None:
        """The run has left: it was told so itself."""
