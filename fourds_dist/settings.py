"""The root of the configuration: every part's own section, under one roof.

`python -m fourds_dist.train --help` lists every key; sweeps use the same dotted keys.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import fsspec
from pydantic import Field, model_validator

from fourds_dist.config import ConfigError, Section, leaves, shipped
from fourds_dist.data import LoaderConfig, StreamConfig
from fourds_dist.effects import EACH_SAYS, LOG, PLACE, SPEED, WEIGHTS
from fourds_dist.launch.settings import LaunchConfig
from fourds_dist.method import AdaptConfig, MethodConfig
from fourds_dist.storage import is_url, join, plain
from fourds_dist.training.loop import MOST_IMAGES, StageConfig
from fourds_dist.training.networks import StudentConfig, TeacherConfig
from fourds_dist.training.run_folder import RunConfig
from fourds_dist.training.step import StepConfig
from fourds_dist.training.tracking import TrackingConfig


class SourceStageConfig(StageConfig):
    """The same of the source stage."""

    global_batch_size: Annotated[int, WEIGHTS] = Field(default=64, ge=1, le=MOST_IMAGES)
    """Images per optimiser step, over all workers together."""


class Settings(Section):
    """Everything a run depends on."""

    run: RunConfig = RunConfig()
    """Name, place and seed."""

    prepare: Annotated[Literal["digits"] | None, PLACE] = None
    """A built-in pair of domains to pack on first use, into source.url and target.url (`digits`: the quickstart's)."""

    source: StreamConfig = StreamConfig()
    """The domain that the teacher knows."""

    target: Annotated[StreamConfig, EACH_SAYS.of("adapt", "distill")] = StreamConfig()
    """The domain that the student is for."""

    data: LoaderConfig = LoaderConfig()
    """Reading, decoding and augmenting."""

    teacher: TeacherConfig = TeacherConfig()
    """The large network."""

    student: Annotated[StudentConfig, EACH_SAYS.of("source", "distill")] = StudentConfig()
    """The small network."""

    method: Annotated[MethodConfig, EACH_SAYS.of("distill")] = MethodConfig()
    """4Ds itself."""

    adapt: Annotated[AdaptConfig, EACH_SAYS.of("adapt", "distill")] = AdaptConfig()
    """Methods of two stages: how the teacher adapts to the target before it is distilled."""

    source_stage: Annotated[SourceStageConfig, EACH_SAYS.of("source")] = SourceStageConfig()
    """First stage: training on the source."""

    adapt_stage: Annotated[StageConfig, EACH_SAYS.of("adapt")] = StageConfig()
    """Between the two, where adapt.method is not none: the teacher adapts to the target."""

    distill: Annotated[StageConfig, EACH_SAYS.of("distill")] = StageConfig()
    """Last stage: distillation on the target."""

    step: StepConfig = StepConfig()
    """How a step computes, in all stages."""

    launch: Annotated[LaunchConfig, SPEED] = LaunchConfig()
    """Workers and their resources."""

    tracking: Annotated[TrackingConfig, LOG] = TrackingConfig()
    """Weights & Biases."""

    @model_validator(mode="after")
    def _check_mixture(self) -> Settings:
        if self.data.source_fraction > 0 and self.source.url is None:
            raise ValueError("data.source_fraction > 0 needs source.url")
        return self

    @model_validator(mode="after")
    def _check_adapting(self) -> Settings:
        has_labels = self.target.labels_per_class != 0 or self.data.source_fraction > 0
        if self.adapt.method != "none" and not has_labels:
            raise ValueError(
                f"adapt.method={self.adapt.method} needs labels: target.labels_per_class above 0, or labelled source "
                "images by data.source_fraction above 0"
            )
        return self

    @property
    def run_url(self) -> str:
        """Path or URL of the run's folder."""
        return join(self.run.dir, self.run.name)


def relative_inputs(settings: Settings) -> dict[str, str]:
    """Key -> relative local path of what a run only reads."""
    base = Path("/")
    before, after = (
        dict(leaves(s.model_dump(mode="json"))) for s in (settings, with_absolute_paths(settings, base))
    )
    written = ("run.dir", "data.cache_dir", *(("source.url", "target.url") if settings.prepare else ()))
    return {key: before[key] for key in before if before[key] != after[key] and key not in written}


def with_absolute_paths(settings: Settings, base: Path) -> Settings:
    """The same settings with every relative local path made absolute, since workers run in folders of their own.

    A file:// URL becomes the path that it stands for.

    Raises:
        ConfigError: what looks like a URL with a slash too few.
    """

    def absolute(path: str | None) -> str | None:
        if path is None or path in ("random", "torchvision", "source"):
            return path
        path = plain(path)
        if is_url(path):
            return path
        protocol, colon, rest = path.partition(":/")
        if colon and protocol in fsspec.available_protocols():
            raise ConfigError(
                f"{path} is neither a path nor a URL; did you mean {protocol}://{rest.lstrip('/')}?"
            )
        return str(base / Path(path).expanduser())

    def replaced(section: Section, *names: str) -> Section:
        return section.model_copy(update={name: absolute(getattr(section, name)) for name in names})

    launch = settings.launch
    if not (shipped("deepspeed") / f"{launch.deepspeed}.yaml").exists():  # a file of one's own
        launch = replaced(launch, "deepspeed")
    return settings.model_copy(
        update={
            "launch": launch,
            "run": replaced(settings.run, "dir"),
            "source": replaced(settings.source, "url"),
            "data": replaced(settings.data, "cache_dir"),
            "target": replaced(settings.target, "url"),
            "teacher": replaced(settings.teacher, "checkpoint", "start"),
            "student": replaced(settings.student, "start"),
        }
    )
