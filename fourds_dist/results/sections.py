"""The sections of one run's report: from events and examination to words, tables, charts and pictures."""

from __future__ import annotations

import shlex
import time

from fourds_dist.results import charts
from fourds_dist.results.charts import Chart
from fourds_dist.results.examine import STUDENT, Examination
from fourds_dist.results.looks import LookSections
from fourds_dist.results.page import Section, Table
from fourds_dist.results.run import Run, curve, names_in
from fourds_dist.results.scores import wilson
from fourds_dist.runs.events import EpochEnded, StageStarted, StepLogged
from fourds_dist.runs.layout import STAGE_TITLES, RunFile, display_name
from fourds_dist.training.evaluate import Accuracy
from fourds_dist.training.outcome import CHOSEN_BY

STANDING = "apprentice/standing"
"""What FourDs.log_values calls it."""


class RunSections:
    """Of one run.

    Args:
        prefix: begins the names of its places and pictures, to tell several runs of a page apart.
        missing: why there is no examination.
    """

    def __init__(self, run: Run, seen: Examination | None, *, prefix: str = "", missing: str = "") -> None:
        self.run, self._prefix = run, prefix
        self._looks = LookSections(run, seen, prefix=prefix, missing=missing)

    def all(self) -> list[Section]:
        """In reading order; those with nothing to show are left out."""
        made = (
            self.result(),
            self._looks.classes(),
            self._looks.mistakes(),
            self.learning(),
            self._looks.adapters(),
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
                _mean(line.target),
                f"{line.target.images_per_s:.0f}",
            )
            for line in outcome.lines
        ]
        places = [i for i, line in enumerate(outcome.lines) if line.network == STUDENT]
        columns = ("network", "parameters", "source", "target", "mean over classes", "images/s")
        table = Table(columns, rows, frozenset({1, 2, 3, 4, 5}), places[0] if places else None)
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
            f"by {CHOSEN_BY[outcome.selected_by]} and loss ({outcome.validation_accuracy:.1%} there). "
            "images/s: inference on one worker."
        ]
        return Section(self._name("result"), "Result", words, [table], [drawn])

    def learning(self) -> Section | None:
        """Losses, accuracies and learning rates of all stages."""
        drawn: list[Chart] = []
        for stage in self.run.stages():
            title = STAGE_TITLES[stage].capitalize()
            steps, epochs = self.run.steps(stage), self.run.epochs(stage)
            networks = names_in(epoch.validation for epoch in epochs)
            losses = {"loss": curve(steps, lambda step: step.loss)} | {
                name.replace("_", " "): curve(steps, lambda step, name=name: step.losses.get(name))
                for name in names_in(step.losses for step in steps)
            }
            values = {
                display_name(name): curve(epochs, lambda epoch, name=name: _accuracy_of(epoch, name))
                for name in networks
            }
            held = {
                display_name(name): curve(epochs, lambda epoch, name=name: _loss_of(epoch, name))
                for name in networks
            }
            held = {name: found for name, found in held.items() if found[0]}
            rates = {
                display_name(name): curve(steps, lambda step, name=name: step.learning_rates.get(name))
                for name in names_in(step.learning_rates for step in steps)
            }
            if steps:
                drawn.append(
                    charts.lines(self._name(f"{stage}-losses"), f"{title}: losses", losses, log=True)
                )
            if values:
                name = self._name(f"{stage}-accuracy")
                drawn.append(charts.lines(name, f"{title}: validation accuracy", values, percent=True))
            if held:
                name = self._name(f"{stage}-validation-losses")
                is_curve = any(len(xs) > 1 for xs, _ in held.values())
                drawn.append(charts.lines(name, f"{title}: validation loss", held, log=is_curve))
            if rates:
                name = self._name(f"{stage}-rates")
                drawn.append(charts.lines(name, f"{title}: learning rates", rates, log=len(rates) > 1))
        words = [
            "Losses are means over the steps between two points, unweighted; the first, loss, is their weighted sum."
        ]
        steps = self.run.steps("distill")
        if any(STANDING in step.method_values for step in steps):
            standing = {"standing": curve(steps, lambda step: step.method_values.get(STANDING))}
            title = "The apprentice's standing"
            drawn.append(charts.lines(self._name("standing"), title, standing, percent=True, least=0))
            words.append(
                "The student began as an apprentice: it believes its teacher, and does not teach it, in the measure in "
                "which its standing is short of 100 %."
            )
        return Section(self._name("learning"), "Learning", words, charts=drawn) if drawn else None

    def speed(self) -> Section | None:
        """Throughput and waiting for data."""
        drawn: list[Chart] = []
        steps = {STAGE_TITLES[stage]: self.run.steps(stage) for stage in self.run.stages()}
        rates = {title: curve(found, lambda step: step.images_per_s) for title, found in steps.items()}
        waits = {title: curve(found, lambda step: step.shares.data_wait) for title, found in steps.items()}
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
            (
                time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(event.time)),
                STAGE_TITLES[event.stage],
                str(event.step),
                f"went on from step {event.step}: {event.text}"
                if isinstance(event, StageStarted)
                else event.text,
            )
            for event in self.run.notes()
        ]
        num_bad = max(
            (event.num_bad_samples for event in self.run.events if isinstance(event, StepLogged)), default=0
        )
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
        place, url = (shlex.quote(p) for p in (self.run.folder.path(RunFile.CONFIG), self.run.url))
        again = f"run.name={self.run.name}-again"
        command = f"python -m fourds_dist.train {place} {again}"
        further = (
            f"python -m fourds_dist.evaluate {url}\npython -m fourds_dist.predict {url} IMAGE...\n"
            f"python -m fourds_dist.export {url} DEST"
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


def _mean(accuracy: Accuracy) -> str:
    return "-" if accuracy.mean_per_class is None else f"{accuracy.mean_per_class:.1%}"


def _accuracy_of(epoch: EpochEnded, network: str) -> float | None:
    return epoch.validation[network].accuracy if network in epoch.validation else None


def _loss_of(epoch: EpochEnded, network: str) -> float | None:
    return epoch.validation[network].loss if network in epoch.validation else None
