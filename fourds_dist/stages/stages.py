"""The stages, built from the configuration: training of the teacher on the source, then distillation on the target.

In two-stage methods the adaptation of the teacher to the target (`adapt.method`) is between both. Every worker of a
stage calls `run_stage`; `runner` has the shared parts of the stages.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from fourds_dist.config.stage_names import STAGES, StageName
from fourds_dist.data.stream.network_input import NetworkInput
from fourds_dist.io.storage import locate
from fourds_dist.method import AdaptTeacher, FourDs, SourceClassifiers, StudentNetwork
from fourds_dist.models.backbones import BackboneConfig, stage_names
from fourds_dist.models.weights.loading import encode_weights
from fourds_dist.models.weights.networks import build
from fourds_dist.runs.events import Sink
from fourds_dist.runs.layout import DONE, Network, RunFile
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.network_inputs import described, predictor
from fourds_dist.stages.probe import freeze_before_last_stage, name_teacher, probe_teacher
from fourds_dist.stages.results import Trained, selection_of, write_results
from fourds_dist.stages.runner import StageRunner
from fourds_dist.stages.settings import Settings, students_from_source
from fourds_dist.stages.students import (
    initial_students,
    source_students,
    start_of,
    students_by_key,
)
from fourds_dist.stages.target_labels import (
    criterion,
    label_free_method,
    method_of,
)
from fourds_dist.stages.teachers import (
    check_teacher_accuracy,
    distilled_teacher,
    load_teacher,
    source_teacher,
)
from fourds_dist.training.checkpoint.checkpoint_store import CheckpointStore
from fourds_dist.training.distributed.world import World
from fourds_dist.training.stop_signals import StopSignal, never

SWITCH_INTERVAL_S = 1e-4
"""Seconds for which a decoding thread may hold the GIL while the training loop waits. The loop releases the GIL at
every operation that it queues; with Python's default of 5 ms a step on two GPUs took 100 ms of the host's time."""


def stages_to_run(settings: Settings) -> tuple[StageName, ...]:
    """Return the stages of a run, up to `run.until`.

    There is no source stage if the teacher is given and no student starts from the source, and no adaptation stage
    without `adapt.method`.
    """
    needs_source = settings.teacher.checkpoint is None or bool(students_from_source(settings))
    needed = {"source": needs_source, "adapt": settings.adapt.method != "none", "distill": True}
    upto = list(needed)[: list(needed).index(settings.run.until) + 1]
    return tuple(stage for stage in STAGES if stage in upto and needed[stage])


def drop_checkpoints(folder: RunFolder, stages: Iterable[StageName] = STAGES) -> None:
    """Remove the checkpoints of a run that will not be resumed, as those of hundreds of runs would fill a disk."""
    for stage in stages:
        fs, path = locate(folder.path(stage))
        if fs.exists(path):
            fs.rm(path, recursive=True)


def from_source(settings: Settings, source_url: str) -> Settings:
    """Return the settings with teacher and students from the source stage of another run, at `source_url`."""
    folder, teacher = RunFolder(source_url), settings.teacher
    if teacher.checkpoint is None:
        teacher = teacher.model_copy(update={"checkpoint": folder.path(RunFile.TEACHER)})
    settings = settings.with_students(
        lambda name, student: student.model_copy(update={"start": start_of(folder, name, student)})
    )
    return settings.model_copy(update={"teacher": teacher})


def run_stage(
    name: StageName,
    settings: Settings,
    make_store: Callable[[Callable[[str], None]], CheckpointStore],
    *sinks: Sink,
    stop: StopSignal = never,
    restart_notes: Callable[[], list[str]] = list,
) -> None:
    """Train one stage on this worker; rank 0 writes its results to the run's folder.

    Args:
        make_store: returns the checkpoint store after the process group is initialised; its argument receives notes
            about storage errors.
        sinks: sinks of rank 0's events, besides metrics.jsonl and W&B.
        stop: returns a stop request, or None.
        restart_notes: returns, once, lines on what happened to the run since its last start.

    Raises:
        Stopped: the run stopped on request, with a checkpoint.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    world = World.join(timeout_s=settings.launch.collective_timeout_s)
    # All ranks draw the same initial weights; streams and augmentation have separate generators.
    torch.manual_seed(settings.run.seed)
    folder = RunFolder(settings.run_url, retry_timeout_s=settings.run.retry_timeout_s)
    stage = StageRunner(name, settings, world, folder, make_store, sinks, stop, restart_notes)
    is_first = name == stages_to_run(settings)[0]
    line = described(stage.inputs, NetworkInput.of_data(settings.data))
    if is_first and line is not None:
        stage.notify(line)
    if is_first and settings.teacher.checkpoint is not None:
        check_teacher_accuracy(stage, settings.teacher.checkpoint)
    RUN[name](stage)
    world.barrier()


