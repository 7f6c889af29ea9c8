"""Runs the cells that are not done, several at once; one that fails is told and left out, the others go on.

A source stage comes before the cells that share it. What is done is known by the runs' folders alone: the same command
again goes on where it was stopped, and tries again what failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Protocol

from fourds_dist.command import told
from fourds_dist.compare.plan import Plan
from fourds_dist.runs.layout import DONE
from fourds_dist.settings import Settings
from fourds_dist.terminal import say
from fourds_dist.train import run
from fourds_dist.training.patience import short
from fourds_dist.training.run_folder import RunFolder
from fourds_dist.training.stages import drop_checkpoints
from fourds_dist.training.stop import Stopped

GRACE_S = 60
"""How long runs may take to leave with a checkpoint, after Ctrl-C."""
LEAVING_S = GRACE_S + 30.0
"""Seconds for which a cell waits for the driver that holds its run: one of a killed comparison may still be leaving."""


@dataclass(frozen=True)
class Job:
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
class Ended:
    """A run that ended; `failure` says why it is not done, if it is not."""

    job: Job
    failure: str | None


class Workplace(Protocol):
    """Where runs are done."""

    @property
    def room(self) -> int:
        """Runs at once, at most."""
        ...

    def start(self, job: Job) -> None:
        """Begin a run."""
        ...

    def wait(self) -> Ended:
        """The next run that ends, of those begun."""
        ...

    def end(self, grace_s: float) -> None:
        """Have all runs leave with a checkpoint, and wait for them so long."""
        ...


def jobs_of(plan: Plan) -> list[Job]:
    """All that is not done, seed by seed, so that a table of one seed is there early; in each, source stages first.

    On a cluster, where all wait in its queue, a cell comes as its source stage ends.
    """
    missing = [cell for cell, settings in plan.runs.items() if not Job("", settings).is_done]
    sources = {plan.sources[cell].run_url: plan.sources[cell] for cell in missing if cell in plan.sources}
    titles = {plan.sources[cell].run_url: cell.source for cell in missing if cell in plan.sources}
    first = [Job(f"teacher for {titles[url]}, seed {s.run.seed}", s) for url, s in sources.items()]
    cells = [
        Job(str(cell), plan.runs[cell], plan.sources[cell].run_url if cell in plan.sources else None)
        for cell in missing
    ]
    jobs = [*(job for job in first if not job.is_done), *cells]
    return sorted(jobs, key=lambda job: plan.config.seeds.index(job.settings.run.seed))


def done_of(plan: Plan, jobs: Sequence[Job]) -> list[str]:
    """Folders of all runs that are done: those that are no job."""
    runs = [*plan.runs.values(), *plan.sources.values()]
    return sorted({run.run_url for run in runs} - {job.url for job in jobs})


def tidy(urls: Sequence[str]) -> None:
    """Remove the checkpoints of runs that are done; where that fails, a line says so."""

    def tidy_one(url: str) -> None:
        try:
            drop_checkpoints(RunFolder(url))
        except Exception as error:  # whatever a store's driver raises
            say(f"note: checkpoints under {url} could not be removed ({short(error)})")

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(tidy_one, urls))


def work(jobs: list[Job], place: Workplace, ended: Callable[[Ended], None]) -> None:
    """Do all jobs, as many at once as there is room; `ended` hears of each."""
    waiting, running = list(jobs), set[str]()
    unmet = {job.url for job in jobs}
    failed: set[str] = set()
    while waiting or running:
        for job in list(waiting):
            if job.needs in failed:
                waiting.remove(job)
                ended(Ended(job, "its teacher is not there"))
            elif job.needs not in unmet and len(running) < place.room:
                waiting.remove(job)
                running.add(job.url)
                place.start(job)
        if running:
            end = place.wait()
            running.remove(end.job.url)
            unmet.discard(end.job.url)
            if end.failure is not None:
                failed.add(end.job.url)
            ended(end)


def attempted(settings: Settings) -> str | None:
    """Do a run; why it is not done, if it is not.

    Raises:
        Stopped: by SIGTERM or Ctrl-C, with a checkpoint.
    """
    try:
        run(settings, wait_s=LEAVING_S)
    except Stopped:
        raise
    except Exception as error:
        return in_words(error)
    return None


def in_words(error: Exception) -> str:
    """Why a run is not done, by what it raised."""
    return told(error).removeprefix("error: ")


def attempted_for_another(settings_json: str) -> str | None:
    """`attempted`, for another process; a run that was told to stop is one that is not done."""
    try:
        return attempted(Settings.model_validate_json(settings_json))
    except Stopped as stopped:
        return str(stopped)


class Here:
    """One run after the other, in this process."""

    room = 1

    def __init__(self) -> None:
        self._ended: list[Ended] = []

    def start(self, job: Job) -> None:
        """Do the run, to its end.

        Raises:
            KeyboardInterrupt: it was told to stop, and so no other begins.
        """
        try:
            self._ended.append(Ended(job, attempted(job.settings)))
        except Stopped:
            raise KeyboardInterrupt from None

    def wait(self) -> Ended:
        """What ended."""
        return self._ended.pop()

    def end(self, grace_s: float) -> None:
        """The run has left: it was told so itself."""


@contextmanager
def workplace(plan: Plan) -> Iterator[Workplace]:
    """Where the plan's runs are done, as long as the context lasts; Ctrl-C and SIGTERM leave checkpoints."""
    with _place(plan) as place:
        try:
            yield place
        except KeyboardInterrupt:
            place.end(GRACE_S)
            raise


@contextmanager
def _place(plan: Plan) -> Iterator[Workplace]:
    launch, parallel = plan.base.launch, plan.config.parallel
    match plan.config.through:
        case "here":
            yield Here()
        case "processes":
            from fourds_dist.compare.processes import Machine

            with closing(Machine(launch, parallel)) as machine:
                yield machine
        case "ray":
            from fourds_dist.compare.tasks import Cluster
            from fourds_dist.launch.ray_cluster import cluster
            from fourds_dist.launch.ray_train import sigterm_interrupts

            with cluster(plan.base), sigterm_interrupts():
                yield Cluster(launch, parallel)
