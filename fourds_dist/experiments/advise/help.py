"""What would help: other settings of the best method, and what labels, images and the teacher are worth.

Labels, images and the teacher's training are measured by leaving half of them out.
"""

from __future__ import annotations

import math
from typing import Any

from fourds_dist.experiments.advise.candidates import Candidate, Regime, variants
from fourds_dist.experiments.advise.findings import Effect, Trained
from fourds_dist.experiments.advise.lengths import Length
from fourds_dist.experiments.advise.trainings import Trainings, observed
from fourds_dist.experiments.executor.base import RunTask
from fourds_dist.stages.settings import Settings

PAIRED = 0.5
"""Correlation of the errors of two networks over the same validation images."""
SETTINGS_SHARE = 0.6
"""Share of the time that the race leaves for other settings; what would help takes the rest."""
LEAST_EFFECT_SD = 1.0
"""Smallest standard deviation of an effect, in points: that of another seed."""


def try_settings(trainings: Trainings, best: Candidate) -> None:
    """Train the best method with other values of its two or three most telling keys."""
    length = trainings.findings.of(best.name)[-1].length
    known = variants(best, trainings.plan.full(best).build(Settings))
    one_s = trainings.seconds(best, length.fraction)
    left_s = SETTINGS_SHARE * trainings.clock.left_s * trainings.capacity
    room = int(left_s / one_s) if one_s else len(known)
    done = [each for each in known if trainings.are_done([each], length.fraction)]
    wanted = list({each.name: each for each in [*done, *known[:room]]}.values())
    if len(wanted) < len(known):
        trainings.findings.left_out.append("some other settings of the best method")
    trainings.train(wanted, length, f"other settings of {best.title}")


def measure_help(trainings: Trainings, best: Candidate) -> None:
    """Train the best method with half of the labels, half of the images, and a teacher of half the training."""
    plan = trainings.plan
    base = trainings.findings.of(best.name)[-1]
    length, counts = base.length, plan.target
    asked: list[tuple[str, Length, dict[str, Any]]] = []
    if plan.regime != Regime.NONE and counts.largest > 1:
        half = max(1, (plan.run.target.labels_per_class or counts.largest) // 2)
        asked.append(("half of the labels", length, {"target.labels_per_class": half}))
    if length.images >= 4 * plan.distill_length.batch:
        fewer = Length(2 * length.epochs, length.images // 2, length.fraction)
        asked.append(("half of the images", fewer, {}))
    for what, with_length, changes in asked:
        settings = trainings.settings_of(best, with_length, changes=changes, tag=what)
        if RunTask("", settings).is_done or _has_room(trainings, base):
            _measure(trainings, what, base, settings)
        else:
            trainings.findings.left_out.append(what)
    _measure_teacher(trainings, base)


def _measure_teacher(trainings: Trainings, base: Trained) -> None:
    full, had = trainings.plan.source_length, trainings.findings.source
    if trainings.teacher_url is None or full is None or had is None:
        return
    what, half = "half of the teacher's training", full.shortened(had.fraction / 2)
    task = trainings.source_task(half)
    settings = trainings.settings_of(base.candidate, base.length, teacher_url=task.url, tag=what)
    seconds = trainings.costs.seconds(base.candidate.name, {"source": half})
    has_room = half.shown < had.shown and _has_room(trainings, base, seconds)
    if not (RunTask("", settings).is_done or has_room):
        trainings.findings.left_out.append(what)
        return
    trainings.do([task], "teacher with half of its training")
    if task.title not in trainings.findings.failures:
        _measure(trainings, what, base, settings)


def _has_room(trainings: Trainings, base: Trained, more_s: float = 0.0) -> bool:
    return trainings.seconds(base.candidate, base.length.fraction) + more_s <= trainings.clock.left_s


def _measure(trainings: Trainings, what: str, base: Trained, settings: Settings) -> None:
    """Run a training with something left out, and note its accuracy less that of the training with all."""
    task = RunTask(f"{base.candidate.title}, {what}", settings)
    trainings.do([task], what)
    if task.title in trainings.findings.failures or (seen := observed(settings, base.length)) is None:
        return
    difference = 100 * (seen.accuracy - base.seen.accuracy)
    sd = math.sqrt(1 - PAIRED) * 100 * math.hypot(seen.sd, base.seen.sd)
    trainings.findings.effects.append(Effect(what, difference, math.hypot(sd, LEAST_EFFECT_SD)))
