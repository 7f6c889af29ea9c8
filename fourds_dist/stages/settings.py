"""The root of the configuration, with one section per part.

`python -m fourds_dist.train --help` lists every key; sweeps use the same dotted keys.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import fsspec
from pydantic import Field, model_validator

from fourds_dist.config.effects import EACH_SAYS, LOG, PLACE, SPEED, WEIGHTS
from fourds_dist.config.loading import builtin_config
from fourds_dist.config.section import ConfigError, ConfigSection
from fourds_dist.config.stage_names import StageName
from fourds_dist.config.trees import flatten
from fourds_dist.data import DataConfig, StreamConfig
from fourds_dist.io.storage import is_url, join, plain
from fourds_dist.method import AdaptConfig, MethodConfig
from fourds_dist.models.weights.networks import StudentConfig, TeacherConfig, student_names
from fourds_dist.models.weights.published import is_published
from fourds_dist.runs.accuracy import LABEL_FREE
from fourds_dist.runs.layout import Network
from fourds_dist.runs.run_folder import RunConfig
from fourds_dist.stages.launch_config import LaunchConfig
from fourds_dist.stages.sinks.tracking_config import TrackingConfig
from fourds_dist.training.loop import MOST_IMAGES, StageConfig
from fourds_dist.training.step import StepConfig

SECTION: dict[StageName, str] = {"source": "source_stage", "adapt": "adapt_stage", "distill": "distill_stage"}
"""The section of each stage in the configuration, with its length and learning rates."""
MOST_STUDENTS = 16
"""Largest number of students of one run, whose networks share the memory of each device."""
TARGET_STAGES: tuple[StageName, ...] = ("adapt", "distill")


class SourceStageConfig(StageConfig):
    """Length, checkpoints and learning rates of the source stage."""

    global_batch_size: Annotated[int, WEIGHTS] = Field(default=64, ge=1, le=MOST_IMAGES)
    """Images per optimiser step, summed over all workers."""

    train: Annotated[Literal["all", "head", "last_stage", "class_names"], WEIGHTS] = "all"
    """Layers of the teacher that are trained. `head`: the last layer, by a linear probe: the frozen body sees each
    image once, for networks that know much but no classes (DINOv2, CLIP, SigLIP). `last_stage`: then also the layers
    after the last but one of teacher.stages, for `epochs`. `class_names`: none; the last layer is made from the names
    of the source's classes by the text tower of text_model. A student with `student.start: source` is trained whole."""

    text_model: Annotated[str | None, WEIGHTS] = None
    """train=class_names: the image-text model of open_clip that has the teacher's weights as image tower:
    `hf-hub:owner/name`, or `local-dir:PATH` of a folder with open_clip_config.json and the weights. null: the
    repository or folder of teacher.start or teacher.arch."""

    templates: Annotated[tuple[str, ...], WEIGHTS] = ("a photo of a {}.",)
    """train=class_names: texts about an image of a class, with {} in the place of its name. The embeddings of all texts
    of a class are averaged."""

    @model_validator(mode="after")
    def _check_templates(self) -> SourceStageConfig:
        wrong = [template for template in self.templates if template.count("{}") != 1]
        if wrong or not self.templates:
            raise ValueError(
                f"templates={list(self.templates)}: give at least one text, each with {{}} once for the name of a class"
            )
        return self


