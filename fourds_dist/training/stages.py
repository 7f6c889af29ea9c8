"""The two stages, built from the configuration: the teacher learns the source, then 4Ds distils it on the target.

Every worker of a stage calls `run_stage`; where it was started (Ray, torchrun, one process) shows only in the `World`
it joins, the `CheckpointStore` it is given and the sinks of its events.
"""

from __future__ import annotations

import json
import statistics
import time
import zlib
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Literal

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
from fourds_dist.method.backbones import BackboneConfig, num_parameters, stage_names
from fourds_dist.method.distiller import Predictor
from fourds_dist.settings import Settings
from fourds_dist.training.checkpoint import load_weights, write_weights
from fourds_dist.training.evaluate import Accuracy, evaluate
from fourds_dist.training.loop import StageConfig, Surroundings, fit
from fourds_dist.training.meter import Row
from fourds_dist.training.networks import build, metadata
from fourds_dist.training.outcome import Line, Outcome
from fourds_dist.training.run_folder import MetricsFile, RunFolder
from fourds_dist.training.snapshot import Best
from fourds_dist.training.step import TrainStep
from fourds_dist.training.stop import StopSignal, never
from fourds_dist.training.store import CheckpointStore
from fourds_dist.training.strategy import make_strategy
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
    name: StageName,
    settings: Settings,
    make_store: Callable[[Callable[[str], None]], CheckpointStore],
    *sinks: Sink,
    stop: StopSignal = never,
    happened: Callable[[], list[str]] = list,
) -> None:
    """Train one stage on this worker; rank 0 leaves its results in the run's folder.

    Args:
        make_store: gives the checkpoints' place, once the process group is there; takes where it tells its troubles.
        sinks: take the events that rank 0 emits, besides metrics.jsonl and W&B.
        stop: tells when to leave early.
        happened: what befell the run since its last start, a line each, once.

    Raises:
        Stopped: it was told to leave and did, with a checkpoint.
    """
    world = World.join(timeout_s=settings.launch.collective_timeout_s)
    # Every rank draws the same first weights; streams and augmentation have generators of their own.
    torch.manual_seed(settings.run.seed)
    stage = Stage(name, settings, world, RunFolder(settings.run_url), make_store, sinks, stop, happened)
    RUN[name](stage)
    world.barrier()


