"""Report sections made from the analysis: classes, misclassified images, adapters."""

from __future__ import annotations

import math

import numpy as np

from fourds_dist.inference.metrics import ClassificationMetrics, paired_gain
from fourds_dist.reports import charts
from fourds_dist.reports import images as pictures
from fourds_dist.reports.adapter_views import StageView
from fourds_dist.reports.analysis import ADAPTED, BEFORE, STUDENT, TEACHER, PredictionAnalysis
from fourds_dist.reports.charts import Chart
from fourds_dist.reports.page import ReportImage, ReportSection
from fourds_dist.stages.finished_run import Run, curve, names_in

MIX = "mix/"
"""Prefix of the adapters' amplitude weights in FourDs.log_values."""
MOST_BARS = 30
"""Largest number of classes in a bar chart."""
MOST_CELLS = 20
"""Largest number of classes in a confusion matrix."""
DRAWN_MISTAKES = 24
LEAST_IN_BIN = 5
"""Smallest number of images in a bin that the reliability diagram shows; the calibration error counts all bins."""


class AnalysisSections:
    """Sections of one run.

    Args:
        analysis: the run's analysis; None: there is none, for the reason `missing`.
        prefix: prefix of the names of sections and PNG files.
    """

    def __init__(self, run: Run, analysis: PredictionAnalysis | None, *, prefix: str, missing: str) -> None:
        self.run, self.analysis, self._prefix, self._missing = run, analysis, prefix, missing

    def classes(self) -> ReportSection | None:
        """Return the per-class gains, confusion matrix and reliability diagram."""
        if self.analysis is None:
            why = f"The test images were not analysed: {self._missing}." if self._missing else ""
            return ReportSection(self._name("classes"), "Classes", [why]) if why else None
        analysis, student = self.analysis, self.analysis.scores(STUDENT)
        words = [f"Evaluated on {_images_text(analysis)}."]
        drawn: list[Chart] = []
        for network, short in ((BEFORE, "before"), (TEACHER, "teacher")):
            if network not in analysis.probabilities:
                continue
            baseline = analysis.scores(network)
            gain = paired_gain(student.right, baseline.right)
            low, high = (100 * end for end in gain["interval"])
            baseline_name = "teacher without adapters" if network == TEACHER else network
            words.append(
                f"Accuracy gain of the student over the {baseline_name}: {100 * gain['value']:+.1f} points "
                f"(95 % interval {low:+.1f} to {high:+.1f}), on the same images."
            )
            labels, values = _by_class(student, baseline, analysis.classes)
            title = f"Recall gain per class over the {baseline_name}"
            drawn.append(
                charts.gains(self._name(f"gains-{short}"), title, labels, values, baseline=baseline_name)
            )
        labels, counts = _most_confused(student, analysis.classes)
        title = "Confusion matrix" + (
            "" if len(labels) == len(analysis.classes) else ", most confused classes"
        )
        drawn.append(charts.confusion(self._name("confusion"), title, labels, counts))
        shown = [n for n in (STUDENT, BEFORE, TEACHER, ADAPTED) if n in analysis.probabilities]
        bins = {n: [b for b in analysis.scores(n).bins if b[2] >= LEAST_IN_BIN] for n in shown}
        bins = {network: found for network, found in bins.items() if found}
        drawn.append(charts.reliability(self._name("calibration"), "Reliability diagram", bins))
        errors = ", ".join(f"{network} {analysis.scores(network).ece:.1%}" for network in shown)
        words.append(f"Expected calibration error (ECE): {errors}.")
        return ReportSection(self._name("classes"), "Classes", words, charts=drawn)

    def mistakes(self) -> ReportSection | None:
        """Return the misclassified images with the highest confidence."""
        if self.analysis is None:
            return None
        found = self.analysis.mistakes[:DRAWN_MISTAKES]
        if not found:
            words = [f"The student classifies all of {_images_text(self.analysis)} correctly."]
            return ReportSection(self._name("mistakes"), "Misclassified images", words)
        shown = [
            ReportImage(
                pictures.png(m.pixels),
                f"true: {m.truth}, predicted: {m.predicted}",
                f"image of class {m.truth}, predicted as {m.predicted}",
                f"confidence {m.confidence:.0%}; teacher: {m.teacher_predicted}",
            )
            for m in found
        ]
        captioned = [(f"{m.truth} → {m.predicted} ({m.confidence:.0%})", m.pixels) for m in found]
        rows = [("", captioned[i : i + 8]) for i in range(0, len(captioned), 8)]
        title = "Misclassified images: true → predicted (confidence)"
        sheets = {self._name("mistakes"): pictures.sheet(title, rows)}
        words = [
            "Images that the student misclassifies with the highest confidence, in descending order. The last line of "
            "a caption is the prediction of the teacher, with adapters if the method has them."
        ]
        return ReportSection(
            self._name("mistakes"), "Misclassified images", words, strips=[("", shown)], sheets=sheets
        )

    def adapters(self) -> ReportSection | None:
        """Return the adapters' learnt weights and their effect on amplitude and phase."""
        steps = self.run.steps("distill")
        names = [name for name in names_in(step.method_values for step in steps) if name.startswith(MIX)]
        if not names:
            return None
        mixes = {
            f"after stage {i}": curve(steps, lambda step, name=name: step.method_values.get(name))
            for i, name in enumerate(names, 1)
        }
        initial = ("initial value", 0.5)
        title = "Weight of the learnt amplitude"
        drawn = [charts.lines(self._name("mix"), title, mixes, percent=True, reference=initial)]
        words = [
            "Each adapter mixes the amplitude (style) of the teacher's features with a learnt amplitude, and keeps "
            "their phase (shape)."
        ]
        view = self.analysis.adapters if self.analysis else None
        if view is None:
            return ReportSection(self._name("adapters"), "Adapters", words, charts=drawn)
        profiles = {
            f"after stage {i}": (s.profile[0].tolist(), np.exp2(s.profile[1]).tolist())
            for i, s in enumerate(view.stages, 1)
        }
        drawn.append(
            charts.lines(
                self._name("amplitude"), "Amplitude ratio, output / input of the adapters", profiles,
                x="normalised frequency (0: mean, 1: Nyquist)", reference=("unchanged", 1.0),
            )
        )  # fmt: skip
        phase = ", ".join(f"{s.phase_kept:.2%}" for s in view.stages)
        words.append(
            "Phase similarity of input and output by stage (amplitude-weighted mean cosine of the phase change on the "
            f"feature maps): {phase}."
        )
        rows = [(f"after stage {i}", _stage_pictures(s)) for i, s in enumerate(view.stages, 1)]
        example = ("image", view.image)
        strips = [
            (
                name,
                [
                    ReportImage(pictures.png(p), caption, f"{caption}, {name}")
                    for caption, p in (example, *row)
                ],
            )
            for name, row in rows
        ]
        words.append(
            "Feature maps of one image (mean over channels of absolute values) at the input and the output of each "
            "adapter, and the amplitude gain by frequency (frequency 0 in the middle; blue: lower, red: higher)."
        )
        title = "Feature maps at the input and output of the adapters"
        sheets = {self._name("feature-maps"): pictures.sheet(title, rows)}
        return ReportSection(
            self._name("adapters"), "Adapters", words, charts=drawn, strips=strips, sheets=sheets
        )

    def _name(self, name: str) -> str:
        return self._prefix + name