class Settings(ConfigSection):
    """The complete configuration of a run."""

    run: RunConfig = RunConfig()
    """Name, folder and seed."""

    prepare: Annotated[Literal["digits"] | None, PLACE] = None
    """A built-in pair of domains to pack on first use, into source.url and target.url (`digits`: the quickstart's)."""

    source: StreamConfig = StreamConfig()
    """The domain on which the teacher is trained."""

    target: Annotated[StreamConfig, EACH_SAYS.of("adapt", "distill")] = StreamConfig()
    """The domain for which the student is trained."""

    data: DataConfig = DataConfig()
    """Reading, decoding and augmentation."""

    teacher: TeacherConfig = TeacherConfig()
    """The large network."""

    student: Annotated[StudentConfig, EACH_SAYS.of("source", "distill")] = StudentConfig()
    """The small network."""

    students: Annotated[tuple[StudentConfig, ...], WEIGHTS.of("source", "distill")] = ()
    """Several small networks, trained in one run by one forward pass of the teacher: a list of sections as `student`,
    `students: [{arch: resnet10}, {arch: mobilenet_v3_small}]`. A list of one is the same as `student`. Empty: the one
    of `student`."""

    method: Annotated[MethodConfig, EACH_SAYS.of("distill")] = MethodConfig()
    """The distillation method."""

    adapt: Annotated[AdaptConfig, EACH_SAYS.of("adapt", "distill")] = AdaptConfig()
    """Two-stage methods: adaptation of the teacher to the target before distillation."""

    source_stage: Annotated[SourceStageConfig, EACH_SAYS.of("source")] = SourceStageConfig()
    """First stage: training on the source."""

    adapt_stage: Annotated[StageConfig, EACH_SAYS.of("adapt")] = StageConfig()
    """Middle stage, if adapt.method is not none: adaptation of the teacher to the target."""

    distill_stage: Annotated[StageConfig, EACH_SAYS.of("distill")] = StageConfig()
    """Last stage: distillation on the target."""

    step: StepConfig = StepConfig()
    """Computation of a step, in all stages."""

    launch: Annotated[LaunchConfig, SPEED] = LaunchConfig()
    """Workers and their resources."""

    tracking: Annotated[TrackingConfig, LOG] = TrackingConfig()
    """Weights & Biases, TensorBoard, MLflow."""

    @model_validator(mode="after")
    def _check_students(self) -> Settings:
        """Check `students`, and let `student` be the first of them; a list of one becomes `student`."""
        if not self.students:
            return self
        first = self.students[0]
        if "student" in self.model_fields_set and self.student != first:
            raise ValueError(
                "student and students are both given and differ: remove one of the two (the first entry of students "
                f"has arch={first.arch}, student has arch={self.student.arch})"
            )
        if len(self.students) > MOST_STUDENTS:
            raise ValueError(
                f"students has {len(self.students)} entries; at most {MOST_STUDENTS} fit in one run"
            )
        given = [student.name.casefold() for student in self.students if student.name is not None]
        for name in given:
            if given.count(name) > 1:
                raise ValueError(
                    f"students: the name {name!r} is given twice; give each student a name of its own"
                )
        nameless = [student.model_copy(update={"name": None}) for student in self.students]
        for number, student in enumerate(nameless):
            if student in nameless[:number]:
                names = student_names(self.students)
                raise ValueError(
                    f"students: {names[number]} equals {names[nameless.index(student)]} in all keys but the name; "
                    "remove one of the two, or change it"
                )
        object.__setattr__(self, "student", first)  # of a frozen section
        if len(self.students) == 1:
            object.__setattr__(self, "students", ())
        return self

    @model_validator(mode="after")
    def _check_mixture(self) -> Settings:
        if self.data.source_fraction and self.source.url is None:
            raise ValueError("data.source_fraction > 0 needs source.url")
        return self

    @model_validator(mode="after")
    def _check_adapting(self) -> Settings:
        fraction = self.data.source_fraction
        adds_source = self.source.url is not None if fraction is None else fraction > 0
        has_labels = self.target.labels_per_class != 0 or adds_source
        if self.adapt.method != "none" and not has_labels:
            raise ValueError(
                f"adapt.method={self.adapt.method} needs labels: target.labels_per_class above 0, or labelled source "
                "images by source.url and data.source_fraction above 0"
            )
        return self

    @model_validator(mode="after")
    def _check_criteria(self) -> Settings:
        if self.source.validation_labels == "ignore":
            raise ValueError(
                "source.validation_labels=ignore: the source's labels are needed; set target.validation_labels"
            )
        if (by := self.source_stage.select_by) in LABEL_FREE:
            raise ValueError(
                f"source_stage.select_by={by} is for images without labels, which the source has; use accuracy"
            )
        stages = {
            f"{SECTION[stage]}.select_by": stage_config(stage, self).select_by for stage in TARGET_STAGES
        }
        given = {
            key: by for key, by in {"run.select_by": self.run.select_by, **stages}.items() if by is not None
        }
        for key, by in given.items():
            if by in ("source_accuracy", "confidence") and self.source.url is None:
                raise ValueError(f"{key}={by} needs labelled source images: set source.url, or use auto")
            if by == "agreement" and key != "adapt_stage.select_by" and not self.method.needs_teacher:
                raise ValueError(
                    f"{key}=agreement needs a teacher, and method.preset={self.method.preset} trains without one; use "
                    "auto"
                )
            if by not in ("auto", *LABEL_FREE) and self.target.validation_labels == "ignore":
                raise ValueError(
                    f"{key}={by} needs the labels that target.validation_labels=ignore hides; use auto, or set "
                    "target.validation_labels=use"
                )
        return self

    @property
    def named_students(self) -> dict[str, StudentConfig]:
        """The students by name; the name of a run's only student is empty."""
        if not self.students:
            return {"": self.student}
        return dict(zip(student_names(self.students), self.students, strict=True))

    @property
    def student_names(self) -> list[str]:
        """The names of the students, also that of an only one."""
        return student_names(self.students or (self.student,))

    def with_students(self, change: Callable[[str, StudentConfig], StudentConfig]) -> Settings:
        """Return the settings with changed students; `change` receives the name and the section of each."""
        changed = tuple(change(name, student) for name, student in self.named_students.items())
        return self.model_copy(update={"student": changed[0], "students": changed if self.students else ()})

    @property
    def run_url(self) -> str:
        """Return the path or URL of the run's folder."""
        return join(self.run.dir, self.run.name)


