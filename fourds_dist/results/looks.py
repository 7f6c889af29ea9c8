"""The sections of a report that come from its examination: classes, mistakes, adapters."""

from __future__ import annotations

import math

import numpy as np

from fourds_dist.results import charts, pictures
from fourds_dist.results.adapters import StageView
from fourds_dist.results.charts import Chart
from fourds_dist.results.examine import ADAPTED, BEFORE, STUDENT, TEACHER, Examination
from fourds_dist.results.page import Picture, Section
from fourds_dist.results.run import Run, curve, names_in
from fourds_dist.results.scores import Scores, paired_gain

MIX = "mix/"
"""Begins the names of the adapters' shares in FourDs.log_values."""
MOST_BARS = 30
MOST_CELLS = 20
"""Classes that fit in a chart of bars, and in a matrix."""
DRAWN_MISTAKES = 24
LEAST_IN_BIN = 5
"""Images in a bin of confidence that the chart shows; the calibration error counts all bins."""


class LookSections:
    """Of one run.

    Args:
        seen: its examination; None: there is none, because of `missing`.
        prefix: begins the names of its places and pictures.
    """

    def __init__(self, run: Run, seen: Examination | None, *, prefix: str, missing: str) -> None:
        self.run, self.seen, self._prefix, self._missing = run, seen, prefix, missing

    def classes(self) -> Section | None:
        """Class by class: gains, confusion, calibration."""
        if self.seen is None:
            why = f"There is no look at single images here: {self._missing}." if self._missing else ""
            return Section(self._name("classes"), "Classes", [why]) if why else None
        seen, student = self.seen, self.seen.scores(STUDENT)
        words = [f"From {_of_all(seen)}."]
        drawn: list[Chart] = []
        for network, short in ((BEFORE, "before"), (TEACHER, "teacher")):
            if network not in seen.probabilities:
                continue
            baseline = seen.scores(network)
            gain = paired_gain(student.right, baseline.right)
            low, high = (100 * end for end in gain["interval"])
            words.append(
                f"Over the {'unadapted ' if network == TEACHER else ''}{network}: {100 * gain['value']:+.1f} points "
                f"({low:+.1f} to {high:+.1f}) on the same images."
            )
            labels, values = _by_class(student, baseline, seen.classes)
            title = f"Student against {'unadapted teacher' if network == TEACHER else 'itself before distillation'}"
            drawn.append(charts.gains(self._name(f"gains-{short}"), title, labels, values, baseline=network))
        labels, counts = _most_confused(student, seen.classes)
        title = "What the student calls what" + (
            "" if len(labels) == len(seen.classes) else ", most confused classes"
        )
        drawn.append(charts.confusion(self._name("confusion"), title, labels, counts))
        shown = [n for n in (STUDENT, BEFORE, TEACHER, ADAPTED) if n in seen.probabilities]
        bins = {n: [b for b in seen.scores(n).bins if b[2] >= LEAST_IN_BIN] for n in shown}
        bins = {network: found for network, found in bins.items() if found}
        drawn.append(
            charts.reliability(self._name("calibration"), "How often it is as right as it is sure", bins)
        )
        errors = ", ".join(f"{network} {seen.scores(network).ece:.1%}" for network in shown)
        words.append(f"Calibration error (ECE, 0 is best): {errors}.")
        return Section(self._name("classes"), "Classes", words, charts=drawn)

    def mistakes(self) -> Section | None:
        """The surest mistakes, as pictures."""
        if self.seen is None:
            return None
        found = self.seen.mistakes[:DRAWN_MISTAKES]
        if not found:
            words = [f"None: the student is right about all of {_of_all(self.seen)}."]
            return Section(self._name("mistakes"), "Mistakes", words)
        shown = [
            Picture(
                pictures.png(m.pixels),
                f"{m.truth}, called {m.called}",
                f"an image of class {m.truth} that the student calls {m.called}",
                f"{m.confidence:.0%} sure; teacher: {m.teacher_called}",
            )
            for m in found
        ]
        plain = [(f"{m.truth}, called {m.called} ({m.confidence:.0%})", m.pixels) for m in found]
        rows = [("", plain[i : i + 8]) for i in range(0, len(plain), 8)]
        sheets = {self._name("mistakes"): pictures.sheet("The student's surest mistakes", rows)}
        words = ["The student's surest mistakes, surest first; below each, what the adapted teacher says."]
        return Section(self._name("mistakes"), "Mistakes", words, strips=[("", shown)], sheets=sheets)

    def adapters(self) -> Section | None:
        """What the adapters learnt, and what they do to amplitude and phase."""
        steps = self.run.steps("distill")
        names = [name for name in names_in(step.method_values for step in steps) if name.startswith(MIX)]
        if not names:
            return None
        mixes = {
            f"after stage {i}": curve(steps, lambda step, name=name: step.method_values.get(name))
            for i, name in enumerate(names, 1)
        }
        half = ("as at the start", 0.5)
        drawn = [
            charts.lines(self._name("mix"), "Share of learnt amplitude", mixes, percent=True, reference=half)
        ]
        words = [
            "Each adapter mixes the teacher's own amplitude (style) with a learnt one, under the teacher's own phase "
            "(shape)."
        ]
        view = self.seen.adapters if self.seen else None
        if view is None:
            return Section(self._name("adapters"), "Adapters", words, charts=drawn)
        profiles = {
            f"after stage {i}": (s.profile[0].tolist(), np.exp2(s.profile[1]).tolist())
            for i, s in enumerate(view.stages, 1)
        }
        drawn.append(
            charts.lines(
                self._name("amplitude"), "Amplitude after / before", profiles,
                x="frequency, from the map's mean (0) to the finest (1)", reference=("unchanged", 1.0),
            )
        )  # fmt: skip
        kept = ", ".join(f"{s.phase_kept:.2%}" for s in view.stages)
        words.append(
            f"Phase kept by stage, measured on the maps (mean cosine of its change, weighted by amplitude): {kept}."
        )
        rows = [(f"after stage {i}", _stage_pictures(s)) for i, s in enumerate(view.stages, 1)]
        example = ("the image", view.image)
        strips = [
            (
                name,
                [Picture(pictures.png(p), caption, f"{caption}, {name}") for caption, p in (example, *row)],
            )
            for name, row in rows
        ]
        words.append(
            "Feature maps of one image (mean over channels of absolute values) before and after each adapter, and the "
            "amplitude's change by frequency, the map's mean in the middle: blue less, red more."
        )
        sheets = {
            self._name("feature-maps"): pictures.sheet("Feature maps before and after the adapters", rows)
        }
        return Section(self._name("adapters"), "Adapters", words, charts=drawn, strips=strips, sheets=sheets)

    def _name(self, name: str) -> str:
        return self._prefix + name


