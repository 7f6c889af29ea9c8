"""The two stages, built from the configuration: the teacher learns the source, then 4Ds distils it on the target.

Every worker of a stage calls `run_stage`; where it was started (Ray, torchrun, one process) shows only in the `World`
it joins, the `CheckpointStore` it is given and the sinks of its events.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from fourds_dist.data import (
    Split,
    StreamConfig,
    TrainStream,
    evaluation_batches,
    open_split,
)
from fourds_dist.method import FourDs, SourceClassifiers
from fourds_dist.method.backbones import num_parameters, stage_names
from fourds_dist.method.distiller import Predictor
from fourds_dist.settings import Settings
from fourds_dist.training.checkpoint import CheckpointStore, load_weights, write_weights
from fourds_dist.training.evaluate import Accuracy, evaluate
from fourds_dist.training.loop import Best, Row, StageConfig, fit
from fourds_dist.training.networks import build, metadata
from fourds_dist.training.outcome import Line, Outcome
from fourds_dist.training.run_folder import MetricsFile, RunFolder
from fourds_dist.training.step import TrainStep
from fourds_dist.training.tracking import Wandb
from fourds_dist.training.world import World

StageName = Literal["source", "distill"]
Sink = Callable[[Row], None]

TEACHER, STUDENT_SOURCE = "teacher.safetensors", "student_source.safetensors"
STUDENT, ADAPTERS, SUMMARY = "student.safetensors", "adapters.safetensors", "summary.json"
DONE: dict[StageName, str] = {"source": "source.json", "distill": SUMMARY}
"""The file that a stage writes last; where it is there, the stage is not run again."""


def stages_to_run(settings: Settings) -> tuple[StageName, ...]:
    """Both, or distillation alone where the teacher is given and the student does not start from the source."""
    needs_source = settings.teacher.checkpoint is None or settings.student.start == "source"
    return ("source", "distill") if needs_source else ("distill",)


def stage_config(name: StageName, settings: Settings) -> StageConfig:
    """Length and learning rates of a stage."""
    return settings.source_stage if name == "source" else settings.distill


def train_splits(name: StageName, settings: Settings) -> dict[str, Split]:
    """The training splits that a stage draws its batches from, by domain, its own domain first."""
    seed = settings.run.seed
    if name == "source":
        return {"source": open_split(settings.source, "train", seed=seed)}
    splits = {"target": open_split(settings.target, "train", seed=seed)}
    if settings.data.source_fraction > 0:
        splits["source"] = open_split(settings.source, "train", seed=seed)
    return splits


def train_stream(
    name: StageName, settings: Settings, splits: Mapping[str, Split], rank: int, world_size: int
) -> TrainStream:
    """A rank's part of a stage's batches."""
    return TrainStream(
        splits,
        settings.data,
        global_batch_size=stage_config(name, settings).global_batch_size,
        rank=rank,
        world_size=world_size,
        seed=settings.run.seed,
    )


def run_stage(
    name: StageName, settings: Settings, make_store: Callable[[], CheckpointStore], *sinks: Sink
) -> None:
    """Train one stage on this worker; rank 0 leaves its results in the run's folder.

    Args:
        make_store: gives the checkpoints' place, once the process group is there.
        sinks: take the events that rank 0 emits, besides metrics.jsonl and W&B.
    """
    world = World.join()
    # Every rank draws the same first weights; streams and augmentation have generators of their own.
    torch.manual_seed(settings.run.seed)
    stage = Stage(name, settings, world, RunFolder(settings.run_url), make_store(), sinks)
    (train_on_source if name == "source" else distil_on_target)(stage)
    world.barrier()


@dataclass
class Stage:
    """What both stages share: this worker's tools, made from the configuration."""

    name: StageName
    settings: Settings
    world: World
    folder: RunFolder
    store: CheckpointStore
    sinks: tuple[Sink, ...]

    def split(self, domain: StreamConfig, split: Literal["train", "val", "test"]) -> Split:
        """One split of `settings.source` or `settings.target`."""
        return open_split(domain, split, seed=self.settings.run.seed)

    def train_step(self, task: nn.Module) -> TrainStep:
        """The step for `task`, moved to this worker's device."""
        data = self.settings.data
        stage = self.settings.distill if self.name == "distill" else self.settings.source_stage
        return TrainStep(
            task.to(self.world.device),
            self.world,
            self.settings.step,
            mean=data.mean,
            std=data.std,
            global_batch_size=stage.global_batch_size,
        )

    def fit(
        self, task: nn.Module, step: TrainStep, selected: str, domain: StreamConfig
    ) -> tuple[Best, list[float]]:
        """Train on the domain, choosing on its validation split; also the images/s of every log interval."""
        config = stage_config(self.name, self.settings)
        splits = train_splits(self.name, self.settings)
        stream = train_stream(self.name, self.settings, splits, self.world.rank, self.world.size)
        networks = f"{self.settings.teacher.arch} -> {self.settings.student.arch}"
        identity = {"networks": networks, "data": "+".join(s.fingerprint for s in splits.values())}
        rates: list[float] = []
        best = fit(
            task,
            step,
            stream,
            lambda: self.evaluate(task.predictors(), domain, "val", step),  # pyright: ignore[reportCallIssue]
            config=config,
            selected=selected,
            identity=identity,
            store=self.store,
            emit=self._emitter(rates),
            world=self.world,
            log_every_steps=self.settings.step.log_every_steps,
        )
        return best, rates

    def evaluate(
        self,
        predictors: Mapping[str, Predictor],
        domain: StreamConfig,
        split: Literal["val", "test"],
        step: TrainStep,
    ) -> dict[str, Accuracy]:
        """Accuracies over all workers on one split."""
        batches = evaluation_batches(
            self.split(domain, split),
            self.settings.data,
            batch_size_per_rank=self.settings.step.eval_batch_size_per_rank,
            rank=self.world.rank,
            world_size=self.world.size,
        )
        return evaluate(predictors, batches, step, self.world)

    def _emitter(self, rates: list[float]) -> Sink:
        """Sends rows to every sink, which rank 0 alone has; files are opened with the first row: it tells the step."""
        sinks: list[Sink] = []

        def emit(row: Row) -> None:
            row = {"stage": self.name, "time": round(time.time(), 3), **row}
            if row["event"] == "start" and self.world.is_main:
                run = self.settings.model_dump(mode="json")
                sinks.append(MetricsFile(self.folder, self.name, row["step"]))
                sinks.append(Wandb(self.settings.tracking, self.folder, self.name, run))
                sinks.extend(self.sinks)
            if row["event"] == "step":
                rates.append(row["images_per_s"])
            for sink in sinks:
                sink(row)

        return emit


