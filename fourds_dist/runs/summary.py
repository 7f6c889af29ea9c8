"""The final table of a run: accuracies on the test splits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from rich.console import Console
from rich.table import Table

from fourds_dist.io.terminal import words
from fourds_dist.runs.accuracy import Accuracy, Measure

CHOSEN_BY: dict[Measure, str] = {"accuracy": "accuracy", "mean_per_class": "mean over classes"}
"""Measure -> its name in the table."""


@dataclass(frozen=True)
class NetworkResult:
    """Results of one network on the test splits."""

    network: str
    num_parameters: int
    source: Accuracy | None
    target: Accuracy


@dataclass(frozen=True)
class RunSummary:
    """The result of a run, stored as `summary.json`."""

    run: str
    lines: tuple[NetworkResult, ...]
    chance: float
    """Accuracy of guessing, 1 / number of classes."""
    selected_epoch: int
    """Epoch of distillation with the best validation accuracy; the student has the weights of this epoch."""
    validation_accuracy: float
    train_images_per_s: float
    """Median over logging steps of the images per second of all workers together, including data loading."""
    num_workers: int
    selected_by: Measure = "accuracy"
    """The measure that `validation_accuracy` holds and that selected the epoch."""

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
                    Accuracy(**line["source"]) if line["source"] else None,
                    Accuracy(**line["target"]),
                )
                for line in values["lines"]
            )
            return cls(**{**values, "lines": lines})
        except (KeyError, TypeError, AttributeError):
            raise ValueError(
                "the run's summary.json is not the table of a run: it is truncated or was edited; remove it, and the "
                "run's command writes it again"
            ) from None

    def show(self, console: Console) -> None:
        """Print the table."""
        table = Table(title=words(f"{self.run}: accuracy on test splits"), title_justify="left")
        table.add_column("network", no_wrap=True)
        for column in ("params", "source", "target", "mean over classes", "img/s"):
            table.add_column(column, justify="right")
        for line in self.lines:
            mean = line.target.mean_per_class
            table.add_row(
                words(line.network),
                f"{line.num_parameters / 1e6:.2f} M",
                f"{line.source.value:.1%}" if line.source else "-",
                f"{line.target.value:.1%}",
                "-" if mean is None else f"{mean:.1%}",
                f"{line.target.images_per_s:.0f}",
            )
        console.print(table)
        samples = f"{self.lines[0].target.num_samples} target"
        if self.lines[0].source:
            samples += f" and {self.lines[0].source.num_samples} source"
        workers = f"{self.num_workers} worker{'s' if self.num_workers > 1 else ''}"
        text = (
            f"{samples} images tested, each once; chance {self.chance:.1%}; img/s: inference, per worker.\n"
            f"Student of epoch {self.selected_epoch}, chosen on the validation split "
            f"by {CHOSEN_BY[self.selected_by]} and loss ({self.validation_accuracy:.1%}); distilled at "
            f"{self.train_images_per_s:.0f} images/s on {workers}."
        )
        console.print(words(text), soft_wrap=True)