def train_on_source(stage: StageRunner) -> None:
    """Train the teacher (unless given) and the students that start from the source on the source shards."""
    settings, classes = stage.settings, stage.split(stage.settings.source, "train").classes
    networks: dict[str, nn.Module] = {}
    selected: dict[str, dict[str, Any]] = {}
    frozen: list[nn.Module] = []
    layers, epoch = settings.source_stage.train, 0
    if settings.teacher.checkpoint is None:
        start = settings.teacher.start
        teacher = networks[Network.TEACHER.value] = build(
            settings.teacher,
            len(classes),
            start=start,
            key="teacher.start",
            image_size=stage.inputs["teacher"].image_px,
            run=stage.needs(settings.teacher, classes),
            notify=stage.notify,
        )
        if layers != "all" and not stage.has_checkpoint():
            by_names = layers == "class_names"
            accuracy = name_teacher(stage, teacher) if by_names else probe_teacher(stage, teacher).accuracy
            value, _ = accuracy.measured(criterion("source", settings))
            selected[Network.TEACHER.value] = {"validation_accuracy": value}
        if layers == "last_stage":
            frozen = freeze_before_last_stage(stage, teacher)
    networks |= source_students(stage, len(classes))
    trained = {k: v for k, v in networks.items() if layers in ("all", "last_stage") or k != Network.TEACHER}
    if trained:
        monitored = next(iter(trained))
        task = SourceClassifiers(trained, stage.conversions, frozen)
        best, _, _ = stage.fit(task, monitored, settings.source)
        for key, own in (best.apart or {monitored: best}).items():
            selected[key] = selection_of("source", stage, own)
        epoch = best.epoch
    else:
        stage.end_without_training()
    if stage.world.is_main:
        configs: dict[str, tuple[BackboneConfig, str]] = {
            Network.STUDENT.of_student(name): (config, RunFile.STUDENT_SOURCE.of_student(name))
            for name, config in settings.named_students.items()
        }
        configs[Network.TEACHER] = (settings.teacher, RunFile.TEACHER)
        for key, network in networks.items():
            config, file = configs[key]
            metadata = stage.about(config, classes, domain=settings.source.url, **selected.get(key, {}))
            stage.folder.write_bytes(file, encode_weights(network.state_dict(), metadata))
        first = next(iter(selected.values()))
        stage.folder.write_json(DONE["source"], {"epoch": epoch, **first})


def adapt_to_target(stage: StageRunner) -> None:
    """Train the whole teacher on the target shards, for two-stage methods."""
    settings, classes = stage.settings, stage.split(stage.settings.target, "train").classes
    teacher = load_teacher(stage, source_teacher(settings, stage.folder), classes)
    before = predictor(deepcopy(teacher).to(stage.world.device).eval(), stage.conversions.get("teacher"))
    task = AdaptTeacher(
        teacher,
        settings.adapt,
        stage.conversions,
        last_stage=stage_names(settings.teacher, teacher)[-1],
        image_size=stage.inputs["teacher"].image_px,
    )
    best, _, _ = stage.fit(task, "teacher", settings.target, reference=(Network.TEACHER_SOURCE, before))
    if stage.world.is_main:
        selected = selection_of("adapt", stage, best)
        metadata = stage.about(settings.teacher, classes, domain=settings.target.url, **selected)
        stage.folder.write_bytes(RunFile.TEACHER_ADAPTED, encode_weights(teacher.state_dict(), metadata))
        stage.folder.write_json(DONE["adapt"], {"epoch": best.epoch, **selected})


def distil_on_target(stage: StageRunner) -> None:
    """Distil on the target shards, then evaluate all networks on the test splits and write the results."""
    settings, classes = stage.settings, stage.split(stage.settings.target, "train").classes
    teacher = load_teacher(stage, distilled_teacher(settings, stage.folder), classes)
    students = initial_students(stage, classes)
    untouched: dict[str, nn.Module] = {Network.TEACHER: deepcopy(teacher)}
    untouched |= {_before(key): deepcopy(student.network) for key, student in students.items()}
    if settings.adapt.method != "none":
        with torch.random.fork_rng(devices=[]):  # its random initial weights are replaced
            before = load_teacher(stage, source_teacher(settings, stage.folder), classes)
        untouched[Network.TEACHER_SOURCE] = before

    method = method_of(settings)
    if (line := label_free_method(settings.method, method)) is not None:
        stage.notify(line)
    configs = students_by_key(settings)
    task = FourDs(
        teacher,
        {
            key: StudentNetwork(network, stage_names(configs[key], network), is_untrained)
            for key, (network, is_untrained) in students.items()
        },
        teacher_stages=stage_names(settings.teacher, teacher),
        config=method,
        image_size=settings.data.crop_px,
        inputs=stage.conversions,
    )
    adapted_teacher = task.predictors()[Network.TEACHER_ADAPTED]
    reference = (Network.TEACHER_ADAPTED, adapted_teacher)
    best, step, rates = stage.fit(task, next(iter(students)), settings.target, reference=reference)

    networks = {key: student.network for key, student in students.items()}
    write_results(stage, task, networks, untouched, Trained(best, step, rates))


def _before(key: str) -> str:
    """Return the key of a student before distillation."""
    return Network.STUDENT_BEFORE.of_student(key.partition("/")[2])


RUN: dict[StageName, Callable[[StageRunner], None]] = {
    "source": train_on_source,
    "adapt": adapt_to_target,
    "distill": distil_on_target,
}
"""The function of each stage."""
