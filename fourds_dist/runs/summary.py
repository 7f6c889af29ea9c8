"""The final table of a run: accuracies on the test splits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from rich.console import Console

from fourds_dist.io.tables import print_table
from fourds_dist.io.terminal import words
from fourds_dist.runs.accuracy import (
    FORMER_MEASURES,
    LABEL_FREE,
    MEASURE_NAMES,
    Accuracy,
    Measure,
    measure_text,
    percent,
)
from fourds_dist.runs.class_counts import ClassCounts
from fourds_dist.runs.estimate import Estimate
from fourds_dist.runs.layout import Network


@dataclass(frozen=True)
class NetworkResult:
    """Results of one network on the test splits."""

    network: str
    num_parameters: int
    source: Accuracy | None
    target: Accuracy
    estimate: Estimate | None = None
    """Estimated accuracy on the target, which uses no label of it; None: not computed."""


@dataclass(frozen=True)
class RunSummary:
    """The result of a run, stored as `summary.json`."""

    run: str
    lines: tuple[NetworkResult, ...]
    chance: float
    """Accuracy of guessing, 1 / number of classes."""
    selected_epoch: int
    """Epoch of distillation with the best validation result; the student has the weights of this epoch."""
    validation_accuracy: float | None
    """The measure `selected_by` of this epoch; None: no epoch had a finite value."""
    train_images_per_s: float
    """Median over logging steps of the images per second of all workers together, including data loading."""
    num_workers: int
    selected_by: Measure = "accuracy"
    """The measure that `validation_accuracy` holds and that selected the epoch."""
    classes: tuple[str, ...] = ()
    """Class names in label order; empty for many classes, and in tables of earlier versions."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the summary of `as_dict` values.

        Raises:
            ValueError: other keys or values.
        """
        try:
            lines = tuple(
                NetworkResult(
                    line["network"],
                    line["num_parameters"],
                    Accuracy.from_dict(line["source"]) if line["source"] else None,
                    Accuracy.from_dict(line["target"]),
                    Estimate.from_dict(line["estimate"]) if line.get("estimate") else None,
                )
                for line in values["lines"]
            )
            selected_by = values.get("selected_by", "accuracy")
            present = {
                "selected_by": FORMER_MEASURES.get(selected_by, selected_by),
                "classes": tuple(values.get("classes", ())),
            }
            return cls(**{**values, **present, "lines": lines})
        except (KeyError, TypeError, AttributeError):
            raise ValueError(
                "the run's summary.json is not the table of a run: it is truncated or was edited; remove it, and the "
                "run's command writes it again"
            ) from None

    def show(self, console: Console) -> None:
        """Print the table."""
        columns = ("network", "params", "source", "target", "balanced", "F1", "img/s")
        rows = [
            (
                line.network,
                f"{line.num_parameters / 1e6:.2f} M",
                percent(line.source.value if line.source else None),
                percent(line.target.value),
                percent(line.target.mean_per_class),
                percent(line.target.macro_f1),
                f"{line.target.images_per_s:.0f}",
            )
            for line in self.lines
        ]
        print_table(console, f"{self.run}: accuracy on test splits", columns, rows)
        self._show_estimates(console)
        self._show_classes(console)
        tested = self.lines[0].target
        samples = f"{tested.num_evaluated} target"
        if self.lines[0].source:
            samples += f" and {self.lines[0].source.num_evaluated} source"
        workers = f"{self.num_workers} worker{'s' if self.num_workers > 1 else ''}"
        text = (
            f"{samples} images tested, each once{self._on_labels()}; chance {self.chance:.1%}; balanced (accuracy) and "
            "F1 (macro): of the target; img/s: inference, per worker.\n"
            f"{self._on_estimate()}Student of epoch {self.selected_epoch}, chosen on the validation split "
            f"by {self._selection()}; distilled at {self.train_images_per_s:.0f} images/s on {workers}."
        )
        console.print(words(text), soft_wrap=True)

    def _selection(self) -> str:
        """Return what selected the epoch, with its value, as the part of a sentence."""
        loss = "" if self.selected_by in LABEL_FREE else " and loss"
        value = measure_text(self.selected_by, self.validation_accuracy)
        return f"{MEASURE_NAMES[self.selected_by]}{loss} ({value})"

    @property
    def estimate(self) -> Estimate | None:
        """The estimated accuracy of the student on the target; None: not computed."""
        of_student = (line.estimate for line in self.lines if line.network == Network.STUDENT.display_name)
        return next(of_student, None)

    def _on_labels(self) -> str:
        tested = self.lines[0].target
        if tested.num_samples == tested.num_evaluated:
            return ""
        return f" ({tested.num_samples or 'none'} of the target with a label)"

    def _on_estimate(self) -> str:
        return (
            f"Estimate of the student: {self.estimate.basis}; no target label is used.\n"
            if self.estimate
            else ""
        )

    def _show_estimates(self, console: Console) -> None:
        """Print the estimated accuracies on the target beside the measured ones."""
        if not any(line.estimate for line in self.lines):
            return
        title = "accuracy on the target, estimated without its labels"
        rows = [(line.network, str(line.estimate or "-"), percent(line.target.value)) for line in self.lines]
        print_table(console, title, ("network", "estimate", "measured"), rows)

    def _show_classes(self, console: Console) -> None:
        """Print the student's results of each class, if there are few classes."""
        counted = [
            line.target.by_class for line in self.lines if line.network == Network.STUDENT.display_name
        ]
        if not self.classes or not counted or counted[0] is None or len(counted[0]) != len(self.classes):
            return
        counts = ClassCounts(*np.array(counted[0]).T)
        columns = (counts.true, counts.recall, counts.precision, counts.f1)
        rows = [
            (name, str(num), *map(percent, values))
            for name, num, *values in zip(self.classes, *columns, strict=True)
        ]
        headings = ("class", "images", "recall", "precision", "F1")
        print_table(console, "student on the target, by class", headings, rows)
