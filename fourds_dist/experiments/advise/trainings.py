"""The trainings of a question, within its budget: each is an ordinary run in a folder of its own under `runs`.

The folder shows whether a run is done, so the same command resumes what is not. Lengths that were chosen by the speed
of the first runs are kept, so resumed runs are the same.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fourds_dist.config.stage_names import StageName
from fourds_dist.experiments.advise.candidates import Candidate
from fourds_dist.experiments.advise.clock import BudgetClock, span
from fourds_dist.experiments.advise.costs import Costs
from fourds_dist.experiments.advise.findings import Findings, Trained
from fourds_dist.experiments.advise.lengths import Length
from fourds_dist.experiments.advise.observation import Observation
from fourds_dist.experiments.advise.plan import LENGTHS, AdvisePlan
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
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.stages import from_source

TRIAL_STEPS = 6
"""Steps of each stage of the trial."""
LEAST_SD = 0.08
"""Smallest standard deviation of an accuracy that is estimated without labels, for comparisons of methods."""
ESTIMATED_ON = 512
"""Test images, without their labels, for these estimates."""
POLL_S = 0.5
"""Seconds between two looks at the clock while runs are executed elsewhere."""


class BudgetOverError(Exception):
    """The time for trainings is over."""


class Trainings:
    """Runs trainings and keeps what they show.

    Args:
        costs: what trainings take.
        findings: what trainings have shown.
        teacher_url: folder of the run that trained the teacher; None until then, and with a teacher that is given.
    """

    def __init__(self, plan: AdvisePlan, clock: BudgetClock) -> None:
        self.plan, self.clock = plan, clock
        self.costs, self.findings = Costs(), Findings()
        self.teacher_url: str | None = None
        self._folder = RunFolder(plan.url)
        self._lengths: dict[str, Any] = (
            self._folder.read_json(LENGTHS) if self._folder.exists(LENGTHS) else {}
        )
        self._executor: Executor | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start what runs the trainings, and end it."""
        config = self.plan.config
        with (
            self.clock.running(),
            open_executor(
                config.through, self.trial_settings(), config.gpus, until_s=self.clock.end_s, is_quiet=True
            ) as self._executor,
        ):
            yield

    @property
    def capacity(self) -> int:
        """Trainings at once."""
        assert self._executor is not None
        return max(1, self._executor.capacity)

    def lengths(self, candidate: Candidate, fraction: float) -> dict[StageName, Length]:
        """Return the lengths of the stages of a candidate on the target, at a fraction of the full ones."""
        plan = self.plan
        found: dict[StageName, Length] = {}
        if plan.adapts(candidate):
            found["adapt"] = plan.adapt_length.shortened(fraction)
        found["distill"] = plan.distill_length.shortened(fraction)
        return found

    def seconds(self, candidate: Candidate, fraction: float) -> float:
        """Return the predicted seconds of a run of a candidate on the target, at a fraction of the full length."""
        return self.costs.seconds(candidate.name, self.lengths(candidate, fraction))

    def full_seconds(self, candidate: Candidate) -> float:
        """Return the predicted seconds of a run at full length, with its source stage."""
        lengths = self.lengths(candidate, 1.0)
        full = self.plan.source_length
        if full is not None and self.plan.has_source_stage:
            return self.costs.training_s(candidate.name, {"source": full.shortened(1.0), **lengths})
        return self.costs.training_s(candidate.name, lengths)

    def fit(self, candidates: Sequence[Candidate], fraction: float) -> bool:
        """Return whether trainings of candidates fit in the time that is left, or are done."""
        seconds = sum(self.seconds(each, fraction) for each in candidates)
        return seconds / self.capacity <= 1.1 * self.clock.left_s or self.are_done(candidates, fraction)

    def are_done(self, candidates: Sequence[Candidate], fraction: float) -> bool:
        """Return whether the trainings of candidates at a fraction of the full length are done."""
        length = self.plan.distill_length.shortened(fraction)
        return all(RunTask("", self.settings_of(each, length)).is_done for each in candidates)

    def trial_settings(self) -> Settings:
        """Return a run of a few steps in each stage, of the first method."""
        plan = self.plan
        source = plan.source_length and plan.source_length.steps(TRIAL_STEPS)
        return plan.short(plan.candidates[0], plan.distill_length.steps(TRIAL_STEPS), source, name="trial")

    def source_task(self, length: Length) -> RunTask:
        """Return the training of teacher and student on the source."""
        plan = self.plan
        settings = plan.short(
            plan.candidates[0], plan.distill_length.steps(TRIAL_STEPS), length, name="source"
        )
        return RunTask(f"teacher, {length}", source_run(settings, join(plan.url, "runs")))

    def settings_of(
        self,
        candidate: Candidate,
        length: Length,
        *,
        teacher_url: str | None = None,
        changes: Mapping[str, Any] | None = None,
        tag: str = "",
    ) -> Settings:
        """Return the run of a candidate with a shortened training.

        Args:
            teacher_url: folder of the run that trained the teacher; None: that of all trainings.
            changes: further keys, such as fewer labels.
            tag: what changes, for the name of the run.
        """
        plan = self.plan
        words = f"{candidate.name}-{length.epochs}x{length.images} {tag}"
        more = dict(changes or {})
        if plan.target.val_labels == 0:
            domains = ("target",) if plan.source is None else ("source", "target")
            more = {f"{domain}.test_images": ESTIMATED_ON for domain in domains} | more
        settings = plan.short(
            candidate,
            length,
            self.findings.source,
            name=re.sub(r"[^A-Za-z0-9]+", "-", words).strip("-"),
            changes=more,
        )
        url = teacher_url or self.teacher_url
        return settings if url is None else from_source(settings, url)

    def train(self, candidates: Sequence[Candidate], length: Length, title: str) -> None:
        """Train candidates at one length, and read what they reach."""
        tasks = {
            each.name: RunTask(f"{each.title}, {length}", self.settings_of(each, length))
            for each in candidates
        }
        pending = [task.url for task in tasks.values() if not task.is_done]
        began_s, trained_s = time.monotonic(), 0.0
        self.do(list(tasks.values()), f"{title}: {length}")
        wall_s = time.monotonic() - began_s
        for each in candidates:
            task = tasks[each.name]
            if task.title in self.findings.failures:
                continue
            seen = observed(task.settings, length)
            if seen is not None:
                spans_s = self.costs.learn(each.name, Run(task.url).events, task.settings)
                trained_s += spans_s if task.url in pending else 0.0
                self.findings.trained.append(Trained(each, length, seen, task.url))
        if pending and self.capacity == 1:  # the trial's also has the imports of the first run
            overhead_s = max(0.1, (wall_s - trained_s) / len(pending))
            self.costs.overhead_s = min(self.costs.overhead_s, overhead_s)

    def do(self, tasks: Sequence[RunTask], title: str) -> None:
        """Run what is not done, and note what fails.

        Raises:
            BudgetOverError: the time for trainings is over.
        """
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

    def has_kept(self, key: str) -> bool:
        """Return whether a length was chosen before."""
        return key in self._lengths

    def kept(self, key: str, choose: Callable[[], Any]) -> Any:
        """Return a length that was chosen before, or choose it and keep it."""
        if key not in self._lengths:
            self._lengths[key] = choose()
            self._folder.write_json(LENGTHS, self._lengths)
        return self._lengths[key]


def observed(settings: Settings, length: Length) -> Observation | None:
    """Return what a finished run has reached on the validation split; None without a number."""
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
