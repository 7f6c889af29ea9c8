"""Which cells of a comparison stop early: those clearly worse than the best method in the same conditions.

A cell is held against the other methods of its pair of domains, seed and regime whose distillation has as many epochs,
by the best validation accuracies of their students up to the same epoch. The record of a stop lies in the folder of the
cell. Stopped cells have no test accuracy, and are part of no mean and of no paired difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from fourds_dist.experiments.compare.config import EarlyStoppingConfig
from fourds_dist.experiments.epochs import accuracy_of, epochs_of
from fourds_dist.io.error_text import error_line
from fourds_dist.io.terminal import say
from fourds_dist.runs.events import EpochEnded
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.runs.layout import Network, RunFile
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.settings import Settings

FILE = "early_stop.json"
Group = tuple[str, str, str, int, int]
"""What cells that are compared have in common."""
NUM_ERRORS = 2.0
"""Standard errors of the difference of two accuracies by which a cell has to be worse, besides the margin."""


@dataclass(frozen=True)
class EarlyStop:
    """Why a cell was stopped: accuracies on the validation split, from 0 to 1, the best up to `epoch`.

    Args:
        num_images: of the validation split.
    """

    epoch: int
    accuracy: float
    best_method: str
    best_accuracy: float
    num_images: int

    def is_justified(self, rule: EarlyStoppingConfig) -> bool:
        """Whether a rule stops such a cell."""
        gap = self.best_accuracy - self.accuracy
        variances = (p * (1 - p) for p in (self.accuracy, self.best_accuracy))
        error = math.sqrt(sum(variances) / max(1, self.num_images))
        is_worse = gap > rule.margin_points / 100 and gap > NUM_ERRORS * error
        return self.epoch >= rule.after_epochs and is_worse

    def __str__(self) -> str:
        return (
            f"stopped early after epoch {self.epoch}: {100 * self.accuracy:.1f} % of the validation images, where "
            f"{self.best_method} had {100 * self.best_accuracy:.1f} %"
        )


@dataclass(frozen=True)
class JudgedCell:
    """A cell as the rule knows it."""

    method: str
    group: Group
    num_epochs: int


class EarlyStopping:
    """The rule, and the accuracies of all cells so far; called at the end of each epoch (`executor.AfterEpoch`).

    Args:
        cells: URL of the run of every cell -> the cell.
    """

    def __init__(self, rule: EarlyStoppingConfig, cells: dict[str, JudgedCell]) -> None:
        self._rule, self._cells = rule, cells
        self._curves: dict[Group, dict[str, list[tuple[int, float]]]] = {}

    def read(self, urls: Iterable[str]) -> None:
        """Read the epochs of the cells that are compared with some cells, from their folders."""
        groups = {self._cells[url].group for url in urls if url in self._cells}
        for url, cell in self._cells.items():
            if cell.group in groups:
                curve = list(epochs_of(RunFolder(url), Network.STUDENT))
                self._curves.setdefault(cell.group, {})[cell.method] = curve

    def __call__(self, url: str, event: EpochEnded) -> StopReason | None:
        """Take an epoch of a run; returns why the run has to stop, after the record is written."""
        measured, cell = accuracy_of(event, Network.STUDENT), self._cells.get(url)
        if measured is None or cell is None:
            return None
        epoch = measured[0]
        curves = self._curves.setdefault(cell.group, {})
        # An epoch that is trained again, after a failure, replaces what was known of it.
        curves[cell.method] = [*((e, v) for e, v in curves.get(cell.method, ()) if e < epoch), measured]
        best = {method: _best(curve, epoch) for method, curve in curves.items()}
        best_method = max(best, key=lambda method: best[method])
        stop = EarlyStop(epoch, best[cell.method], best_method, best[best_method], event.num_evaluated)
        if epoch >= cell.num_epochs or not stop.is_justified(self._rule):
            return None
        try:
            RunFolder(url).write_json(FILE, asdict(stop))
        except Exception as error:  # drivers of stores raise any type; the next epoch is judged again
            say(f"note: {url} is not stopped early, since {FILE} could not be written ({error_line(error)})")
            return None
        return StopReason(StopKind.EARLY_STOPPING)


def read_stop(settings: Settings, rule: EarlyStoppingConfig | None) -> EarlyStop | None:
    """The record of a cell that was stopped early and that the rule still stops; None: the cell has to run.

    Raises:
        ValueError: the file holds something else.
    """
    folder = RunFolder(settings.run_url)
    if rule is None or not folder.exists(FILE) or folder.exists(RunFile.SUMMARY):
        return None
    try:
        stop = EarlyStop(**folder.read_json(FILE))
        return stop if stop.is_justified(rule) else None
    except TypeError:
        raise ValueError(f"{folder.path(FILE)} is no record of an early stop; remove it") from None


def _best(curve: Iterable[tuple[int, float]], epoch: int) -> float:
    return max((value for e, value in curve if e <= epoch), default=0.0)
