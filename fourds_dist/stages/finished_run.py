"""Reading of a run's folder: configuration, events, results table. The run may be active, finished or failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TypeVar

from fourds_dist.config.loading import parsed
from fourds_dist.config.stage_names import STAGES, StageName
from fourds_dist.io.storage import locate, translate_storage_errors
from fourds_dist.runs.events import (
    EpochEnded,
    Event,
    Note,
    StageStarted,
    StageStopped,
    StepLogged,
    decode_lines,
)
from fourds_dist.runs.layout import RunFile
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.runs.summary import NetworkResult, RunSummary
from fourds_dist.stages.settings import Settings

Curve = tuple[list[float], list[float]]
"""(epochs, values) of a quantity over a stage."""
Logged = TypeVar("Logged", StepLogged, EpochEnded)


class Run:
    """A run.

    Args:
        url: path or URL of the run's folder.

    >>> run = Run("runs/digits")
    >>> run  # doctest: +ELLIPSIS
    Run('runs/digits', student ...% on target)
    >>> run.settings.method.preset
    '4ds'
    >>> [epoch.epoch for epoch in run.epochs("distill")]
    [1, 2, 3]
    >>> round(run.epochs("distill")[-1].validation["student"].accuracy, 1) <= 1
    True

    Raises:
        ValueError: the folder has no run.
    """

    def __init__(self, url: str) -> None:
        locate(url)  # raises for a protocol without a driver
        self.folder = RunFolder(url)
        self.url = self.folder.url
        with translate_storage_errors(self.url):
            is_run = self.folder.exists(RunFile.CONFIG)
        if not is_run:
            raise ValueError(
                f"{url} has no run (there is no {RunFile.CONFIG}); give the folder run.dir/run.name of a run"
            )

    def __repr__(self) -> str:
        student = self.summary.student if self.summary else None
        return f"Run({self.url!r}{_on_target(student)})"

    @property
    def name(self) -> str:
        """Return the last part of the folder's URL."""
        return self.url.rpartition("/")[2]

    @cached_property
    def config_text(self) -> str:
        """Return the text of the resolved configuration."""
        return self.folder.read_text(RunFile.CONFIG)

    @cached_property
    def settings(self) -> Settings:
        """Return the resolved configuration.

        Raises:
            ConfigError: another version with other keys wrote the configuration.
        """
        return parsed(self.config_text, self.folder.path(RunFile.CONFIG)).build(Settings)

    @cached_property
    def events(self) -> list[Event]:
        """Return all events in order; a line truncated by a kill is skipped."""
        if not self.folder.exists(RunFile.METRICS):
            return []
        return list(decode_lines(self.folder.read_text(RunFile.METRICS).splitlines()))

    @cached_property
    def summary(self) -> RunSummary | None:
        """Return the results table; None if the run is not finished."""
        if not self.folder.exists(RunFile.SUMMARY):
            return None
        try:
            return RunSummary.from_dict(self.folder.read_json(RunFile.SUMMARY))
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{self.folder.path(RunFile.SUMMARY)} is not a results table: the file was truncated or changed; "
                "remove the file, and the same command of the run writes it again"
            ) from None

    @property
    def main_student(self) -> str:
        """The name of the best of several students, or of the first until the run is done; empty for one student."""
        return self.summary.best_student if self.summary else next(iter(self.settings.named_students))

    def stages(self) -> list[StageName]:
        """Return the stages that have started."""
        started = {event.stage for event in self.events}
        return [stage for stage in STAGES if stage in started]

    def steps(self, stage: StageName) -> list[StepLogged]:
        """Return the logging steps of a stage."""
        return [event for event in self.events if isinstance(event, StepLogged) and event.stage == stage]

    def epochs(self, stage: StageName) -> list[EpochEnded]:
        """Return the finished epochs of a stage, with validation."""
        return [event for event in self.events if isinstance(event, EpochEnded) and event.stage == stage]

    def notes(self) -> list[Note | StageStopped | StageStarted]:
        """Return the notes, the stops, and the starts at which the run resumed."""
        return [
            event
            for event in self.events
            if isinstance(event, Note | StageStopped) or (isinstance(event, StageStarted) and event.step > 0)
        ]


def _on_target(student: NetworkResult | None) -> str:
    """Return the student's accuracy on the target, or the estimate without labels, as the part of a text."""
    if student is None:
        return ""
    if student.target.value is None:
        return f", student {student.estimate} on target" if student.estimate else ", no labels on target"
    return f", student {student.target.value:.1%} on target"


def curve(events: Iterable[Logged], value_of: Callable[[Logged], float | None]) -> Curve:
    """Return the curve of a quantity over a stage, without missing values and values outside (-1e12, 1e12)."""
    points = [(float(event.epoch), value_of(event)) for event in events]
    valid = [(epoch, value) for epoch, value in points if value is not None and -1e12 < value < 1e12]
    return [epoch for epoch, _ in valid], [value for _, value in valid]


def names_in(mappings: Iterable[Mapping[str, object]]) -> list[str]:
    """Return all names in the mappings, in order of appearance."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def find_runs(urls: list[str]) -> list[Run]:
    """Return the runs at paths or URLs of runs and of folders with runs (a sweep, run.dir).

    Raises:
        ValueError: a path or URL without runs.
    """
    found: list[Run] = []
    for url in urls:
        folder = RunFolder(url)
        fs, path = locate(url)
        with translate_storage_errors(url):
            if folder.exists(RunFile.CONFIG):
                found.append(Run(url))
                continue
            inside = sorted(str(file) for file in fs.glob(f"{path}/*/{RunFile.CONFIG}"))
        if not inside:
            raise ValueError(
                f"{url} has no run and no folder of runs (there is no {RunFile.CONFIG}); give run.dir/run.name"
            )
        found += [Run(f"{folder.url}/{file.split('/')[-2]}") for file in inside]
    return list({run.url: run for run in found}.values())


def read_bytes(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """Return the bytes of a file, or a range of its bytes.

    Raises:
        ValueError: the file does not exist, or the store refuses access.
    """
    fs, path = locate(url)
    with translate_storage_errors(url):
        try:
            data = fs.cat_file(
                path, start=start, end=end
            )  # by keyword: the order differs between file systems
        except (FileNotFoundError, IsADirectoryError):
            raise ValueError(f"{url}: no such file") from None
    assert isinstance(data, bytes)
    return data
