"""The order of a question: a trial, a teacher, a race of methods, other settings of the best, and what would help."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from fourds_dist.experiments.advise.candidates import Candidate
from fourds_dist.experiments.advise.clock import BudgetClock, span
from fourds_dist.experiments.advise.domains import measure_gap
from fourds_dist.experiments.advise.findings import Findings
from fourds_dist.experiments.advise.help import measure_help, try_settings
from fourds_dist.experiments.advise.plan import AdvisePlan
from fourds_dist.experiments.advise.race import Belief, beliefs, plan_race, ranked, sizes
from fourds_dist.experiments.advise.trainings import BudgetOverError, Trainings
from fourds_dist.experiments.executor.base import RunTask
from fourds_dist.io.terminal import say
from fourds_dist.stages.finished_run import Run
from fourds_dist.stages.network_inputs import with_network_inputs
from fourds_dist.stages.preflight import check
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.stages import from_source

SOURCE_SHARE = 0.4
"""Largest share of the budget for the source stage, if it has to be shortened."""
RACE_SHARE = 0.75
"""Share of the rest for the race; other settings and what would help take what it leaves."""
TRIAL_PARTS = 1.25
"""Smallest budget, as a multiple of the shortest first round: rounds after the first, and the page."""


class Advisor:
    """Runs what a plan asks for, within its budget."""

    def __init__(self, plan: AdvisePlan, clock: BudgetClock) -> None:
        self.plan, self.clock = plan, clock
        self.trainings = Trainings(plan, clock)

    @property
    def findings(self) -> Findings:
        """What the trainings have shown."""
        return self.trainings.findings

    def run(self) -> None:
        """Run until the answer or the end of the budget.

        Raises:
            ValueError: the budget is too small for a race, the teacher is no better than chance, or no method runs.
        """
        check(with_network_inputs(self.trainings.trial_settings()))
        try:
            with self.trainings.running():
                self._trial()
                self._teacher()
                self._race()
                if not self.is_blind and (best := self.best) is not None:
                    try_settings(self.trainings, best)
                    measure_help(self.trainings, best)
        except BudgetOverError:
            self.findings.left_out.append("the last run, which the end of the budget stopped")

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

    def _trial(self) -> None:
        """Measure the cost of the stages; refuse a budget that is too small."""
        costs = self.trainings.costs
        settings = self.trainings.trial_settings()
        began_s = time.monotonic()
        self.trainings.do([RunTask("trial", settings)], "trial: a few steps of each stage")
        wall_s = time.monotonic() - began_s
        if failure := self.findings.failures.get("trial"):
            raise ValueError(failure)
        spans_s = costs.learn(self.plan.candidates[0].name, Run(settings.run_url).events, settings)
        # A resumed question finds the trial done, and the time that it took among the lengths.
        costs.overhead_s = self.trainings.kept("overhead_s", lambda: max(0.5, wall_s - spans_s))
        self._refuse_small_budget()

    def _refuse_small_budget(self) -> None:
        plan, trainings = self.plan, self.trainings
        least_s = self.clock.spent_s
        if plan.source_length is not None and plan.has_source_stage:
            shortest = plan.source_length.shortened(0.0)
            least_s += trainings.costs.seconds(plan.candidates[0].name, {"source": shortest})
        least_s += sum(trainings.seconds(each, 0.0) for each in plan.candidates)
        needed_s = TRIAL_PARTS * least_s
        if needed_s > plan.config.budget_s and not trainings.has_kept("race"):
            raise ValueError(
                f"--budget {span(plan.config.budget_s)} is too small for a race of {len(plan.candidates)} methods on "
                f"this machine; give at least --budget {span(needed_s)}"
            )

    def _teacher(self) -> None:
        """Train teacher and student on the source, as long as the budget allows, and compare the domains."""
        plan, trainings = self.plan, self.trainings
        if plan.source_length is None or not plan.has_source_stage:
            self._compare_domains(plan.run)
            return
        full, method = plan.source_length, plan.candidates[0].name
        most_s = SOURCE_SHARE * self.clock.left_s

        def longest() -> float:
            fraction = 1.0
            while fraction > full.least_fraction:
                if trainings.costs.seconds(method, {"source": full.shortened(fraction)}) <= most_s:
                    break
                fraction /= 1.25
            return fraction

        length = self.findings.source = full.shortened(trainings.kept("source", longest))
        task = trainings.source_task(length)
        trainings.do([task], f"teacher on the source: {length}")
        if failure := self.findings.failures.get(task.title):
            raise ValueError(failure)
        trainings.costs.learn(method, Run(task.url).events, task.settings)
        self._compare_domains(from_source(plan.run, task.url))
        trainings.teacher_url = task.url

    def _compare_domains(self, run: Settings) -> None:
        """Measure how far apart the domains are, and refuse a teacher that is no better than chance on the source."""
        say("comparing the domains by the teacher's view of their validation images")
        gap = self.findings.gap = measure_gap(run)
        if gap.on_source is None or gap.on_source > self._most_by_chance(gap.num_source):
            return
        url = run.teacher.checkpoint
        remedy = (
            "check that its classes are in the order of the data's, and that teacher.mean, teacher.std and "
            "teacher.image_px are its preprocessing"
            if url == self.plan.run.teacher.checkpoint
            else "its training on the source was too short or diverged: raise --budget, or lower source_stage.optim.lr"
        )
        raise ValueError(
            f"the teacher ({url}) has {gap.on_source:.1%} on the source's validation split, and chance is "
            f"{1 / self.plan.target.classes:.1%}; {remedy}"
        )

    def _race(self) -> None:
        """Train all methods, then the better half for longer, until two are left or the time for the race is over."""
        plan, trainings = self.plan, self.trainings
        race = plan_race(
            plan.candidates,
            RACE_SHARE * self.clock.left_s * trainings.capacity,
            trainings.seconds,
            least_fraction=max(plan.distill_length.least_fraction, 1e-9),
        )
        fractions: Sequence[float] = trainings.kept("race", lambda: list(race.fractions))
        running = list(plan.candidates)
        for number, fraction in enumerate(fractions):
            if number and fraction <= fractions[number - 1]:
                break  # the round before had the full length
            if number and not (self.is_blind and trainings.fit(running, fraction)):
                best = ranked(self.beliefs(), [each.name for each in running])
                keep = best[: sizes(len(plan.candidates))[number]]
                running = [each for each in running if each.name in keep]
            if not trainings.fit(running, fraction):
                self.findings.left_out.append(f"round {number + 1} of the race")
                break
            length = plan.distill_length.shortened(fraction)
            trainings.train(running, length, f"round {number + 1} of {len(fractions)}")
            running = [each for each in running if self.findings.of(each.name)]
            if not running:
                first = next(iter(self.findings.failures.items()), ("", "no run ended within the budget"))
                raise ValueError(f"no method runs: {first[0]}: {first[1]}")
