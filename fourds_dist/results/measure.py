"""A student on labelled images: its scores, as a table and as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from fourds_dist.data.index import UNLABELLED
from fourds_dist.results.images import BATCH_SIZE, FileImages, ShardImages
from fourds_dist.results.scores import Scores
from fourds_dist.results.student import Student
from fourds_dist.terminal import words

MOST_CLASSES = 30
"""Classes that the table shows, the worst ones; JSON has all."""


@dataclass(frozen=True)
class Measured:
    """A student's scores on some images."""

    student: Student
    where: str
    scores: Scores
    names: list[str]
    num_unlabelled: int
    num_unreadable: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "student": self.student.origin,
            "data": self.where,
            "num_unlabelled": self.num_unlabelled,
            "num_unreadable": self.num_unreadable,
            **self.scores.as_dict(self.student.classes),
        }

    def show(self, console: Console) -> None:
        """Print the table."""
        values = self.as_dict()
        table = Table(title=words(f"{self.student.origin}\non {self.where}"), title_justify="left")
        for column, justify in (("", "left"), ("value", "right"), ("95 % interval", "right")):
            table.add_column(column, justify=justify)  # pyright: ignore[reportArgumentType]
        names = {
            "top1": "top-1 accuracy",
            "top5": "top-5 accuracy",
            "mean_per_class": "mean over classes",
            "ece": "ECE",
        }
        for key, name in names.items():
            if key == "top5" and len(self.student.classes) <= 5:
                continue
            low, high = values[key]["interval"]
            table.add_row(name, f"{values[key]['value']:.1%}", f"{low:.1%} to {high:.1%}")
        console.print(table)
        self._show_classes(console, values["per_class"])
        left_out = [
            f"{count} {what}"
            for count, what in ((self.num_unlabelled, "without a label"), (self.num_unreadable, "unreadable"))
            if count
        ]
        console.print(
            words(
                f"{self.scores.num_images} images"
                + (f"; left out: {', '.join(left_out)}" if left_out else "")
            )
        )

    def _show_classes(self, console: Console, classes: list[dict[str, Any]]) -> None:
        seen = sorted((c for c in classes if c["recall"]), key=lambda c: c["recall"]["value"])
        shown = seen[:MOST_CLASSES]
        title = (
            f"the {len(shown)} classes recognised least of {len(seen)}"
            if len(shown) < len(seen)
            else "by class"
        )
        table = Table(title=words(title), title_justify="left")
        table.add_column("class")
        for column in ("images", "recognised", "95 % interval", "right when named"):
            table.add_column(column, justify="right")
        for c in shown:
            low, high = c["recall"]["interval"]
            precision = "-" if c["precision"] is None else f"{c['precision']:.1%}"
            interval = f"{low:.1%} to {high:.1%}"
            table.add_row(
                words(c["class"]), str(c["num_images"]), f"{c['recall']['value']:.1%}", interval, precision
            )
        console.print(table)


def measure(student: Student, images: ShardImages | FileImages, *, batch_size: int = BATCH_SIZE) -> Measured:
    """Look at every image once; unlabelled and unreadable ones are counted and left out.

    Raises:
        ValueError: no labelled images, or a batch size that is none.
    """
    if batch_size < 1:
        raise ValueError(f"a batch size of {batch_size}: give 1 or more")
    probabilities: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    names: list[str] = []
    num_seen = 0
    for pictures, told in student.looked_at(images, batch_size):
        known = (pictures.labels != UNLABELLED).numpy()
        num_seen += len(known)
        probabilities.append(told[known])
        labels.append(pictures.labels.numpy()[known])
        names += [name for name, is_known in zip(pictures.names, known, strict=True) if is_known]
    if not names:
        raise ValueError(f"{images.where}: no labelled images; give data with labels")
    scores = Scores(np.concatenate(labels), np.concatenate(probabilities))
    return Measured(student, images.where, scores, names, num_seen - len(names), images.num_images - num_seen)
