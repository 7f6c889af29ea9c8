"""Result of exporting a student to one format."""

from __future__ import annotations

from dataclasses import dataclass

CLOSE = 1e-3
"""Largest allowed error of a logit, in standard deviations of the logits, for formats without quantisation."""


LEAST_AGREEMENT = {"int8": 0.95}
"""Smallest allowed share of images with the student's prediction, for quantised formats."""


@dataclass(frozen=True)
class Exported:
    """One exported file and its comparison with the student."""

    format: str
    file: str
    num_bytes: int
    latency_ms: float
    """Median time of a batch of one image, with all threads."""
    error: float
    """Largest absolute difference of a logit, in standard deviations of the student's logits."""
    agreement: float
    """Share of images with the student's prediction."""
    accuracy: float | None
    """Accuracy on the labelled images; None without labels, as is `student_accuracy`."""
    student_accuracy: float | None
    num_images: int

    def refusal(self, most_loss: float) -> str | None:
        """Return why this file must not be written; None: the file is close enough to the student.

        Args:
            most_loss: largest loss of accuracy of a quantised format.
        """
        has_labels = self.student_accuracy is not None and self.accuracy is not None
        loss = self.student_accuracy - self.accuracy if has_labels else 0.0  # pyright: ignore[reportOperatorIssue]
        if self.format not in LEAST_AGREEMENT:
            if self.error > CLOSE or self.agreement < 1:
                return (
                    f"its outputs differ from the student's: logits by up to {self.error:.2g} standard deviations "
                    f"(allowed: {CLOSE:g}), and {1 - self.agreement:.1%} of the predictions"
                )
            return None
        if loss > most_loss:
            return f"it loses {100 * loss:.1f} points of accuracy (allowed: {100 * most_loss:.1f})"
        least = LEAST_AGREEMENT[self.format]
        if self.agreement < least:
            return (
                f"it agrees with the student on only {self.agreement:.1%} of the images (least: {least:.0%})"
            )
        return None