def students_from_source(settings: Settings) -> dict[str, StudentConfig]:
    """Return the students that the source stage trains, by their keys in metrics."""
    return {
        Network.STUDENT.of_student(name): student
        for name, student in settings.named_students.items()
        if student.start == "source"
    }


S = TypeVar("S", bound=ConfigSection)


def stage_config(name: StageName, settings: Settings) -> StageConfig:
    """Return the section of a stage."""
    return getattr(settings, SECTION[name])


def relative_inputs(settings: Settings) -> dict[str, str]:
    """Return the relative local paths of a run's inputs by key."""
    base = Path("/")
    before, after = (
        dict(flatten(s.model_dump(mode="json"))) for s in (settings, with_absolute_paths(settings, base))
    )
    written = ("run.dir", "data.cache_dir", *(("source.url", "target.url") if settings.prepare else ()))
    return {key: before[key] for key in before if before[key] != after[key] and key not in written}


def with_absolute_paths(settings: Settings, base: Path) -> Settings:
    """Return the settings with absolute local paths, since workers have other working directories.

    A file:// URL becomes a path.

    Raises:
        ConfigError: a path that looks like a URL without its second slash.
    """

    def absolute(path: str | None) -> str | None:
        if path is None or path in ("random", "source") or is_published(path):
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

    def replaced(section: S, *names: str) -> S:
        return section.model_copy(update={name: absolute(getattr(section, name)) for name in names})

    launch = settings.launch
    if not (builtin_config("deepspeed") / f"{launch.deepspeed}.yaml").exists():  # a file of the user
        launch = replaced(launch, "deepspeed")
    settings = settings.with_students(lambda _, student: replaced(student, "start"))
    return settings.model_copy(
        update={
            "launch": launch,
            "run": replaced(settings.run, "dir"),
            "source": replaced(settings.source, "url", "packed_from"),
            "data": replaced(settings.data, "cache_dir"),
            "target": replaced(settings.target, "url", "packed_from"),
            "teacher": replaced(settings.teacher, "checkpoint", "start"),
        }
    )
