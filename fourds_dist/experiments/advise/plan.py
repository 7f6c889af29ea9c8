"""What advice is asked for: the run, its regime of labels, the methods, and the settings of shortened runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from fourds_dist.config.loading import Draft, parsed, to_yaml
from fourds_dist.config.section import ConfigError, ConfigSection
from fourds_dist.config.trees import flatten
from fourds_dist.experiments.advise.candidates import Candidate, Regime, candidates
from fourds_dist.experiments.advise.domains import DomainCounts, count
from fourds_dist.experiments.advise.lengths import FullLength, Length
from fourds_dist.experiments.base_run import of_one_student
from fourds_dist.experiments.executor import Through
from fourds_dist.io.storage import join, translate_storage_errors
from fourds_dist.launch.chosen import with_images
from fourds_dist.launch.run import settings_of
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.settings import Settings, with_absolute_paths
from fourds_dist.stages.stages import stages_to_run

FILE, SPENT, LENGTHS, ADVICE, ADVISED = (
    "advise.yaml",
    "spent.json",
    "lengths.json",
    "advice.json",
    "advised.yaml",
)
MOST_VAL_IMAGES = 1000
"""Validation images of each domain in the runs of a race: a standard error of at most 1.6 points."""
TEST_IMAGES = 64
"""Test images of these runs, whose accuracies on the test split are not used."""
MOST_LOG_STEPS = 10
"""Steps of these runs between two looks at the clock."""
LEAST_TRAIN, LEAST_VAL = 20, 10
"""Smallest numbers of training and of validation images of a domain."""


class AdviseConfig(ConfigSection):
    """The question."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the folder under run.dir."""

    budget_s: float = Field(default=1800.0, gt=0)
    """Seconds from the packed data to the advice."""

    gpus: int | None = Field(default=None, ge=1)
    """Runs at once, each on a GPU; null: as many as there is room for."""

    price: float | None = Field(default=None, ge=0)
    """Price of an hour of a device."""

    through: Through = "here"
    """Executor of the runs."""

    methods: dict[str, dict[str, Any]] | None = None
    """Name -> keys of the run; null: this package's methods for the labels that are there."""