def train_on_source(stage: Stage) -> None:
    """Train the teacher (unless given) and the student (if it starts from the source) on the source shards."""
    settings, classes = stage.settings, stage.split(stage.settings.source, "train").classes
    side = settings.data.crop_px
    networks: dict[str, nn.Module] = {}
    if settings.teacher.checkpoint is None:
        start = settings.teacher.start
        networks["teacher"] = build(
            settings.teacher, len(classes), start=start, key="teacher.start", image_size=side
        )
    if settings.student.start == "source":
        networks["student"] = build(settings.student, len(classes), image_size=side)
    task = SourceClassifiers(networks)
    best, _ = stage.fit(task, stage.train_step(task), next(iter(networks)), settings.source)
    if stage.world.is_main:
        configs = {"teacher": (settings.teacher, TEACHER), "student": (settings.student, STUDENT_SOURCE)}
        for name, network in networks.items():
            config, file = configs[name]
            about = metadata(config, classes, validation_accuracy=best.accuracy, domain=settings.source.url)
            write_weights(stage.folder.path(file), network.state_dict(), about)
        stage.folder.write_json(DONE["source"], {"epoch": best.epoch, "validation_accuracy": best.accuracy})


def distil_on_target(stage: Stage) -> None:
    """Run 4Ds on the target shards, then test everything once and write student, adapters and summary."""
    settings, world = stage.settings, stage.world
    classes = stage.split(settings.target, "train").classes
    side = settings.data.crop_px
    teacher = build(settings.teacher, len(classes), image_size=side)
    load_weights(
        settings.teacher.checkpoint or stage.folder.path(TEACHER), teacher, what="teacher.checkpoint"
    )
    from_source = settings.student.start == "source"
    start = stage.folder.path(STUDENT_SOURCE) if from_source else settings.student.start
    student = build(settings.student, len(classes), start=start, key="student.start", image_size=side)
    untouched = {"teacher": deepcopy(teacher), "student before distillation": deepcopy(student)}

    task = FourDs(
        teacher,
        student,
        teacher_stages=stage_names(settings.teacher, teacher),
        student_stages=stage_names(settings.student, student),
        config=settings.method,
        image_size=settings.data.crop_px,
    )
    step = stage.train_step(task)
    best, rates = stage.fit(task, step, "student", settings.target)

    predictors: dict[str, Predictor] = {k: v.to(world.device).eval() for k, v in untouched.items()}
    predictors |= {"teacher with adapters": task.predictors()["teacher_adapted"], "student": student}
    target = stage.evaluate(predictors, settings.target, "test", step)
    has_source = settings.source.url is not None
    source = stage.evaluate(predictors, settings.source, "test", step) if has_source else {}
    if not world.is_main:
        return
    about = metadata(settings.student, classes, validation_accuracy=best.accuracy, domain=settings.target.url)
    write_weights(stage.folder.path(STUDENT), student.state_dict(), about)
    adapted = {k: v for k, v in task.state_dict().items() if k.startswith("adapters.") or "running_" in k}
    adapted = {k: v for k, v in adapted.items() if k.startswith(("adapters.", "teacher."))}
    write_weights(stage.folder.path(ADAPTERS), adapted, metadata(settings.teacher, classes))
    sizes = {name: num_parameters(net) for name, net in untouched.items()}
    sizes |= {
        "teacher with adapters": sizes["teacher"] + num_parameters(task.adapters),
        "student": num_parameters(student),
    }
    outcome = Outcome(
        run=settings.run.name,
        lines=tuple(Line(name, sizes[name], source.get(name), target[name]) for name in predictors),
        chance=1 / len(classes),
        selected_epoch=best.epoch,
        validation_accuracy=best.accuracy,
        train_images_per_s=statistics.median(rates) if rates else 0.0,
        num_workers=world.size,
    )
    stage.folder.write_json(SUMMARY, outcome.as_dict())
