"""The answer: which method and settings, the expected accuracy, its cost, the runner-up, and what would help more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fourds_dist.config.loading import Draft, to_yaml
from fourds_dist.experiments.advise.advisor import Advisor
from fourds_dist.experiments.advise.candidates import Candidate
from fourds_dist.experiments.advise.clock import span
from fourds_dist.experiments.advise.domains import DomainCounts, DomainGap
from fourds_dist.experiments.advise.findings import Effect, Trained
from fourds_dist.experiments.advise.forecast import CONFIDENCE, forecast
from fourds_dist.experiments.advise.help import PAIRED
from fourds_dist.experiments.advise.plan import AdvisePlan
from fourds_dist.experiments.advise.race import Belief, ranked
from fourds_dist.runs.estimate import Estimate

CLEAR = 1.0
"""Standard errors of a difference above which other settings replace the method's own."""


CLEAR_LOSS = 1.5
"""Standard errors above which a loss by leaving something out is named."""


@dataclass(frozen=True)
class Ranking:
    """A method of the race.

    Args:
        accuracies: (fraction of the full length, accuracy on the validation split), the shortest training first.
        belief: its expected accuracy at full length minus the mean of all methods.
        hours: predicted device hours at full length.
    """

    name: str
    title: str
    accuracies: tuple[tuple[float, float], ...]
    belief: Belief
    hours: float


@dataclass(frozen=True)
class Advice:
    """The answer to a question.

    Args:
        best: the recommended method; `ranking` begins with it.
        settings: its settings, as the part of a sentence: "as they are", or those that won.
        expected: accuracy on the target at full length; None: nothing was measured.
        is_estimated: accuracies are estimates without labels.
        is_blind: no training of any method was above chance.
        chance: accuracy of guessing.
        ahead: probability that `best` is not below the runner-up.
        hours: device hours of the recommended run.
        price: price of a device hour; None: not given.
    """

    best: str
    settings: str
    expected: Estimate | None
    is_estimated: bool
    is_blind: bool
    chance: float
    ranking: tuple[Ranking, ...]
    tried: tuple[tuple[str, float, float], ...]
    """(other settings of the best method, points above its own, standard deviation)."""
    ahead: float
    hours: float
    price: float | None
    effects: tuple[Effect, ...]
    gap: DomainGap | None
    source: DomainCounts | None
    target: DomainCounts
    left_out: tuple[str, ...]
    failures: dict[str, str]
    spent_s: float
    budget_s: float
    device: str

    @property
    def runner_up(self) -> Ranking | None:
        """The second method; None if one method ran."""
        return self.ranking[1] if len(self.ranking) > 1 else None

    @property
    def cost(self) -> float | None:
        """Price of the recommended run."""
        return None if self.price is None else self.price * self.hours

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """Return the answer in a few sentences."""
        best = self.ranking[0]
        if self.is_blind:
            return [
                f"No method is above chance ({self.chance:.1%}) after {best.accuracies[-1][0]:.0%} of the full length: "
                f"the trainings were too short to tell methods apart. Give more than --budget {span(self.budget_s)}. "
                f"{best.title} is the method of our own tables for these labels."
            ]
        of_what = "estimated without labels, " if self.is_estimated else ""
        found = [f"Use {best.title}{'' if self.settings == 'as they are' else f' with {self.settings}'}."]
        if self.expected is not None:
            found.append(
                f"Expected accuracy on the target at full length: {of_what}{self.expected.value:.1%} "
                f"({CONFIDENCE:.0%} interval {self.expected.low:.1%} to {self.expected.high:.1%}; chance "
                f"{self.chance:.1%})."
            )
        found.append(f"Training takes about {time_text(self.hours)} of {self.device}{self._at_price()}.")
        if self.runner_up is not None:
            found.append(
                f"Runner-up: {self.runner_up.title}, {abs(self._behind()):.1f} points "
                f"{'below' if self._behind() >= 0 else 'above'}; {best.title} is at least as accurate with a "
                f"probability of {self.ahead:.0%}."
            )
        return [*found, self.help_sentence()]

    def help_sentence(self) -> str:
        """Return what would help more, in one sentence."""
        losses = sorted(self.effects, key=lambda effect: effect.points)
        clear = [effect for effect in losses if effect.points < -CLEAR_LOSS * effect.sd]
        if not self.effects:
            return "What would help more was not measured: the budget had no time for it."
        if not clear:
            names = ", ".join(effect.what for effect in losses)
            return f"Nothing that was left out ({names}) changes the accuracy clearly at this length."
        more = {"half of the labels": "more labels", "half of the images": "more images"}
        parts = [f"with {effect.what} the student loses {-effect.points:.1f} points" for effect in clear]
        first = more.get(clear[0].what, "a better teacher")
        return f"What would help most: {first} ({'; '.join(parts)})."

    def _behind(self) -> float:
        return self.ranking[0].belief.points - self.ranking[1].belief.points

    def _at_price(self) -> str:
        return "" if self.cost is None else f", {self.cost:.2f} at {self.price:g} an hour"