class Stage:
    """What all stages share: this worker's tools, made from the configuration."""

    def __init__(
        self,
        name: StageName,
        settings: Settings,
        world: World,
        folder: RunFolder,
        make_store: Callable[[Callable[[str], None]], CheckpointStore],
        sinks: tuple[Sink, ...],
        stop: StopSignal,
        happened: Callable[[], list[str]],
    ) -> None:
        self.name: StageName = name
        self.settings, self.world, self.folder = settings, world, folder
        self._sinks, self._stop, self._happened = sinks, stop, happened
        self._troubles: list[str] = []
        self._store = make_store(self._troubles.append)

    def split(self, domain: StreamConfig, split: Literal["train", "val", "test"]) -> Split:
        """One split of `settings.source` or `settings.target`."""
        return open_split(domain, split, seed=self.settings.run.seed)

    def fit(
        self, task: nn.Module, selected: str, domain: StreamConfig
    ) -> tuple[Best, TrainStep, list[float]]:
        """Train on the domain, choosing on its validation split; also the images/s of every log interval.

        The task is left plain, on this worker's device.
        """
        settings, world = self.settings, self.world
        config, data = stage_config(self.name, settings), settings.data
        splits = train_splits(self.name, settings)
        stream = train_stream(self.name, settings, splits, world.rank, world.size)
        identity = {
            "networks": f"{settings.teacher.arch} -> {settings.student.arch}",
            "data": "+".join(s.fingerprint for s in splits.values()),
            "frozen weights": _fingerprint([p for p in task.parameters() if not p.requires_grad]),
        }
        num_steps = config.epochs * stream.num_steps_per_epoch
        strategy = make_strategy(
            settings.launch.strategy, world, config.optim, num_steps, deepspeed=settings.launch.deepspeed
        )
        step = TrainStep(
            task.to(world.device),
            world,
            settings.step,
            mean=data.mean,
            std=data.std,
            global_batch_size=config.global_batch_size,
            strategy=strategy,
        )
        rates: list[float] = []
        best = fit(
            task,
            step,
            strategy,
            stream,
            lambda: self.evaluate(
                task.predictors(),  # pyright: ignore[reportCallIssue]
                domain,
                "val",
                step,
                in_step_px=data.crop_px if strategy.in_step else None,
            ),
            Surroundings(
                self._store, self._emitter(rates), self._stop, self.folder.write_json, self._happened
            ),
            config=config,
            selected=selected,
            identity=identity,
            world=world,
            log_every_steps=settings.step.log_every_steps,
            max_bad_steps=settings.step.max_bad_steps,
        )
        return best, step, rates

    def evaluate(
        self,
        predictors: Mapping[str, Predictor],
        domain: StreamConfig,
        split: Literal["val", "test"],
        step: TrainStep,
        *,
        in_step_px: int | None = None,
    ) -> dict[str, Accuracy]:
        """Accuracies over all workers on one split."""
        batches = evaluation_batches(
            self.split(domain, split),
            self.settings.data,
            batch_size_per_rank=self.settings.step.eval_batch_size_per_rank,
            rank=self.world.rank,
            world_size=self.world.size,
        )
        return evaluate(predictors, batches, step, self.world, in_step_px=in_step_px)

    def about(self, network: BackboneConfig, classes: tuple[str, ...], **more: Any) -> dict[str, str]:
        """What a file of weights says of itself: network, classes, and how an image becomes its input."""
        prepared = self.settings.data.model_dump(include={"resize_px", "crop_px", "mean", "std"})
        return metadata(network, classes, preprocessing=json.dumps(prepared), **more)

    def _emitter(self, rates: list[float]) -> Sink:
        """Sends rows to every sink, which rank 0 alone has; files are opened with the first row: it tells the step."""
        sinks: list[Sink] = []

        def emit(row: Row) -> None:
            while self._troubles and row["event"] != "start":  # noted by the thread that writes checkpoints
                note: Row = {"event": "note", "step": row["step"], "text": self._troubles.pop(0)}
                emit(note)
            row = {"stage": self.name, "time": round(time.time(), 3), **row}
            if row["event"] == "start" and self.world.is_main:
                run = self.settings.model_dump(mode="json")
                sinks.append(MetricsFile(self.folder, self.name, row["step"]))
                sinks.append(Wandb(self.settings.tracking, self.folder, self.name, run))
                sinks.extend(self._sinks)
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
    best, _, _ = stage.fit(task, next(iter(networks)), settings.source)
    if stage.world.is_main:
        configs = {"teacher": (settings.teacher, TEACHER), "student": (settings.student, STUDENT_SOURCE)}
        for name, network in networks.items():
            config, file = configs[name]
            about = stage.about(
                config, classes, validation_accuracy=best.accuracy, domain=settings.source.url
            )
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
    best, step, rates = stage.fit(task, "student", settings.target)

    predictors: dict[str, Predictor] = {k: v.to(world.device).eval() for k, v in untouched.items()}
    predictors |= {"teacher with adapters": task.predictors()["teacher_adapted"], "student": student}
    target = stage.evaluate(predictors, settings.target, "test", step)
    has_source = settings.source.url is not None
    source = stage.evaluate(predictors, settings.source, "test", step) if has_source else {}
    if not world.is_main:
        return
    told = {"validation_accuracy": best.accuracy, "domain": settings.target.url}
    about = stage.about(settings.student, classes, **told)
    write_weights(stage.folder.path(STUDENT), student.state_dict(), about)
    adapted = {k: v for k, v in task.state_dict().items() if k.startswith("adapters.") or "running_" in k}
    adapted = {k: v for k, v in adapted.items() if k.startswith(("adapters.", "teacher."))}
    write_weights(stage.folder.path(ADAPTERS), adapted, stage.about(settings.teacher, classes))
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


RUN: dict[StageName, Callable[[Stage], None]] = {"source": train_on_source, "distill": distil_on_target}
"""What each stage does."""


def _fingerprint(tensors: list[nn.Parameter]) -> str:
    """Tells weights apart that nobody trains here: another teacher's checkpoint is another run's."""
    crc = 0
    for tensor in tensors:
        crc = zlib.crc32(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"
