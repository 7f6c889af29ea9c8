"""A run's folder, read back: configuration, events, table. Works while the run goes on, and after it failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TypeVar

from fourds_dist.config import parsed
from fourds_dist.runs.events import (
    EpochEnded,
    Event,
    Note,
    StageStarted,
    StageStopped,
    StepLogged,
    decode_lines,
)
from fourds_dist.runs.layout import STAGES, Network, RunFile, StageName
from fourds_dist.settings import Settings
from fourds_dist.storage import explained, locate
from fourds_dist.training.outcome import Outcome
from fourds_dist.training.run_folder import RunFolder

Curve = tuple[list[float], list[float]]
"""(epochs, values) of a number over a stage."""
Logged = TypeVar("Logged", StepLogged, EpochEnded)


class Run:
    """One run.

    Args:
        url: its folder, a path or URL.

    >>> run = Run("runs/digits")
    >>> run  # doctest: +ELLIPSIS
    Run('runs/digits', student ...% on target)
    >>> run.settings.method.preset
    'mended'
    >>> [epoch.epoch for epoch in run.epochs("distill")]
    [1, 2, 3]
    >>> round(run.epochs("distill")[-1].validation["student"].accuracy, 1) <= 1
    True

    Raises:
        ValueError: no run there.
    """

    def __init__(self, url: str) -> None:
        locate(url)  # refuses a protocol without driver
        self.folder = RunFolder(url)
        self.url = self.folder.url
        with explained(self.url):
            is_run = self.folder.exists(RunFile.CONFIG)
        if not is_run:
            raise ValueError(
                f"{url} holds no run (there is no {RunFile.CONFIG}); give the folder run.dir/run.name of one"
            )

    def __repr__(self) -> str:
        lines = self.outcome.lines if self.outcome else ()
        student = next((line for line in lines if line.network == Network.STUDENT.display_name), None)
        return f"Run({self.url!r}" + (f", student {student.target.value:.1%} on target)" if student else ")")

    @property
    def name(self) -> str:
        """Last part of its folder."""
        return self.url.rpartition("/")[2]

    @cached_property
    def config_text(self) -> str:
        """The resolved configuration as the run keeps it."""
        return self.folder.read_text(RunFile.CONFIG)

    @cached_property
    def settings(self) -> Settings:
        """The resolved configuration.

        Raises:
            ConfigError: it was written by a version with other keys.
        """
        return parsed(self.config_text, self.folder.path(RunFile.CONFIG)).build(Settings)

    @cached_property
    def events(self) -> list[Event]:
        """All events in order; a line cut short by a kill is left out."""
        if not self.folder.exists(RunFile.METRICS):
            return []
        return list(decode_lines(self.folder.read_text(RunFile.METRICS).splitlines()))

    @cached_property
    def outcome(self) -> Outcome | None:
        """The table; None while the run is not done."""
        if not self.folder.exists(RunFile.SUMMARY):
            return None
        try:
            return Outcome.from_dict(self.folder.read_json(RunFile.SUMMARY))
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{self.folder.path(RunFile.SUMMARY)} is no table of a run: it was cut short or changed; remove it, "
                "and the same command of the run writes it again"
            ) from None

    def stages(self) -> list[StageName]:
        """Stages that have begun."""
        begun = {event.stage for event in self.events}
        return [stage for stage in STAGES if stage in begun]

    def steps(self, stage: StageName) -> list[StepLogged]:
        """The logging steps of a stage."""
        return [event for event in self.events if isinstance(event, StepLogged) and event.stage == stage]

    def epochs(self, stage: StageName) -> list[EpochEnded]:
        """The epochs of a stage that are done, with validation."""
        return [event for event in self.events if isinstance(event, EpochEnded) and event.stage == stage]

    def notes(self) -> list[Note | StageStopped | StageStarted]:
        """Events that tell of trouble and how it was met, and where the run went on after a stop."""
        return [
            event
            for event in self.events
            if isinstance(event, Note | StageStopped) or (isinstance(event, StageStarted) and event.step > 0)
        ]


def curve(events: Iterable[Logged], value_of: Callable[[Logged], float | None]) -> Curve:
    """A number over a stage; left out where an event has none, or one that no chart can show."""
    found = [(float(event.epoch), value_of(event)) for event in events]
    shown = [(epoch, value) for epoch, value in found if value is not None and -1e12 < value < 1e12]
    return [epoch for epoch, _ in shown], [value for _, value in shown]


def names_in(mappings: Iterable[Mapping[str, object]]) -> list[str]:
    """All names in some mappings, in order of appearance."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def find_runs(places: list[str]) -> list[Run]:
    """Runs at some places; a folder that is no run itself stands for the runs in it (a sweep, run.dir).

    Raises:
        ValueError: a place without runs.
    """
    found: list[Run] = []
    for place in places:
        folder = RunFolder(place)
        fs, path = locate(place)
        with explained(place):
            if folder.exists(RunFile.CONFIG):
                found.append(Run(place))
                continue
            inside = sorted(str(file) for file in fs.glob(f"{path}/*/{RunFile.CONFIG}"))
        if not inside:
            raise ValueError(
                f"{place} holds no run and no folder of runs (there is no {RunFile.CONFIG}); give run.dir/run.name"
            )
        found += [Run(f"{folder.url}/{file.split('/')[-2]}") for file in inside]
    return list({run.url: run for run in found}.values())


def read_bytes(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """An object's bytes, or some of them.

    Raises:
        ValueError: it is not there, or the store refuses.
    """
    fs, path = locate(url)
    with explained(url):
        try:
            data = fs.cat_file(
                path, start=start, end=end
            )  # the order of arguments differs between file systems
        except (FileNotFoundError, IsADirectoryError):
            raise ValueError(f"{url}: no such file") from None
    assert isinstance(data, bytes)
    return data
