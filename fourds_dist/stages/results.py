"""The results of distillation: all networks on the test splits, files of weights, and the table of the run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from fourds_dist.config.stage_names import StageName
from fourds_dist.method import FourDs
from fourds_dist.method.output import Predictor
from fourds_dist.models.backbones import num_parameters
from fourds_dist.models.weights.loading import encode_weights
from fourds_dist.runs.accuracy import LABEL_FREE, MOST_CLASSES, Accuracy
from fourds_dist.runs.estimate import Estimate
from fourds_dist.runs.layout import Network, RunFile, display_name, with_student
from fourds_dist.runs.summary import NetworkResult, RunSummary
from fourds_dist.stages.label_free import evaluate_label_free
from fourds_dist.stages.network_inputs import predictor
from fourds_dist.stages.runner import StageRunner
from fourds_dist.stages.students import latencies_ms
from fourds_dist.stages.target_labels import computes_criteria, criterion, has_labels
from fourds_dist.training.selection import best_network
from fourds_dist.training.step import TrainStep
from fourds_dist.training.train_state import Best


class Trained(NamedTuple):
    """The result of `StageRunner.fit`."""

    best: Best
    step: TrainStep
    rates: list[float]
    """Images/s of every logging interval."""


def write_results(
    stage: StageRunner,
    task: FourDs,
    students: Mapping[str, nn.Module],
    untouched: Mapping[str, nn.Module],
    trained: Trained,
) -> None:
    """Evaluate all networks on the test splits and write the files of the run; a collective call.

    Args:
        task: with the weights of the best epochs.
        students: students of the task by their keys.
        untouched: networks before distillation by their keys.
    """
    settings, world = stage.settings, stage.world
    classes = stage.split(settings.target, "train").classes
    predictors: dict[str, Predictor] = {
        key: predictor(network.to(world.device).eval(), stage.conversions.get(_section(key)))
        for key, network in untouched.items()
    }
    predictors[Network.TEACHER_ADAPTED] = task.predictors()[Network.TEACHER_ADAPTED]
    predictors |= {key: predictor(student, stage.conversions.get(key)) for key, student in students.items()}
    target, estimates = _on_target(stage, predictors, trained.step)
    has_source = settings.source.url is not None
    source = stage.evaluate(predictors, settings.source, "test", trained.step) if has_source else {}
    if not world.is_main:
        return
    selected = trained.best.apart or dict.fromkeys(students, trained.best)
    chosen = best_network(selected)
    _write_students(stage, students, selected, chosen)
    adapted = {
        name: value
        for name, value in task.state_dict().items()
        if name.startswith("adapters.") or (name.startswith("teacher.") and "running_" in name)
    }
    stage.folder.write_bytes(
        RunFile.ADAPTERS, encode_weights(adapted, stage.about(settings.teacher, classes))
    )
    sizes: dict[str, int] = {name: num_parameters(net) for name, net in {**untouched, **students}.items()}
    sizes[Network.TEACHER_ADAPTED] = sizes[Network.TEACHER] + num_parameters(task.adapters)
    latency: dict[str, float] = {}
    if settings.students:
        step = trained.step
        with step.without_compilation():
            latency = latencies_ms(predictors, settings.data.crop_px, world.device, autocast=step.autocast)
    apart = trained.best.apart
    summary = RunSummary(
        run=settings.run.name,
        lines=tuple(
            NetworkResult(
                display_name(network),
                sizes[network],
                source.get(network),
                target[network],
                estimates.get(network),
                latency_ms=latency.get(network),
                selected_epoch=apart[network].epoch if network in apart else None,
                validation=_finite(apart[network].accuracy) if network in apart else None,
            )
            for network in predictors
        ),
        chance=1 / len(classes),
        selected_epoch=selected[chosen].epoch,
        validation_accuracy=_finite(selected[chosen].accuracy),
        train_images_per_s=statistics.median(trained.rates) if trained.rates else 0.0,
        num_workers=world.size,
        selected_by=criterion("distill", settings),
        classes=classes if len(classes) <= MOST_CLASSES else (),
        best_student=chosen.partition("/")[2],
    )
    stage.folder.write_json(RunFile.SUMMARY, summary.as_dict())


def selection_of(name: StageName, stage: StageRunner, best: Best) -> dict[str, Any]:
    """Return the value that selected the best epoch, by its name in files of weights."""
    by = criterion(name, stage.settings)
    value = _finite(best.accuracy)
    if by in LABEL_FREE:
        return {"selected_by": by, "validation_value": value}
    return {"validation_accuracy": value}


def _on_target(
    stage: StageRunner, predictors: Mapping[str, Predictor], step: TrainStep
) -> tuple[dict[str, Accuracy], dict[str, Estimate]]:
    """Return the accuracies on the target's test split and, without labels or on request, estimates of them."""
    settings = stage.settings
    if computes_criteria("distill", settings) or not has_labels(settings.target, "test"):
        return evaluate_label_free(stage, predictors, "test", step, reference=Network.TEACHER_ADAPTED)
    return stage.evaluate(predictors, settings.target, "test", step), {}


def _write_students(
    stage: StageRunner, students: Mapping[str, nn.Module], selected: Mapping[str, Best], chosen: str
) -> None:
    """Write the weights of each student, and of several those of the best one under the name of an only one too."""
    settings = stage.settings
    classes = stage.split(settings.target, "train").classes
    for name, config in settings.named_students.items():
        key = Network.STUDENT.of_student(name)
        about = selection_of("distill", stage, selected[key]) | ({"student": name} if name else {})
        metadata = stage.about(config, classes, domain=settings.target.url, **about)
        weights = encode_weights(students[key].state_dict(), metadata)
        stage.folder.write_bytes(RunFile.STUDENT.of_student(name), weights)
        if name and key == chosen:
            stage.folder.write_bytes(RunFile.STUDENT, weights)


def _section(key: str) -> str:
    """Return the key of the network in `StageRunner.conversions`, given its key before distillation."""
    role, _, name = key.partition("/")
    return with_student(role.partition("_")[0], name)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
