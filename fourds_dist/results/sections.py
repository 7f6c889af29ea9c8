"""The sections of one run's report: from events and examination to words, tables, charts and pictures."""

from __future__ import annotations

import math
import time

import numpy as np

from fourds_dist.results import charts, pictures
from fourds_dist.results.charts import Chart
from fourds_dist.results.examine import ADAPTED, BEFORE, STUDENT, TEACHER, Examination
from fourds_dist.results.page import Picture, Section, Table
from fourds_dist.results.run import STAGES, Run
from fourds_dist.results.scores import Scores, paired_gain, wilson
from fourds_dist.training.evaluate import Accuracy

MOST_BARS = 30
MOST_CELLS = 20
"""Classes that fit in a chart of bars, and in a matrix."""
DRAWN_MISTAKES = 24
LEAST_IN_BIN = 5
"""Images in a bin of confidence that the chart shows; the calibration error counts all bins."""


class RunSections:
    """Of one run.

    Args:
        prefix: begins the names of its places and pictures, to tell several runs of a page apart.
        missing: why there is no examination.
    """

    def __init__(self, run: Run, seen: Examination | None, *, prefix: str = "", missing: str = "") -> None:
        self.run, self.seen, self._prefix, self._missing = run, seen, prefix, missing

    def all(self) -> list[Section]:
        """In reading order; those with nothing to show are left out."""
        made = (
            self.result(),
            self.classes(),
            self.mistakes(),
            self.learning(),
            self.adapters(),
            self.speed(),
        )
        return [section for section in (*made, self.events(), self.repeating()) if section is not None]

    def result(self) -> Section | None:
        """The table of all networks."""
        outcome = self.run.outcome
        if outcome is None:
            return Section(self._name("result"), "Result", ["The run is not done: there is no result yet."])
        num = outcome.lines[0].target.num_samples
        rows = [
            (
                line.network,
                f"{line.num_parameters / 1e6:.2f} M",
                _percent(line.source),
                _percent(line.target),
                f"{line.target.images_per_s:.0f}",
            )
            for line in outcome.lines
        ]
        places = [i for i, line in enumerate(outcome.lines) if line.network == STUDENT]
        columns = ("network", "parameters", "source", "target", "images/s")
        table = Table(columns, rows, frozenset({1, 2, 3, 4}), places[0] if places else None)
        levels = {
            line.network: (line.target.value, wilson(line.target.num_correct, max(1, num)))
            for line in outcome.lines
        }
        drawn = charts.intervals(
            self._name("accuracy"), "Accuracy on target", levels, reference=("chance", outcome.chance)
        )
        words = [
            f"{num} target images of the test split, each seen once. Bands are 95 % intervals. "
            f"The student is that of epoch {outcome.selected_epoch}, chosen on the validation split "
            f"({outcome.validation_accuracy:.1%} there). images/s: inference on one worker."
        ]
        return Section(self._name("result"), "Result", words, [table], [drawn])

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

    def learning(self) -> Section | None:
        """Losses, accuracies and learning rates of both stages."""
        drawn: list[Chart] = []
        for stage in self.run.stages():
            title, series = STAGES[stage].capitalize(), self.run.series
            losses = {k.replace("_", " "): series(stage, "step", k) for k in self.run.losses(stage)}
            validated = self.run.keys(stage, "epoch", "val/")
            values = {_plain(k): series(stage, "epoch", k) for k in validated}
            rates = {_plain(k): series(stage, "step", k) for k in self.run.keys(stage, "step", "lr/")}
            if losses:
                drawn.append(
                    charts.lines(self._name(f"{stage}-losses"), f"{title}: losses", losses, log=True)
                )
            if values:
                name = self._name(f"{stage}-accuracy")
                title_ = f"{title}: validation accuracy"
                drawn.append(charts.lines(name, title_, values, percent=True))
            if rates:
                name = self._name(f"{stage}-rates")
                drawn.append(charts.lines(name, f"{title}: learning rates", rates, log=len(rates) > 1))
        words = [
            "Losses are means over the steps between two points, unweighted; the first, loss, is their weighted sum."
        ]
        return Section(self._name("learning"), "Learning", words, charts=drawn) if drawn else None

    def adapters(self) -> Section | None:
        """What the adapters learnt, and what they do to amplitude and phase."""
        keys = self.run.keys("distill", "step", "mix/")
        if not keys:
            return None
        mixes = {f"after stage {i}": self.run.series("distill", "step", key) for i, key in enumerate(keys, 1)}
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

    def speed(self) -> Section | None:
        """Throughput and waiting for data."""
        drawn: list[Chart] = []
        rates = {STAGES[s]: self.run.series(s, "step", "images_per_s") for s in self.run.stages()}
        waits = {STAGES[s]: self.run.series(s, "step", "data_wait_share") for s in self.run.stages()}
        rates, waits = ({k: v for k, v in d.items() if v[0]} for d in (rates, waits))
        if not rates:
            return None
        drawn.append(charts.lines(self._name("throughput"), "Training images per second", rates, least=0))
        drawn.append(
            charts.lines(self._name("wait"), "Share of time waiting for data", waits, percent=True, least=0)
        )
        words = ["All workers together, data included, evaluation left out."]
        longest = max(max(values) for _, values in waits.values()) if waits else 0
        if longest > 0.2:
            words.append(
                f"At worst {longest:.0%} of the time went to waiting for data: more data.threads or cpus_per_worker, "
                "data.cache_dir, or smaller images would help."
            )
        return Section(self._name("speed"), "Speed", words, charts=drawn)

    def events(self) -> Section:
        """What went wrong, and how it was survived."""
        rows = [
            (time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(row.get("time", 0))), STAGES.get(row.get("stage", ""), ""),
             str(row.get("step", "")), _told(row))
            for row in self.run.notes()
        ]  # fmt: skip
        num_bad = max((row.get("num_bad_samples", 0) for row in self.run.rows), default=0)
        words = (
            [] if rows else ["Nothing went wrong that the run noticed: no restart, no retry worth telling."]
        )
        if num_bad:
            words.append(
                f"{num_bad} broken images were met, replaced by neighbours in training; the log names them."
            )
        tables = [Table(("time (UTC)", "stage", "step", "what"), rows, frozenset({2}))] if rows else []
        return Section(self._name("events"), "What happened", words, tables)

    def repeating(self) -> Section:
        """The configuration, and the commands that do it again."""
        place = self.run.folder.path("config.yaml")
        again = f"run.name={self.run.name}-again"
        command = f"python -m fourds_dist.train {place} {again}"
        if not self.run.folder.is_local:
            fetch = f"python -c 'import fsspec, sys; sys.stdout.buffer.write(fsspec.open(\"{place}\").open().read())'"
            command = f"{fetch} > config.yaml\npython -m fourds_dist.train config.yaml {again}"
        further = (
            f"python -m fourds_dist.evaluate {self.run.url}\npython -m fourds_dist.predict {self.run.url} IMAGE...\n"
            f"python -m fourds_dist.export {self.run.url} DEST"
        )
        code = [
            ("Run it again", command),
            ("Use its student", further),
            ("Configuration", self.run.config_text),
        ]
        return Section(self._name("repeat"), "Repeat", code=code)

    def _name(self, name: str) -> str:
        return self._prefix + name


def _percent(accuracy: Accuracy | None) -> str:
    return "-" if accuracy is None else f"{accuracy.value:.1%}"


def _plain(key: str) -> str:
    return key.partition("/")[2].replace("teacher_adapted", "teacher with adapters").replace("_", " ")


def _of_all(seen: Examination) -> str:
    num = len(seen.labels)
    if num == seen.num_of_split:
        return f"all {num} images of {seen.where}"
    return f"{num} of the {seen.num_of_split} images of {seen.where}, evenly spread"


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


def _stage_pictures(stage: object) -> list[tuple[str, np.ndarray]]:
    from fourds_dist.results.adapters import StageView

    assert isinstance(stage, StageView)
    before, after = pictures.strength([stage.before, stage.after])
    reach = max(0.5, float(np.abs(stage.gain).max()))
    return [
        ("before", before),
        ("after", after),
        (f"change, ±{reach:.1f} octaves", pictures.change(stage.gain, reach)),
    ]


def _told(row: dict) -> str:
    if row["event"] == "start":
        return f"went on from step {row['step']}: {row.get('text', '')}"
    return str(row.get("text") or {k: v for k, v in row.items() if k not in ("stage", "time", "step")})