def advice_of(advisor: Advisor, device: str) -> Advice:
    """Return the answer that an advisor's findings give.

    Raises:
        ValueError: the budget ended before any method was trained.
    """
    plan, findings = advisor.plan, advisor.findings
    best = advisor.best
    if best is None:
        raise ValueError(
            f"--budget {span(plan.config.budget_s)} is too small: it ended before any method was trained; repeat the "
            "command with a larger one, which resumes"
        )
    found = advisor.beliefs()
    names = ranked(found, list(found))
    by_name = {each.name: each for each in plan.candidates}
    ranking = tuple(_ranking(advisor, by_name[name], found[name]) for name in names)
    own = findings.of(best.name)
    tried = _tried(findings.trained, own[-1])
    settings = best if not tried or tried[0][1] <= CLEAR * tried[0][2] else tried[0][3]
    ahead = 1.0
    if len(names) > 1:
        first, second = found[names[0]], found[names[1]]
        ahead = 0.5 * (
            1 + math.erf((first.points - second.points) / math.hypot(first.sd, second.sd) / math.sqrt(2))
        )
    is_estimated = plan.target.val_labels == 0
    return Advice(
        best.name,
        "as they are" if settings is best else settings.name.partition(", ")[2],
        forecast([each.seen for each in own]),
        is_estimated,
        advisor.is_blind,
        1 / plan.target.classes,
        ranking,
        tuple((candidate.name.partition(", ")[2], points, sd) for _, points, sd, candidate in tried),
        ahead,
        advisor.trainings.full_seconds(best) / 3600,
        plan.config.price,
        tuple(findings.effects),
        findings.gap,
        plan.source,
        plan.target,
        tuple(findings.left_out),
        dict(findings.failures),
        advisor.clock.spent_s,
        plan.config.budget_s,
        device,
    )


def advised_yaml(plan: AdvisePlan, advice: Advice, settings: Candidate) -> str:
    """Return the recommended run as a file for `fourds train`."""
    draft: Draft = plan.full(settings)
    name = f"{plan.config.name}-advised"
    draft = draft.changed(
        {"run.name": name, "prepare": None} if plan.run.prepare else {"run.name": name}, "advice"
    )
    head = "".join(f"# {line}\n" for line in advice.sentences())
    return f"# Written by fourds advise from {plan.url}.\n{head}{to_yaml(draft.tree)}"


def chosen_candidate(advisor: Advisor, advice: Advice) -> Candidate:
    """Return the recommended method with the recommended settings."""
    name = advice.best if advice.settings == "as they are" else f"{advice.best}, {advice.settings}"
    return next(
        each
        for each in [*advisor.plan.candidates, *(t.candidate for t in advisor.findings.trained)]
        if each.name == name
    )


def _ranking(advisor: Advisor, candidate: Candidate, belief: Belief) -> Ranking:
    accuracies = tuple((t.seen.fraction, t.seen.accuracy) for t in advisor.findings.of(candidate.name))
    return Ranking(
        candidate.name, candidate.title, accuracies, belief, advisor.trainings.full_seconds(candidate) / 3600
    )


def _tried(trained: Sequence[Trained], own: Trained) -> list[tuple[str, float, float, Candidate]]:
    """Return (name, points above the method's own settings, standard deviation, candidate), the best first."""
    found = []
    for each in trained:
        if each.candidate.of == own.candidate.name and each.length == own.length:
            points = 100 * (each.seen.accuracy - own.seen.accuracy)
            sd = 100 * math.sqrt(1 - PAIRED) * math.hypot(each.seen.sd, own.seen.sd)
            found.append((each.candidate.name, points, math.hypot(sd, 1.0), each.candidate))
    return sorted(found, key=lambda row: -row[1])


def time_text(hours: float) -> str:
    """Return a number of hours in words.

    >>> time_text(0.01), time_text(0.5), time_text(30.0)
    ('36 seconds', '30 minutes', '30.0 hours')
    """
    if hours < 1 / 60:
        return f"{3600 * hours:.0f} seconds"
    return f"{60 * hours:.0f} minutes" if hours < 2 else f"{hours:.1f} hours"