@dataclass(frozen=True)
class AdvisePlan:
    """A question about a run.

    Args:
        base: the run, as given and as chosen by its images, with absolute paths.
    """

    config: AdviseConfig
    base: Draft

    @cached_property
    def run(self) -> Settings:
        """The run at full length."""
        return of_one_student(self.base)

    @property
    def url(self) -> str:
        """Path or URL of the folder of the advice."""
        return join(self.run.run.dir, self.config.name)

    @cached_property
    def target(self) -> DomainCounts:
        """The images of the target."""
        return count(self.run.target, self.run.run.seed)

    @cached_property
    def source(self) -> DomainCounts | None:
        """The images of the source; None without a source."""
        return None if self.run.source.url is None else count(self.run.source, self.run.run.seed)

    @property
    def knows_classes(self) -> bool:
        """Whether the student starts from weights of the source's classes."""
        return self.run.student.start == "source"

    @cached_property
    def candidates(self) -> list[Candidate]:
        """The methods of the race."""
        return candidates(self.regime, knows_classes=self.knows_classes, methods=self.config.methods)

    @property
    def regime(self) -> Regime:
        """Which labels of the target are given."""
        return self.target.regime

    @property
    def distill_length(self) -> FullLength:
        """The full length of distillation."""
        stage = self.run.distill_stage
        return FullLength(stage.epochs, self.target.train, stage.global_batch_size)

    @property
    def adapt_length(self) -> FullLength:
        """The full length of adaptation in two-stage methods."""
        stage = self.run.adapt_stage
        epochs = stage.epochs if self._gives("adapt_stage.epochs") else self.run.distill_stage.epochs
        batch = (
            stage.global_batch_size
            if self._gives("adapt_stage.global_batch_size")
            else self.distill_length.batch
        )
        return FullLength(epochs, self.target.train, batch)

    @property
    def source_length(self) -> FullLength | None:
        """The full length of the source stage; None without a source."""
        stage = self.run.source_stage
        return self.source and FullLength(stage.epochs, self.source.train, stage.global_batch_size)

    @cached_property
    def has_source_stage(self) -> bool:
        """Whether the teacher or the student is trained on the source first."""
        return self.source is not None and "source" in stages_to_run(self.run)

    def adapts(self, candidate: Candidate) -> bool:
        """Return whether a candidate adapts the teacher before distillation."""
        return candidate.changes.get("adapt.method", self.run.adapt.method) != "none"

    def full(self, candidate: Candidate) -> Draft:
        """Return the run of a candidate at full length, as given."""
        return self.base.changed(self._adaptation(candidate) | dict(candidate.changes), candidate.name)

    def short(
        self,
        candidate: Candidate,
        length: Length,
        source: Length | None,
        *,
        name: str,
        changes: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> Settings:
        """Return a shortened run of a candidate, with a source stage of its own.

        Args:
            changes: further keys, such as fewer labels.
        """
        run = self.run
        own: dict[str, Any] = {
            "prepare": None,
            "run.name": name,
            "run.dir": join(self.url, "runs"),
            "run.until": "distill",
            "tracking.group": self.config.name,
            "launch.runner": "inline",
            "launch.workers": 1,
            "step.log_every_steps": min(run.step.log_every_steps, MOST_LOG_STEPS),
            "target.train_images": length.images,
            "target.val_images": min(run.target.val_images or MOST_VAL_IMAGES, MOST_VAL_IMAGES),
            "target.test_images": min(run.target.test_images or TEST_IMAGES, TEST_IMAGES),
            "distill_stage.epochs": length.epochs,
        }
        if source is not None:
            own |= {
                "source.train_images": source.images,
                "source.val_images": min(run.source.val_images or MOST_VAL_IMAGES, MOST_VAL_IMAGES),
                "source.test_images": min(run.source.test_images or TEST_IMAGES, TEST_IMAGES),
                "source_stage.epochs": source.epochs,
            }
        if seed is not None:
            own["run.seed"] = seed
        if self._adaptation(candidate):
            shown = length.fraction * self.adapt_length.shown
            own["adapt_stage.epochs"] = max(1, round(shown / length.images))
        return self.full(candidate).changed({**own, **(changes or {})}, "advice").build(Settings)

    def _adaptation(self, candidate: Candidate) -> dict[str, Any]:
        """Return the length of the adaptation stage of a two-stage method, where it is not given."""
        if not self.adapts(candidate):
            return {}
        length = self.adapt_length
        values = {"adapt_stage.epochs": length.epochs, "adapt_stage.global_batch_size": length.batch}
        optim = self.run.distill_stage.optim
        values |= {"adapt_stage.optim.lr": optim.lr, "adapt_stage.optim.schedule": optim.schedule}
        return {key: value for key, value in values.items() if not self._gives(key)}

    def _gives(self, key: str) -> bool:
        return key in {given for given, _ in flatten(self.base.tree)}


def make_plan(config: AdviseConfig, given: Draft, file: Draft, folder: Path) -> AdvisePlan:
    """Make the plan of a run that is given as to `train`: keys that are left out follow from image folders.

    Args:
        given: the run, by its file and the words of the command.
        file: the run by its file alone.
        folder: what relative paths are relative to.

    Raises:
        ValueError: an invalid run, or images that cannot be used.
    """
    before = settings_of(given, file)
    chosen = with_images(with_absolute_paths(before, folder), given)
    old, new = (dict(flatten(each.model_dump(mode="json"))) for each in (before, chosen))
    changed = {key: value for key, value in new.items() if value != old[key]}
    return AdvisePlan(config, given.changed(changed, "the images"))


def check_plan(plan: AdvisePlan) -> None:
    """Refuse data on which methods cannot be told apart, once it is packed.

    Raises:
        ValueError: the fault and its remedy.
    """
    source, target, run = plan.source, plan.target, plan.run
    if source is None and run.teacher.checkpoint is None:
        raise ValueError("source.url is not set: give the source's images, or a trained teacher as --teacher")
    if source is not None and not source.labels:
        raise ValueError(
            f"source.url={run.source.url} has no training label{'' if target.labels else ', nor has the target'}: the "
            "teacher learns from labels of the source; put its images into a folder per class, or give a list with "
            "labels"
        )
    for name, counts in (("source", source), ("target", target)):
        if counts is None:
            continue
        if counts.classes < 2:
            raise ValueError(f"{name}: one class; a classifier needs at least two")
        numbers = (("training", counts.train, LEAST_TRAIN), ("validation", counts.val, LEAST_VAL))
        for what, num, least in numbers:
            if num < least:
                raise ValueError(
                    f"{name}: {num} {what} images cannot tell methods apart (at least {least}); add images, or "
                    f"train without advice: {_by_table(plan)} is the method of our tables for such labels"
                )


def _by_table(plan: AdvisePlan) -> str:
    """Return the method with the best prior."""
    return max(plan.candidates, key=lambda each: each.prior.points).title


def claim(plan: AdvisePlan) -> None:
    """Write the plan into its folder, or check that the folder holds the same one; the budget and the price may change.

    Raises:
        ConfigError: the folder holds advice on another run.
    """
    folder = RunFolder(plan.url)
    tree = {"run": plan.run.model_dump(mode="json"), "methods": plan.config.methods}
    with translate_storage_errors(plan.url):
        if not folder.exists(FILE):
            folder.write_text(FILE, to_yaml(tree))
            return
        held = dict(flatten(parsed(folder.read_text(FILE), folder.path(FILE)).tree))
    asked = dict(flatten(json.loads(json.dumps(tree))))
    if differing := [key for key in asked | held if asked.get(key) != held.get(key)]:
        key = differing[0]
        raise ConfigError(
            f"{plan.url} holds advice on another run ({key.removeprefix('run.')}: {held.get(key)!r} -> "
            f"{asked.get(key)!r}); give --name for this one"
        )
