"""Sections of one run's report that are made from its analysis: classes, misclassified images, adapters."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np

from fourds_dist.inference.metrics import ClassificationMetrics, paired_gain
from fourds_dist.reports import charts
from fourds_dist.reports.adapter_views import StageView
from fourds_dist.reports.analysis import ADAPTED, BEFORE, STUDENT, TEACHER, PredictionAnalysis
from fourds_dist.reports.charts import Chart
from fourds_dist.reports.page import ReportSection, ReportTable
from fourds_dist.reports.sections import line_charts
from fourds_dist.stages.finished_run import Run, curve, names_in

MIX = "mix/"
"""Prefix of the adapters' amplitude weights in FourDs.log_values."""
MOST_ROWS = 30
"""Largest number of classes in a table."""
MOST_CELLS = 20
"""Largest number of classes in a confusion matrix."""
LEAST_IN_BIN = 5
"""Smallest number of images in a bin that the reliability diagram shows; the calibration error counts all bins."""
COLUMNS = 6
"""Misclassified images per row."""


def classes(analysis: PredictionAnalysis) -> ReportSection:
    """Return the recall per class, confusion matrix and reliability diagram."""
    networks = [n for n in (STUDENT, BEFORE, TEACHER, ADAPTED) if n in analysis.probabilities]
    scores = {network: analysis.scores(network) for network in networks}
    words = [f"Evaluated on {_images_text(analysis)}."]
    for network in (BEFORE, TEACHER):
        if network in scores:
            gain = paired_gain(scores[STUDENT].right, scores[network].right)
            low, high = (100 * end for end in gain["interval"])
            baseline = "teacher without adapters" if network == TEACHER else network
            words.append(
                f"Accuracy gain of the student over the {baseline}: {100 * gain['value']:+.1f} points "
                f"(95 % interval {low:+.1f} to {high:+.1f}), on the same images."
            )
    errors = ", ".join(f"{network} {scores[network].ece:.1%}" for network in networks)
    words.append(f"Expected calibration error (ECE): {errors}.")
    num_classes = len(analysis.classes)
    if num_classes > MOST_ROWS:
        words.append(
            f"Recall of the {MOST_ROWS} of {num_classes} classes whose recall differs most from the teacher's."
        )
    drawn = [_confusion(scores[STUDENT], analysis.classes)]
    bins = {n: [(x, y) for x, y, num in scores[n].bins if num >= LEAST_IN_BIN] for n in networks}
    drawn += line_charts([(
        "calibration", "Reliability diagram (accuracy by confidence)",
        {network: ([x for x, _ in found], [y for _, y in found]) for network, found in bins.items()},
        {"x": "confidence", "percent": True, "reference": ("calibrated", ([0, 1], [0, 1]))},
    )])  # fmt: skip
    return ReportSection("classes", "Classes", words, [_recall(scores, analysis.classes)], drawn)


def mistakes(analysis: PredictionAnalysis) -> ReportSection:
    """Return the misclassified images with the highest confidence."""
    found, title = analysis.mistakes, "Misclassified images"
    if not found:
        words = f"The student misclassifies no image. Evaluated on {_images_text(analysis)}."
        return ReportSection("mistakes", title, [words])
    captioned = [
        (
            f"true: {m.truth}\npredicted: {m.predicted}\nconfidence: {m.confidence:.0%}\n"
            f"teacher: {m.teacher_predicted}",
            np.moveaxis(m.pixels, 0, -1),
        )
        for m in found
    ]
    rows = [("", captioned[i : i + COLUMNS]) for i in range(0, len(captioned), COLUMNS)]
    listed = "; ".join(caption.replace("\n", ", ") for caption, _ in captioned)
    words = (
        "Images that the student misclassifies with the highest confidence, in descending order. The last line of "
        "a caption is the prediction of the teacher, with adapters if the method has them."
    )
    drawn = charts.sheet("mistakes", "Errors of the highest confidence", rows, words=listed)
    return ReportSection("mistakes", title, [words], charts=[drawn])


