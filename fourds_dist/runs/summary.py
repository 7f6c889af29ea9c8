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
from fourds_dist.runs.layout import Network, display_name


@dataclass(frozen=True)
class NetworkResult:
    """Results of one network on the test splits."""

    network: str
    num_parameters: int
    source: Accuracy | None
    target: Accuracy
    estimate: Estimate | None = None
    """Estimated accuracy on the target, which uses no label of it; None: not computed."""
    latency_ms: float | None = None
    """Median time of a prediction of one image, on one worker; None: not measured (runs with one student)."""
    selected_epoch: int | None = None
    """Epoch of the weights of one of several students; None: of other networks."""
    validation: float | None = None
    """The measure that selected this epoch; None: of other networks, or no epoch had a finite value."""


@dataclass(frozen=True)
class RunSummary:
    """The result of a run, stored as `summary.json`."""

    run: str
    lines: tuple[NetworkResult, ...]
    chance: float
    """Accuracy of guessing, 1 / number of classes."""
    selected_epoch: int
    """Epoch of distillation with the best validation result; the student (of several the best one) has the weights of
    this epoch."""
    validation_accuracy: float | None
    """The measure `selected_by` of this epoch; None: no epoch had a finite value."""
    train_images_per_s: float
    """Median over logging steps of the images per second of all workers together, including data loading."""
    num_workers: int
    selected_by: Measure = "accuracy"
    """The measure that `validation_accuracy` holds and that selected the epoch."""
    classes: tuple[str, ...] = ()
    """Class names in label order; empty for many classes, and in tables of earlier versions."""
    best_student: str = ""
    """Name of the best of several students on the validation split, whose weights student.safetensors has; empty: the
    run has one student."""

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
                    line.get("latency_ms"),
                    line.get("selected_epoch"),
                    line.get("validation"),
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
        self._show_students(console)
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
            f"{self._on_estimate()}{self._selected()}, chosen on the validation split "
            f"by {self._selection()}; distilled at {self.train_images_per_s:.0f} images/s on {workers}."
        )
        console.print(words(text), soft_wrap=True)

    def _selection(self) -> str:
        """Return what selected the epoch, with its value, as the part of a sentence."""
        loss = "" if self.selected_by in LABEL_FREE else " and loss"
        value = measure_text(self.selected_by, self.validation_accuracy)
        return f"{MEASURE_NAMES[self.selected_by]}{loss} ({value})"

    def _selected(self) -> str:
        """Return whose weights the student has, as the start of a sentence."""
        if not self.best_student:
            return f"Student of epoch {self.selected_epoch}"
        return (
            f"Latency: median of one image on one worker. Best student: {self.best_student} of epoch "
            f"{self.selected_epoch}"
        )

    @property
    def student(self) -> NetworkResult | None:
        """The result of the student, of several that of the best one; None: the table has none."""
        key = Network.STUDENT.of_student(self.best_student)
        return next((line for line in self.lines if line.network == display_name(key)), None)

    @property
    def before(self) -> NetworkResult | None:
        """The result of this student before distillation; None: the table has none."""
        key = Network.STUDENT_BEFORE.of_student(self.best_student)
        return next((line for line in self.lines if line.network == display_name(key)), None)

    @property
    def students(self) -> dict[str, NetworkResult]:
        """The results of several students by name; empty: the run has one student."""
        prefix = f"{Network.STUDENT.display_name} "
        return {
            line.network.removeprefix(prefix): line for line in self.lines if line.selected_epoch is not None
        }

    @property
    def estimate(self) -> Estimate | None:
        """The estimated accuracy of the student on the target; None: not computed."""
        return self.student.estimate if self.student else None

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

    def _show_students(self, console: Console) -> None:
        """Print size, latency and accuracy of several students, the fastest first."""
        if not self.students:
            return
        heading = MEASURE_NAMES[self.selected_by]
        rows = [
            (
                name,
                f"{line.num_parameters / 1e6:.2f} M",
                "-" if line.latency_ms is None else f"{line.latency_ms:.2f} ms",
                str(line.selected_epoch),
                measure_text(self.selected_by, line.validation),
                percent(line.target.value),
            )
            for name, line in sorted(self.students.items(), key=lambda of: of[1].latency_ms or 0.0)
        ]
        columns = ("student", "params", "latency", "epoch", f"validation {heading}", "target")
        print_table(console, "students by latency", columns, rows)

    def _show_estimates(self, console: Console) -> None:
        """Print the estimated accuracies on the target beside the measured ones."""
        if not any(line.estimate for line in self.lines):
            return
        title = "accuracy on the target, estimated without its labels"
        rows = [(line.network, str(line.estimate or "-"), percent(line.target.value)) for line in self.lines]
        print_table(console, title, ("network", "estimate", "measured"), rows)

    def _show_classes(self, console: Console) -> None:
        """Print the student's results of each class, if there are few classes."""
        counted = self.student.target.by_class if self.student else None
        if not self.classes or counted is None or len(counted) != len(self.classes):
            return
        counts = ClassCounts(*np.array(counted).T)
        columns = (counts.true, counts.recall, counts.precision, counts.f1)
        rows = [
            (name, str(num), *map(percent, values))
            for name, num, *values in zip(self.classes, *columns, strict=True)
        ]
        headings = ("class", "images", "recall", "precision", "F1")
        who = display_name(Network.STUDENT.of_student(self.best_student))
        print_table(console, f"{who} on the target, by class", headings, rows)
