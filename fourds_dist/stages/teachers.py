"""The teacher of a stage: its file, its weights, and a check of its accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from fourds_dist.models.backbones import build_backbone
from fourds_dist.models.weights.files import read_file
from fourds_dist.models.weights.loading import load_weights
from fourds_dist.models.weights.metadata import NetworkMetadata
from fourds_dist.runs.layout import RunFile
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.grey_ranges import grey_ranges_of
from fourds_dist.stages.network_inputs import predictor
from fourds_dist.stages.runner import StageRunner
from fourds_dist.stages.settings import Settings
from fourds_dist.training.evaluate import PlainImages


def source_teacher(settings: Settings, folder: RunFolder) -> str:
    """Return the path or URL of the teacher trained on the source."""
    return settings.teacher.checkpoint or folder.path(RunFile.TEACHER)


def distilled_teacher(settings: Settings, folder: RunFolder) -> str:
    """Return the path or URL of the teacher to distil: the source teacher, or the one adapted to the target."""
    adapts = settings.adapt.method != "none"
    return folder.path(RunFile.TEACHER_ADAPTED) if adapts else source_teacher(settings, folder)


def load_teacher(stage: StageRunner, url: str, classes: tuple[str, ...]) -> nn.Module:
    """Return the teacher with all weights from a file, after a check against the run.

    Raises:
        ValueError: weights that do not fit, or that are for other classes or other preprocessing.
    """
    return read_teacher(stage.settings, url, classes, stage.notify)


def read_teacher(
    settings: Settings, url: str, classes: tuple[str, ...], notify: Callable[[str], None]
) -> nn.Module:
    """Return the teacher of a configuration with all weights from a file; see `load_teacher`.

    Args:
        notify: receives lines on differences between the file and the run.
    """
    side = settings.teacher.network_input(settings.data).image_px
    teacher = build_backbone(settings.teacher, len(classes), side)
    needed = NetworkMetadata.of_run(
        settings.data,
        settings.teacher,
        classes,
        has_source=settings.source.url is not None,
        grey_ranges=grey_ranges_of(settings),
    )
    load_weights(
        url,
        teacher,
        what="teacher.checkpoint",
        run=needed,
        metadata=settings.teacher.metadata,
        image_size=side,
        notify=notify,
    )
    return teacher


def check_teacher_accuracy(stage: StageRunner, url: str) -> None:
    """Report a teacher with chance accuracy whose file has no classes or preprocessing.

    Its classes may be in another order, or its preprocessing may differ. The accuracy is that on the validation split
    of the source, or of the target without a source.
    """
    file = read_file(url, what="teacher.checkpoint")
    of_file = NetworkMetadata.of_file(file.about, tensors=file.tensors)
    is_checked = stage.settings.teacher.metadata == "check"
    if is_checked and of_file.classes is not None and "mean" in of_file.preprocessing:
        return
    settings, device = stage.settings, stage.world.device
    domain = settings.target if settings.source.url is None else settings.source
    classes = stage.split(domain, "val").classes
    with torch.random.fork_rng(devices=[]):  # without effect on the stage's random numbers
        teacher = load_teacher(stage, url, classes).to(device).eval()
    images = PlainImages(device, settings.data.mean, settings.data.std)
    predict = predictor(teacher, stage.conversions.get("teacher"))
    accuracy = stage.evaluate({"teacher": predict}, domain, "val", images)["teacher"]
    chance = 1 / len(classes)
    if accuracy.value is None:
        return  # the split has no labels
    value = accuracy.value if accuracy.mean_per_class is None else accuracy.mean_per_class
    margin = max(2 * math.sqrt(chance * (1 - chance) / accuracy.num_samples), 0.1 * (1 - chance))
    if value <= chance + margin:
        stage.notify(
            f"teacher.checkpoint: {url} has an accuracy of {value:.1%} on {domain.url}'s validation split (mean over "
            f"classes), and chance is {chance:.1%}; check that its classes have the order of the data's, and that "
            "teacher.mean, teacher.std, teacher.image_px, data.resize_px and data.crop_px are its preprocessing"
        )
