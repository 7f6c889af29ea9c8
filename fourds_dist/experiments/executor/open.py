"""The executor that a key `through` names, and which runs it can execute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from fourds_dist.experiments.executor import Through
from fourds_dist.experiments.executor.base import GRACE_S, AfterEpoch, Executor
from fourds_dist.experiments.executor.in_process import InProcess
from fourds_dist.io.extras import importing
from fourds_dist.stages.settings import Settings


def check_imports(through: Through) -> None:
    """Check that the package that `through` needs can be imported, before data is packed.

    Raises:
        RuntimeError: the package is missing or broken.
    """
    if through == "ray":
        with importing("ray", "use through=processes launch.runner=inline"):
            import fourds_dist.launch.ray.train  # noqa: F401


@contextmanager
def open_executor(
    through: Through,
    settings: Settings,
    parallel: int | None,
    after_epoch: AfterEpoch | None = None,
    *,
    until_s: float | None = None,
    is_quiet: bool = False,
) -> Iterator[Executor]:
    """Open an executor for the duration of the context; after Ctrl-C and SIGTERM its runs leave checkpoints.

    Args:
        settings: a run whose section `launch` gives the resources of every run.
        parallel: runs at once; None: as many as there is room for.
        after_epoch: called at the end of each epoch of each run; has to be picklable for `ray`.
        until_s: time in seconds since 1970 at which runs in this process stop, as only this process could end them.
        is_quiet: runs in this process do not show their progress.
    """
    with ExitStack() as closing_later:
        executor: Executor
        match through:
            case "here":
                executor = InProcess(after_epoch, until_s=until_s, is_quiet=is_quiet)
            case "processes":
                from fourds_dist.experiments.executor.process_pool import ProcessPool

                executor = closing_later.enter_context(
                    closing(ProcessPool(settings.launch, parallel, after_epoch))
                )
            case "ray":
                from fourds_dist.experiments.executor.ray_tasks import RayTasks
                from fourds_dist.launch.ray.cluster import cluster
                from fourds_dist.launch.ray.train import sigterm_interrupts

                closing_later.enter_context(cluster(settings))
                closing_later.enter_context(sigterm_interrupts())
                executor = RayTasks(settings.launch, parallel, after_epoch)
        try:
            yield executor
        except KeyboardInterrupt:
            executor.end(GRACE_S)
            raise
