"""The epochs of a run, read from its folder."""

from __future__ import annotations

from collections.abc import Iterator

from fourds_dist.config.stage_names import StageName
from fourds_dist.runs.events import EpochEnded, Event, decode_lines
from fourds_dist.runs.layout import Network, RunFile
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.runs.summary import RunSummary

STAGE: StageName = "distill"
"""The stage whose epochs sweeps and comparisons compare."""


def accuracy_of(event: Event, network: Network) -> tuple[int, float] | None:
    """(epoch, validation accuracy of a network) of an event that ends an epoch of distillation; None: other events."""
    if isinstance(event, EpochEnded) and event.stage == STAGE and network in event.validation:
        return event.epoch, event.validation[network].accuracy
    return None


def epochs_of(folder: RunFolder, network: Network) -> Iterator[tuple[int, float]]:
    """(epoch, validation accuracy of a network) of every epoch of distillation in the metrics of a run."""
    lines = folder.read_text(RunFile.METRICS).splitlines() if folder.exists(RunFile.METRICS) else ()
    return filter(None, (accuracy_of(event, network) for event in decode_lines(lines)))


def last_epoch(folder: RunFolder, network: Network) -> tuple[int, float, float]:
    """(last epoch, validation accuracy of a network, test accuracy of the student) of a run that is done."""
    *_, (epoch, accuracy) = epochs_of(folder, network)
    return epoch, accuracy, RunSummary.from_dict(folder.read_json(RunFile.SUMMARY)).lines[-1].target.value
