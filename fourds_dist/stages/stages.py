"""The stages, built from the configuration: training of the teacher on the source, then distillation on the target.

In two-stage methods the adaptation of the teacher to the target (`adapt.method`) is between both. Every worker of a
stage calls `run_stage`; `runner` has the shared parts of the stages.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from fourds_dist.config.stage_names import STAGES, StageName
from fourds_dist.data.stream.network_input import NetworkInput
from fourds_dist.io.storage import locate
from fourds_dist.method import AdaptTeacher, FourDs, SourceClassifiers
from fourds_dist.method.output import Predictor
from fourds_dist.models.backbones import num_parameters, stage_names
from fourds_dist.models.weights.loading import encode_weights
from fourds_dist.models.weights.networks import build, build_initialised
from fourds_dist.runs.accuracy import LABEL_FREE, MOST_CLASSES
from fourds_dist.runs.estimate import Estimate
from fourds_dist.runs.events import Sink
from fourds_dist.runs.layout import DONE, Network, RunFile, display_name
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.runs.summary import NetworkResult, RunSummary
from fourds_dist.stages.label_free import evaluate_label_free
from fourds_dist.stages.network_inputs import described, predictor
from fourds_dist.stages.probe import freeze_before_last_stage, name_teacher, probe_teacher
from fourds_dist.stages.runner import StageRunner
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.target_labels import (
    computes_criteria,
    criterion,
    has_labels,
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
from fourds_dist.training.train_state import Best

SWITCH_INTERVAL_S = 1e-4
"""Seconds for which a decoding thread may hold the GIL while the training loop waits. The loop releases the GIL at
every operation that it queues; with Python's default of 5 ms a step on two GPUs took 100 ms of the host's time."""


ROLE = {
    Network.TEACHER: "teacher",
    Network.TEACHER_SOURCE: "teacher",
    Network.STUDENT_BEFORE: "student",
}
"""Network before distillation -> its section in the configuration."""


def stages_to_run(settings: Settings) -> tuple[StageName, ...]:
    """Return the stages of a run, up to `run.until`.

    There is no source stage if the teacher is given and the student does not start from the source, and no adaptation
    stage without `adapt.method`.
    """
    needs_source = settings.teacher.checkpoint is None or settings.student.start == "source"
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
    """Return the settings with teacher and student from the source stage of another run, at `source_url`."""
    folder, teacher, student = RunFolder(source_url), settings.teacher, settings.student
    if teacher.checkpoint is None:
        teacher = teacher.model_copy(update={"checkpoint": folder.path(RunFile.TEACHER)})
    if student.start == "source":
        student = student.model_copy(update={"start": folder.path(RunFile.STUDENT_SOURCE)})
    return settings.model_copy(update={"teacher": teacher, "student": student})


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
    """Train the teacher (unless given) and the student (if it starts from the source) on the source shards."""
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
    if settings.student.start == "source":
        side = stage.inputs["student"].image_px
        networks[Network.STUDENT.value] = build(settings.student, len(classes), image_size=side)
    trained = {k: v for k, v in networks.items() if layers in ("all", "last_stage") or k != Network.TEACHER}
    if trained:
        monitored = next(iter(trained))
        task = SourceClassifiers(trained, stage.conversions, frozen)
        best, _, _ = stage.fit(task, monitored, settings.source)
        selected[monitored], epoch = _selected("source", stage, best), best.epoch
    else:
        stage.end_without_training()
    if stage.world.is_main:
        configs = {
            Network.TEACHER: (settings.teacher, RunFile.TEACHER),
            Network.STUDENT: (settings.student, RunFile.STUDENT_SOURCE),
        }
        for name, network in networks.items():
            config, file = configs[Network(name)]
            metadata = stage.about(config, classes, domain=settings.source.url, **selected.get(name, {}))
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
        selected = _selected("adapt", stage, best)
        metadata = stage.about(settings.teacher, classes, domain=settings.target.url, **selected)
        stage.folder.write_bytes(RunFile.TEACHER_ADAPTED, encode_weights(teacher.state_dict(), metadata))
        stage.folder.write_json(DONE["adapt"], {"epoch": best.epoch, **selected})


def distil_on_target(stage: StageRunner) -> None:
    """Distil on the target shards, then evaluate all networks on the test splits and write the results."""
    settings, world = stage.settings, stage.world
    classes = stage.split(settings.target, "train").classes
    teacher = load_teacher(stage, distilled_teacher(settings, stage.folder), classes)
    from_source = settings.student.start == "source"
    start = stage.folder.path(RunFile.STUDENT_SOURCE) if from_source else settings.student.start
    student, is_untrained = build_initialised(
        settings.student,
        len(classes),
        start=start,
        key="student.start",
        image_size=stage.inputs["student"].image_px,
        run=stage.needs(settings.student, classes),
        notify=stage.notify,
    )
    untouched = {Network.TEACHER: deepcopy(teacher), Network.STUDENT_BEFORE: deepcopy(student)}
    if settings.adapt.method != "none":
        with torch.random.fork_rng(devices=[]):  # its random initial weights are replaced
            before = load_teacher(stage, source_teacher(settings, stage.folder), classes)
        untouched[Network.TEACHER_SOURCE] = before

    method = method_of(settings)
    if (line := label_free_method(settings.method, method)) is not None:
        stage.notify(line)
    task = FourDs(
        teacher,
        student,
        teacher_stages=stage_names(settings.teacher, teacher),
        student_stages=stage_names(settings.student, student),
        config=method,
        image_size=settings.data.crop_px,
        student_untrained=is_untrained,
        inputs=stage.conversions,
    )
    adapted_teacher = task.predictors()[Network.TEACHER_ADAPTED]
    reference = (Network.TEACHER_ADAPTED, adapted_teacher)
    best, step, rates = stage.fit(task, Network.STUDENT, settings.target, reference=reference)

    predictors: dict[str, Predictor] = {
        name: predictor(network.to(world.device).eval(), stage.conversions.get(ROLE[name]))
        for name, network in untouched.items()
    }
    distilled = predictor(student, stage.conversions.get("student"))
    predictors |= {Network.TEACHER_ADAPTED: adapted_teacher, Network.STUDENT: distilled}
    estimates: dict[str, Estimate] = {}
    if computes_criteria("distill", settings) or not has_labels(settings.target, "test"):
        target, estimates = evaluate_label_free(stage, predictors, "test", step, reference=reference[0])
    else:
        target = stage.evaluate(predictors, settings.target, "test", step)
    has_source = settings.source.url is not None
    source = stage.evaluate(predictors, settings.source, "test", step) if has_source else {}
    if not world.is_main:
        return
    selected = _selected("distill", stage, best)
    metadata = stage.about(settings.student, classes, domain=settings.target.url, **selected)
    stage.folder.write_bytes(RunFile.STUDENT, encode_weights(student.state_dict(), metadata))
    adapted = {
        name: value
        for name, value in task.state_dict().items()
        if name.startswith("adapters.") or (name.startswith("teacher.") and "running_" in name)
    }
    stage.folder.write_bytes(
        RunFile.ADAPTERS, encode_weights(adapted, stage.about(settings.teacher, classes))
    )
    sizes: dict[str, int] = {name: num_parameters(net) for name, net in untouched.items()}
    sizes |= {
        Network.TEACHER_ADAPTED: sizes[Network.TEACHER] + num_parameters(task.adapters),
        Network.STUDENT: num_parameters(student),
    }
    summary = RunSummary(
        run=settings.run.name,
        lines=tuple(
            NetworkResult(
                display_name(network),
                sizes[network],
                source.get(network),
                target[network],
                estimates.get(network),
            )
            for network in predictors
        ),
        chance=1 / len(classes),
        selected_epoch=best.epoch,
        validation_accuracy=best.accuracy if math.isfinite(best.accuracy) else None,
        train_images_per_s=statistics.median(rates) if rates else 0.0,
        num_workers=world.size,
        selected_by=criterion("distill", settings),
        classes=classes if len(classes) <= MOST_CLASSES else (),
    )
    stage.folder.write_json(RunFile.SUMMARY, summary.as_dict())


def _selected(name: StageName, stage: StageRunner, best: Best) -> dict[str, Any]:
    """Return the value that selected the best epoch, by its name in files of weights."""
    by = criterion(name, stage.settings)
    value = best.accuracy if math.isfinite(best.accuracy) else None
    if by in LABEL_FREE:
        return {"selected_by": by, "validation_value": value}
    return {"validation_accuracy": value}


RUN: dict[StageName, Callable[[StageRunner], None]] = {
    "source": train_on_source,
    "adapt": adapt_to_target,
    "distill": distil_on_target,
}
"""The function of each stage."""
