"""The runs of a question: a trial, a teacher, a race of methods, other settings of the best, and what would help.

Every run is an ordinary run in a folder of its own under `runs`, which shows whether the run is done; the same command
resumes what is not. Lengths that were chosen by the speed of the first runs are kept, so resumed runs are the same.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from fourds_dist.config.stage_names import StageName
from fourds_dist.experiments.advise.candidates import Candidate, Regime, variants
from fourds_dist.experiments.advise.clock import BudgetClock, span
from fourds_dist.experiments.advise.costs import Costs
from fourds_dist.experiments.advise.domains import measure_gap
from fourds_dist.experiments.advise.findings import Effect, Findings, Trained
from fourds_dist.experiments.advise.lengths import Length
from fourds_dist.experiments.advise.observation import Observation
from fourds_dist.experiments.advise.plan import LENGTHS, AdvisePlan
from fourds_dist.experiments.advise.race import (
    Belief,
    beliefs,
    plan_race,
    ranked,
    sizes,
)
from fourds_dist.experiments.executor.base import GRACE_S, Executor, RunTask, TaskResult
from fourds_dist.experiments.executor.open import open_executor
from fourds_dist.experiments.executor.run_tasks import remove_checkpoints, run_tasks
from fourds_dist.experiments.shared_teacher import source_run
from fourds_dist.io.storage import join
from fourds_dist.io.terminal import say
from fourds_dist.runs.accuracy import LABEL_FREE
from fourds_dist.runs.layout import Network
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.finished_run import Run
from fourds_dist.stages.network_inputs import with_network_inputs
from fourds_dist.stages.preflight import check
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.stages import from_source

TRIAL_STEPS = 6
"""Steps of each stage of the trial."""
SOURCE_SHARE = 0.4
"""Largest share of the budget for the source stage, if it has to be shortened."""
RACE_SHARE = 0.75
"""Share of the rest for the race; other settings and what would help take what it leaves."""
LEAST_SD = 0.08
"""Smallest standard deviation of an accuracy that is estimated without labels, for comparisons of methods."""
ESTIMATED_ON = 512
"""Test images, without their labels, for these estimates."""
POLL_S = 0.5
"""Seconds between two looks at the clock while runs are executed elsewhere."""
PAIRED = 0.5
"""Correlation of the errors of two networks over the same validation images."""


class BudgetOverError(Exception):
    """The time for trainings is over."""


class Advisor:
    """Runs what a plan asks for, within its budget.

    Args:
        executor: None until `run`.
    """

    def __init__(self, plan: AdvisePlan, clock: BudgetClock) -> None:
        self.plan, self.clock = plan, clock
        self.costs, self.findings = Costs(), Findings()
        self._folder = RunFolder(plan.url)
        self._lengths: dict[str, Any] = (
            self._folder.read_json(LENGTHS) if self._folder.exists(LENGTHS) else {}
        )
        self._executor: Executor | None = None

    def run(self) -> Findings:
        """Run until the answer or the end of the budget.

        Raises:
            ValueError: the budget is too small for a race, the teacher is no better than chance, or no method runs.
        """
        config, first = self.plan.config, self._trial_settings()
        check(with_network_inputs(first))
        try:
            with (
                self.clock.running(),
                open_executor(
                    config.through, first, config.gpus, until_s=self.clock.end_s, is_quiet=True
                ) as self._executor,
            ):
                self._trial()
                teacher_url = self._teacher()
                self._race(teacher_url)
                if not self.is_blind:
                    self._settings(teacher_url)
                    self._help(teacher_url)
        except BudgetOverError:
            self.findings.left_out.append("the last run, which the end of the budget stopped")
        return self.findings

    @property
    def best(self) -> Candidate | None:
        """The method with the highest expected accuracy; None before the first run."""
        raced = {each.name: each for each in self.plan.candidates if self.findings.of(each.name)}
        return raced[ranked(self.beliefs(), list(raced))[0]] if raced else None

    @property
    def is_blind(self) -> bool:
        """Whether no training of any method was above chance by twice the sampling error."""
        counts = self.plan.target
        most = self._most_by_chance(counts.val_labels or counts.val)
        return all(each.seen.accuracy <= most for each in self.findings.trained)

    def _most_by_chance(self, num_images: int) -> float:
        """Return the accuracy of guessing plus twice its sampling error."""
        chance = 1 / self.plan.target.classes
        return chance + 2 * math.sqrt(chance * (1 - chance) / max(1, num_images))

    def beliefs(self) -> dict[str, Belief]:
        """What is known of the methods."""
        longest = {each.name: self.findings.of(each.name) for each in self.plan.candidates}
        priors = {each.name: each.prior for each in self.plan.candidates if longest[each.name]}
        return beliefs(priors, {name: runs[-1].seen for name, runs in longest.items() if runs})

    def lengths(self, candidate: Candidate, fraction: float) -> dict[StageName, Length]:
        """Return the lengths of the stages of a candidate on the target, at a fraction of the full ones."""
        plan = self.plan
        found: dict[StageName, Length] = {}
        if plan.adapts(candidate):
            found["adapt"] = plan.adapt_length.shortened(fraction)
        found["distill"] = plan.distill_length.shortened(fraction)
        return found

    def full_seconds(self, candidate: Candidate) -> float:
        """Return the predicted seconds of a run at full length, with its source stage."""
        lengths = self.lengths(candidate, 1.0)
        full = self.plan.source_length
        if full is not None and self.plan.has_source_stage:
            return self.costs.training_s(candidate.name, {"source": full.shortened(1.0), **lengths})
        return self.costs.training_s(candidate.name, lengths)

    def _trial_settings(self) -> Settings:
        """Return a run of a few steps in each stage, of the first method."""
        plan = self.plan
        source = plan.source_length and plan.source_length.steps(TRIAL_STEPS)
        return plan.short(plan.candidates[0], plan.distill_length.steps(TRIAL_STEPS), source, name="trial")

    def _trial(self) -> None:
        """Measure the cost of the stages; refuse a budget that is too small."""
        settings = self._trial_settings()
        began_s = time.monotonic()
        self._do([RunTask("trial", settings)], "trial: a few steps of each stage")
        wall_s = time.monotonic() - began_s
        if failure := self.findings.failures.get("trial"):
            raise ValueError(failure)
        method = self.plan.candidates[0].name
        spans_s = self.costs.learn(method, Run(settings.run_url).events, settings)
        # A resumed question finds the trial done, and the time that it took in LENGTHS.
        self.costs.overhead_s = self._kept("overhead_s", lambda: max(0.5, wall_s - spans_s))
        self._refuse_small_budget()

    def _refuse_small_budget(self) -> None:
        plan, method = self.plan, self.plan.candidates[0].name
        least_s = self.clock.spent_s
        if plan.source_length is not None and plan.has_source_stage:
            least_s += self.costs.seconds(method, {"source": plan.source_length.shortened(0.0)})
        least_s += sum(self.costs.seconds(each.name, self.lengths(each, 0.0)) for each in plan.candidates)
        needed_s = 1.25 * least_s  # rounds after the first, and the page
        if needed_s > plan.config.budget_s and "race" not in self._lengths:
            raise ValueError(
                f"--budget {span(plan.config.budget_s)} is too small for a race of {len(plan.candidates)} methods on "
                f"this machine; give at least --budget {span(needed_s)}"
            )

    def _teacher(self) -> str | None:
        """Train teacher and student on the source, as long as the budget allows; return the URL of that run."""
        plan = self.plan
        if plan.source_length is None or not plan.has_source_stage:
            self._look(plan.run)
            return None
        full, method = plan.source_length, plan.candidates[0].name
        most_s = SOURCE_SHARE * self.clock.left_s

        def longest() -> float:
            fraction = 1.0
            while fraction > full.least_fraction:
                if self.costs.seconds(method, {"source": full.shortened(fraction)}) <= most_s:
                    break
                fraction /= 1.25
            return fraction

        self.findings.source = full.shortened(self._kept("source", longest))
        task = self._source_task(self.findings.source)
        self._do([task], f"teacher on the source: {self.findings.source}")
        if failure := self.findings.failures.get(task.title):
            raise ValueError(failure)
        self.costs.learn(method, Run(task.url).events, task.settings)
        self._look(from_source(plan.run, task.url))
        return task.url

    def _source_task(self, length: Length) -> RunTask:
        plan = self.plan
        settings = plan.short(
            plan.candidates[0], plan.distill_length.steps(TRIAL_STEPS), length, name="source"
        )
        return RunTask(f"teacher, {length}", source_run(settings, join(plan.url, "runs")))

    def _look(self, run: Settings) -> None:
        """Compare the domains, and refuse a teacher that is no better than chance on the source."""
        say("comparing the domains by the teacher's view of their validation images")
        gap = self.findings.gap = measure_gap(run)
        if gap.on_source is None:
            return
        if gap.on_source <= self._most_by_chance(gap.num_source):
            url = run.teacher.checkpoint
            remedy = (
                "check that its classes are in the order of the data's, and that teacher.mean, teacher.std and "
                "teacher.image_px are its preprocessing"
                if url == self.plan.run.teacher.checkpoint
                else "its training on the source was too short or diverged: raise --budget, or lower "
                "source_stage.optim.lr"
            )
            raise ValueError(
                f"the teacher ({url}) has {gap.on_source:.1%} on the source's validation split, and chance is "
                f"{1 / self.plan.target.classes:.1%}; {remedy}"
            )

    def _race(self, teacher_url: str | None) -> None:
        plan = self.plan
        least = max(plan.distill_length.least_fraction, 1e-9)
        parallel = max(1, self._capacity)
        race = plan_race(
            plan.candidates,
            RACE_SHARE * self.clock.left_s * parallel,
            lambda each, fraction: self.costs.seconds(each.name, self.lengths(each, fraction)),
            least_fraction=least,
        )
        fractions: Sequence[float] = self._kept("race", lambda: list(race.fractions))
        running = list(plan.candidates)
        for number, fraction in enumerate(fractions):
            if number and fraction <= fractions[number - 1]:
                break  # the round before had the full length
            if number and not (self.is_blind and self._fits(running, fraction, parallel)):
                best = ranked(self.beliefs(), [each.name for each in running])
                keep = best[: sizes(len(plan.candidates))[number]]
                running = [each for each in running if each.name in keep]
            length = plan.distill_length.shortened(fraction)
            if not self._fits(running, fraction, parallel):
                self.findings.left_out.append(f"round {number + 1} of the race")
                break
            self._train(running, length, teacher_url, f"round {number + 1} of {len(fractions)}")
            running = [each for each in running if self.findings.of(each.name)]
            if not running:
                first = next(iter(self.findings.failures.items()), ("", "no run ended within the budget"))
                raise ValueError(f"no method runs: {first[0]}: {first[1]}")

    def _fits(self, candidates: Sequence[Candidate], fraction: float, parallel: int) -> bool:
        seconds = sum(self.costs.seconds(each.name, self.lengths(each, fraction)) for each in candidates)
        return seconds / parallel <= 1.1 * self.clock.left_s or self._all_done(candidates, fraction)

    def _all_done(self, candidates: Sequence[Candidate], fraction: float) -> bool:
        length = self.plan.distill_length.shortened(fraction)
        return all(RunTask("", self._settings_of(each, length)).is_done for each in candidates)

    @property
    def _capacity(self) -> int:
        assert self._executor is not None
        return self._executor.capacity

    def _settings(self, teacher_url: str | None) -> None:
        """Try other values of the best method's most telling keys."""
        best = self.best
        if best is None:
            return
        length = self.findings.of(best.name)[-1].length
        settings = self.plan.full(best).build(Settings)
        known = wanted = variants(best, settings)
        one_s = self.costs.seconds(best.name, self.lengths(best, length.fraction))
        room = int(0.6 * self.clock.left_s * max(1, self._capacity) / one_s) if one_s else len(wanted)
        done = [each for each in wanted if self._all_done([each], length.fraction)]
        wanted = list({each.name: each for each in [*done, *wanted[:room]]}.values())
        if len(wanted) < len(known):
            self.findings.left_out.append("some other settings of the best method")
        self._train(wanted, length, teacher_url, f"other settings of {best.title}")

    def _help(self, teacher_url: str | None) -> None:
        """Measure what labels, images and the teacher are worth, by leaving some out."""
        plan, best = self.plan, self.best
        if best is None:
            return
        base = self.findings.of(best.name)[-1]
        length, counts = base.length, plan.target
        asked: list[tuple[str, Length, dict[str, Any]]] = []
        if plan.regime != Regime.NONE and counts.largest > 1:
            half = max(1, (plan.run.target.labels_per_class or counts.largest) // 2)
            asked.append(("half of the labels", length, {"target.labels_per_class": half}))
        if length.images >= 4 * plan.distill_length.batch:
            fewer = Length(2 * length.epochs, length.images // 2, length.fraction)
            asked.append(("half of the images", fewer, {}))
        for what, with_length, changes in asked:
            settings = self._settings_of(best, with_length, teacher_url, changes, tag=what)
            if RunTask("", settings).is_done or self._has_room(best, length):
                self._measure_effect(what, base, settings)
            else:
                self.findings.left_out.append(what)
        if teacher_url is None or self.findings.source is None:
            return
        what, shorter = "half of the teacher's training", plan.source_length
        assert shorter is not None
        source = shorter.shortened(self.findings.source.fraction / 2)
        task = self._source_task(source)
        settings = self._settings_of(best, length, task.url, tag=what)
        seconds = self.costs.seconds(best.name, {"source": source})
        is_shorter = source.shown < self.findings.source.shown
        if RunTask("", settings).is_done or (is_shorter and self._has_room(best, length, seconds)):
            self._do([task], "teacher with half of its training")
            if task.title not in self.findings.failures:
                self._measure_effect(what, base, settings)
        else:
            self.findings.left_out.append(what)

    def _has_room(self, candidate: Candidate, length: Length, more_s: float = 0.0) -> bool:
        return (
            self.costs.seconds(candidate.name, self.lengths(candidate, length.fraction)) + more_s
            <= self.clock.left_s
        )

    def _measure_effect(self, what: str, base: Trained, settings: Settings) -> None:
        task = RunTask(f"{base.candidate.title}, {what}", settings)
        self._do([task], what)
        if task.title in self.findings.failures or (seen := self._observed(settings, base.length)) is None:
            return
        difference = 100 * (seen.accuracy - base.seen.accuracy)
        sd = math.sqrt(1 - PAIRED) * 100 * math.hypot(seen.sd, base.seen.sd)
        self.findings.effects.append(Effect(what, difference, math.hypot(sd, 1.0)))

    def _train(
        self, candidates: Sequence[Candidate], length: Length, teacher_url: str | None, title: str
    ) -> None:
        """Train candidates at one length, and read what they reach."""
        tasks = {
            each.name: RunTask(f"{each.title}, {length}", self._settings_of(each, length, teacher_url))
            for each in candidates
        }
        pending = [task.url for task in tasks.values() if not task.is_done]
        began_s, trained_s = time.monotonic(), 0.0
        self._do(list(tasks.values()), f"{title}: {length}")
        wall_s = time.monotonic() - began_s
        for each in candidates:
            task = tasks[each.name]
            if task.title in self.findings.failures:
                continue
            seen = self._observed(task.settings, length)
            if seen is not None:
                spans_s = self.costs.learn(each.name, Run(task.url).events, task.settings)
                trained_s += spans_s if task.url in pending else 0.0
                self.findings.trained.append(Trained(each, length, seen, task.url))
        if pending and self._capacity == 1:  # the trial's also has the imports of the first run
            overhead_s = max(0.1, (wall_s - trained_s) / len(pending))
            self.costs.overhead_s = min(self.costs.overhead_s, overhead_s)

    def _settings_of(
        self,
        candidate: Candidate,
        length: Length,
        teacher_url: str | None = None,
        changes: dict[str, Any] | None = None,
        tag: str = "",
    ) -> Settings:
        plan = self.plan
        name = re.sub(r"[^A-Za-z0-9]+", "-", f"{candidate.name}-{length.epochs}x{length.images} {tag}").strip(
            "-"
        )
        if plan.target.val_labels == 0:
            changes = {
                "target.test_images": ESTIMATED_ON,
                "source.test_images": ESTIMATED_ON,
                **(changes or {}),
            }
            if plan.source is None:
                del changes["source.test_images"]
        settings = plan.short(candidate, length, self.findings.source, name=name, changes=changes)
        return settings if teacher_url is None else from_source(settings, teacher_url)

    def _observed(self, settings: Settings, length: Length) -> Observation | None:
        """Return what a run has reached; None without a number."""
        run = Run(settings.run_url)
        summary, epochs = run.summary, run.epochs("distill")
        if summary is None:
            return None
        if summary.selected_by in LABEL_FREE:
            student = next(line for line in summary.lines if line.network == Network.STUDENT.display_name)
            if student.estimate is None:
                return None
            width = (student.estimate.high - student.estimate.low) / (2 * 1.96)
            return Observation(student.estimate.value, max(width, LEAST_SD), length.fraction)
        value, num = summary.validation_accuracy, epochs[-1].num_evaluated if epochs else 0
        if value is None or not num:
            return None
        return Observation.counted(value, num, length.fraction)

    def _do(self, tasks: Sequence[RunTask], title: str) -> None:
        """Run what is not done, and note what fails."""
        pending = [task for task in tasks if not task.is_done]
        if not pending:
            return
        say(f"[{span(self.clock.spent_s)} of {span(self.plan.config.budget_s)}] {title}")

        def ended(result: TaskResult) -> None:
            self.clock.write()
            failure = result.outcome.failure
            if failure is None:
                self.findings.failures.pop(result.task.title, None)
                remove_checkpoints([result.task.url])
            else:
                self.findings.failures[result.task.title] = failure
                say(f"{result.task.title}: {failure}")

        executor = self._executor
        assert executor is not None

        def check_time() -> None:
            if self.clock.left_s <= 0:
                executor.end(GRACE_S)
                raise BudgetOverError

        run_tasks(pending, executor, ended, poll_s=POLL_S, every=check_time)

    def _kept(self, key: str, choose: Callable[[], Any]) -> Any:
        """Return a length that was chosen before, or choose it and keep it."""
        if key not in self._lengths:
            self._lengths[key] = choose()
            self._folder.write_json(LENGTHS, self._lengths)
        return self._lengths[key]