def _of_all(seen: Examination) -> str:
    unlabelled = seen.num_looked_at - len(seen.labels)
    apart = f", less {unlabelled} without a label" if unlabelled else ""
    if seen.num_looked_at == seen.num_of_split:
        return f"all {seen.num_of_split} images of {seen.where}{apart}"
    return f"{seen.num_looked_at} of the {seen.num_of_split} images of {seen.where}, evenly spread{apart}"


def _by_class(student: Scores, baseline: Scores, classes: tuple[str, ...]) -> tuple[list[str], list[float]]:
    """Gains of recognised share by class; of many classes, those that change most."""
    gains = student.recall - baseline.recall
    known = [k for k in range(len(classes)) if not math.isnan(gains[k])]
    chosen = sorted(known, key=lambda k: -abs(gains[k]))[:MOST_BARS]
    return [classes[k] for k in sorted(chosen)], [float(gains[k]) for k in sorted(chosen)]


def _most_confused(scores: Scores, classes: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    wrong = scores.confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:MOST_CELLS]
    chosen = np.sort(order)
    return [classes[k] for k in chosen], scores.confusion[np.ix_(chosen, chosen)]


def _stage_pictures(stage: StageView) -> list[tuple[str, np.ndarray]]:
    before, after = pictures.strength([stage.before, stage.after])
    reach = max(0.5, float(np.abs(stage.gain).max()))
    return [
        ("before", before),
        ("after", after),
        (f"change, ±{reach:.1f} octaves", pictures.change(stage.gain, reach)),
    ]