def adapters(run: Run, analysis: PredictionAnalysis | None) -> ReportSection | None:
    """Return the adapters' learnt weights and their effect on amplitude and phase; None without adapters."""
    steps = run.steps("distill")
    names = [name for name in names_in(step.method_values for step in steps) if name.startswith(MIX)]
    if not names:
        return None
    mixes = {
        f"after stage {i}": curve(steps, lambda step, name=name: step.method_values.get(name))
        for i, name in enumerate(names, 1)
    }
    initial = ("initial value", ([0, steps[-1].epoch], [0.5, 0.5]))
    drawn = [charts.lines("mix", "Weight of the learnt amplitude", mixes, percent=True, reference=initial)]
    words = [
        "Each adapter mixes the amplitude (style) of the teacher's features with a learnt amplitude, and keeps "
        "their phase (shape)."
    ]
    if analysis and analysis.adapters:
        stages = {f"after stage {i}": stage for i, stage in enumerate(analysis.adapters, 1)}
        profiles = {n: (s.profile[0].tolist(), np.exp2(s.profile[1]).tolist()) for n, s in stages.items()}
        title, x = (
            "Amplitude ratio, output / input of the adapters",
            "normalised frequency (0: mean, 1: Nyquist)",
        )
        drawn.append(
            charts.lines("amplitude", title, profiles, x=x, reference=("unchanged", ([0, 1], [1, 1])))
        )
        phase = ", ".join(f"{s.phase_kept:.2%}" for s in analysis.adapters)
        words += [
            "Phase similarity of input and output by stage (amplitude-weighted mean cosine of the phase change on the "
            f"feature maps): {phase}.",
            "Feature maps of one image (mean over channels of absolute values) at the input and the output of each "
            "adapter, and the amplitude gain by frequency (frequency 0 in the middle; blue: lower, red: higher).",
        ]
        title = "Feature maps at the input and output of the adapters"
        image = ("image", np.moveaxis(analysis.example, 0, -1))
        rows = [(name, [image, *_pictures(stage)]) for name, stage in stages.items()]
        drawn.append(charts.sheet("feature-maps", title, rows, words=title))
    return ReportSection("adapters", "Adapters", words, charts=drawn)


def _images_text(analysis: PredictionAnalysis) -> str:
    unlabelled = analysis.num_analysed - len(analysis.labels)
    without = f", without {unlabelled} unlabelled image{'s' if unlabelled > 1 else ''}" if unlabelled else ""
    if analysis.num_analysed == analysis.num_of_split:
        return f"all {analysis.num_of_split} images of {analysis.where}{without}"
    return f"{analysis.num_analysed} of the {analysis.num_of_split} images of {analysis.where}, evenly spaced{without}"


def _recall(scores: Mapping[str, ClassificationMetrics], classes: tuple[str, ...]) -> ReportTable:
    """Return the recall of all networks by class; of many classes, those with the largest change by the student."""
    recall = {network: metrics.recall for network, metrics in scores.items()}
    change = np.nan_to_num(np.abs(recall[STUDENT] - recall[TEACHER]))  # NaN: a class without images
    chosen = np.sort(np.argsort(-change, kind="stable")[:MOST_ROWS]).tolist()
    rows = [
        (
            classes[k],
            *("-" if np.isnan(of_class[k]) else f"{of_class[k]:.1%}" for of_class in recall.values()),
        )
        for k in chosen
    ]
    return ReportTable(("recall", *recall), rows, range(1, 1 + len(recall)))


def _confusion(scores: ClassificationMetrics, classes: tuple[str, ...]) -> Chart:
    """Return the student's confusion matrix; of many classes, those with most errors."""
    wrong = scores.confusion.copy()
    np.fill_diagonal(wrong, 0)
    chosen = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:MOST_CELLS])
    title = "Confusion matrix of the student" + (
        ", most confused classes" if len(chosen) < len(classes) else ""
    )
    return charts.confusion(
        "confusion", title, [classes[k] for k in chosen], scores.confusion[np.ix_(chosen, chosen)]
    )


def _pictures(stage: StageView) -> list[tuple[str, np.ndarray]]:
    """Return the maps on one scale in cividis (safe for colour blindness), and the gain as blue, white, red."""
    largest = max(float(stage.before.max()), float(stage.after.max())) or 1.0
    reach = max(0.5, float(np.abs(stage.gain).max()))
    maps, change = mpl.colormaps["cividis"], mpl.colormaps["RdBu_r"]
    return [
        ("input", maps(stage.before / largest)),
        ("output", maps(stage.after / largest)),
        (f"log2 gain, ±{reach:.1f}", change(0.5 + stage.gain / (2 * reach))),
    ]