def _images_text(analysis: PredictionAnalysis) -> str:
    unlabelled = analysis.num_analysed - len(analysis.labels)
    without = f", without {unlabelled} unlabelled images" if unlabelled else ""
    if analysis.num_analysed == analysis.num_of_split:
        return f"all {analysis.num_of_split} images of {analysis.where}{without}"
    return f"{analysis.num_analysed} of the {analysis.num_of_split} images of {analysis.where}, evenly spaced{without}"


def _by_class(
    student: ClassificationMetrics, baseline: ClassificationMetrics, classes: tuple[str, ...]
) -> tuple[list[str], list[float]]:
    """Return classes and their gain in recall; of many classes, those with the largest absolute gain."""
    gains = student.recall - baseline.recall
    known = [k for k in range(len(classes)) if not math.isnan(gains[k])]
    chosen = sorted(known, key=lambda k: -abs(gains[k]))[:MOST_BARS]
    return [classes[k] for k in sorted(chosen)], [float(gains[k]) for k in sorted(chosen)]


def _most_confused(scores: ClassificationMetrics, classes: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    wrong = scores.confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:MOST_CELLS]
    chosen = np.sort(order)
    return [classes[k] for k in chosen], scores.confusion[np.ix_(chosen, chosen)]


def _stage_pictures(stage: StageView) -> list[tuple[str, np.ndarray]]:
    before, after = pictures.strength([stage.before, stage.after])
    reach = max(0.5, float(np.abs(stage.gain).max()))
    return [
        ("input", before),
        ("output", after),
        (f"log2 gain, ±{reach:.1f}", pictures.change(stage.gain, reach)),
    ]
