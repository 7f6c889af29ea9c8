"""A run's folder, read back: configuration, events, table. Works while the run goes on, and after it failed."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from fourds_dist.config import parsed
from fourds_dist.settings import Settings
from fourds_dist.storage import explained, locate
from fourds_dist.training.outcome import Outcome
from fourds_dist.training.run_folder import METRICS, RunFolder, event_of, is_number

CONFIG, SUMMARY, STUDENT = "config.yaml", "summary.json", "student.safetensors"
STAGES = {"source": "source stage", "adapt": "adapting the teacher", "distill": "distillation"}


class Run:
    """One run.

    Args:
        url: its folder, a path or URL.

    >>> run = Run("runs/digits")
    >>> run  # doctest: +ELLIPSIS
    Run('runs/digits', student ...% on target)
    >>> run.settings.method.preset
    'mended'
    >>> epochs, accuracies = run.series("distill", "epoch", "val/student")
    >>> epochs
    [1.0, 2.0, 3.0]

    Raises:
        ValueError: no run there.
    """

    def __init__(self, url: str) -> None:
        locate(url)  # refuses a protocol without driver
        self.folder = RunFolder(url)
        self.url = self.folder.url
        with explained(self.url):
            is_run = self.folder.exists(CONFIG)
        if not is_run:
            raise ValueError(
                f"{url} holds no run (there is no {CONFIG}); give the folder run.dir/run.name of one"
            )

    def __repr__(self) -> str:
        student = (
            next((line for line in self.outcome.lines if line.network == "student"), None)
            if self.outcome
            else None
        )
        return f"Run({self.url!r}" + (f", student {student.target.value:.1%} on target)" if student else ")")

    @property
    def name(self) -> str:
        """Last part of its folder."""
        return self.url.rpartition("/")[2]

    @cached_property
    def config_text(self) -> str:
        """The resolved configuration as the run keeps it."""
        return self.folder.read_text(CONFIG)

    @cached_property
    def settings(self) -> Settings:
        """The resolved configuration.

        Raises:
            ConfigError: it was written by a version with other keys.
        """
        return parsed(self.config_text, self.folder.path(CONFIG)).build(Settings)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """All events in order; a line cut short by a kill is left out."""
        if not self.folder.exists(METRICS):
            return []
        lines = self.folder.read_text(METRICS).splitlines()
        return [row for line in lines if (row := event_of(line)) is not None]

    @cached_property
    def outcome(self) -> Outcome | None:
        """The table; None while the run is not done."""
        if not self.folder.exists(SUMMARY):
            return None
        try:
            return Outcome.from_dict(self.folder.read_json(SUMMARY))
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{self.folder.path(SUMMARY)} is no table of a run: it was cut short or changed; remove it, and the "
                "same command of the run writes it again"
            ) from None

    def stages(self) -> list[str]:
        """Stages that have begun."""
        begun = {row.get("stage") for row in self.rows}
        return [stage for stage in STAGES if stage in begun]

    def keys(self, stage: str, event: str, prefix: str) -> list[str]:
        """Names of the numbers that begin with `prefix` in a stage's events of one kind, in order of appearance."""
        rows = self._of(stage, event)
        return list(dict.fromkeys(key for row in rows for key in row if key.startswith(prefix)))

    def series(self, stage: str, event: str, key: str) -> tuple[list[float], list[float]]:
        """(epochs, values) of one number over a stage."""
        rows = [row for row in self._of(stage, event) if is_number(row.get(key)) and "epoch" in row]
        return [float(row["epoch"]) for row in rows], [float(row[key]) for row in rows]

    def losses(self, stage: str) -> list[str]:
        """Names of the losses of a stage, the weighted sum first."""
        rows = self._of(stage, "step")
        found = [k for row in rows[:1] for k, v in row.items() if isinstance(v, float) and "/" not in k]
        return [k for k in found if k not in ("time", "epoch", "images_per_s") and not k.endswith("_share")]

    def notes(self) -> list[dict[str, Any]]:
        """Events that tell of trouble and how it was met, and where the run went on after a stop."""
        plain = ("start", "step", "epoch", "end")
        return [
            row
            for row in self.rows
            if row.get("event") not in plain or (row["event"] == "start" and row.get("step"))
        ]

    def _of(self, stage: str, event: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row.get("stage") == stage and row.get("event") == event]


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
            if folder.exists(CONFIG):
                found.append(Run(place))
                continue
            inside = sorted(str(file) for file in fs.glob(f"{path}/*/{CONFIG}"))
        if not inside:
            raise ValueError(
                f"{place} holds no run and no folder of runs (there is no {CONFIG}); give run.dir/run.name"
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
