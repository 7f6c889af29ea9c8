"""The epochs of a run, read from its folder."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fourds_dist.config.stage_names import StageName
from fourds_dist.runs.events import EpochEnded, Event, decode_lines
from fourds_dist.runs.layout import Network, RunFile
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.runs.summary import RunSummary

STAGE: StageName = "distill"
"""The stage whose epochs sweeps and comparisons compare."""


def accuracy_of(event: Event, network: Network) -> tuple[int, float] | None:
    """(epoch, validation accuracy of a network) of an event that ends an epoch of distillation; None: other events.

    Without labels, the value is that of the label-free criterion that selects the epoch.
    """
    if isinstance(event, EpochEnded) and event.stage == STAGE and network in event.validation:
        value = event.validation[network].compared
        return None if value is None or math.isnan(value) else (event.epoch, value)
    return None


def epochs_of(folder: RunFolder, network: Network) -> Iterator[tuple[int, float]]:
    """(epoch, validation accuracy of a network) of every epoch of distillation in the metrics of a run."""
    lines = folder.read_text(RunFile.METRICS).splitlines() if folder.exists(RunFile.METRICS) else ()
    return filter(None, (accuracy_of(event, network) for event in decode_lines(lines)))


def last_epoch(folder: RunFolder, network: Network) -> tuple[int, float, float | None]:
    """(last epoch, validation accuracy of a network, test accuracy of the student) of a run that is done.

    The test accuracy is None without test labels.

    Raises:
        ValueError: the metrics of the run have no epoch, or its summary is no table with a student.
    """
    epochs = list(epochs_of(folder, network))
    if not epochs:
        raise ValueError(
            f"{folder.path(RunFile.METRICS)} has no epoch of distillation with an accuracy of {network}, although the "
            f"run is done; restore the file, or remove {folder.url} to train the run again"
        )
    summary = RunSummary.from_dict(folder.read_json(RunFile.SUMMARY))
    tested = {line.network: line.target.value for line in summary.lines}
    return *epochs[-1], tested[Network.STUDENT.display_name]
