"""Metrics of a student on labelled images, as a table and as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from fourds_dist.data.format.index import UNLABELLED
from fourds_dist.inference.images import BATCH_SIZE, FileImages, ShardImages
from fourds_dist.inference.metrics import ClassificationMetrics
from fourds_dist.inference.student import Student
from fourds_dist.io.tables import print_table
from fourds_dist.io.terminal import words
from fourds_dist.runs.accuracy import MOST_CLASSES


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a student on one set of images, with the counts of images left out."""

    student: Student
    where: str
    scores: ClassificationMetrics
    names: list[str]
    num_unlabelled: int
    num_unreadable: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
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
        names = {
            "top1": "top-1 accuracy",
            "top5": "top-5 accuracy",
            "balanced_accuracy": "balanced accuracy",
            "macro_f1": "macro F1",
            "ece": "ECE",
        }
        rows = []
        for key, name in names.items():
            if key == "top5" and len(self.student.classes) <= 5:
                continue
            low, high = values[key]["interval"]
            rows.append((name, f"{values[key]['value']:.1%}", f"{low:.1%} to {high:.1%}"))
        title = f"{self.student.origin}\non {self.where}"
        print_table(console, title, ("", "value", "95 % interval"), rows)
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
        """Print the classes, those with the lowest recall first; of many classes only these. JSON has all classes."""
        by_recall = sorted((c for c in classes if c["recall"]), key=lambda c: c["recall"]["value"])
        shown = by_recall[:MOST_CLASSES]
        title = "by class"
        if len(shown) < len(by_recall):
            title = f"{len(shown)} classes with the lowest recall, of {len(by_recall)}"
        rows = []
        for c in shown:
            low, high = c["recall"]["interval"]
            others = ["-" if c[key] is None else f"{c[key]:.1%}" for key in ("precision", "f1")]
            interval = f"{low:.1%} to {high:.1%}"
            rows.append((c["class"], str(c["num_images"]), f"{c['recall']['value']:.1%}", interval, *others))
        columns = ("class", "images", "recall", "95 % interval", "precision", "F1")
        print_table(console, title, columns, rows)


def evaluate_student(
    student: Student, images: ShardImages | FileImages, *, batch_size: int = BATCH_SIZE
) -> Evaluation:
    """Evaluate a student on every image once; unlabelled and unreadable images are left out and counted.

    Raises:
        ValueError: no labelled images, or a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"a batch size of {batch_size}: give 1 or more")
    probabilities: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    names: list[str] = []
    num_read = 0
    for batch, batch_probabilities in student.probabilities_of(images, batch_size):
        labelled = (batch.labels != UNLABELLED).numpy()
        num_read += len(labelled)
        probabilities.append(batch_probabilities[labelled])
        labels.append(batch.labels.numpy()[labelled])
        names += [name for name, is_labelled in zip(batch.names, labelled, strict=True) if is_labelled]
    if not names:
        raise ValueError(f"{images.where}: no labelled images; give data with labels")
    scores = ClassificationMetrics(np.concatenate(labels), np.concatenate(probabilities))
    return Evaluation(
        student, images.where, scores, names, num_read - len(names), images.num_images - num_read
    )
