"""What is looked at of the networks before anything starts: weights, stages, one step of every task without data."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fourds_dist.data.order import num_lanes
from fourds_dist.method import AdaptTeacher, FourDs, SourceClassifiers
from fourds_dist.method.backbones import BackboneConfig, stage_names
from fourds_dist.method.recompute import recompute_blocks
from fourds_dist.method.taps import anatomy, what_is
from fourds_dist.settings import Settings
from fourds_dist.training.grey_ranges import grey_ranges_of
from fourds_dist.training.networks import build
from fourds_dist.training.stage import SECTION, StageName, stage_config
from fourds_dist.training.stages import stages_to_run
from fourds_dist.training.trial_step import (
    FAULTS,
    call_on_blank_images,
    last_operation,
    parameters_without_gradient,
)
from fourds_dist.training.weights import check_writable, load_weights
from fourds_dist.training.weights_about import About

_log = logging.getLogger(__name__)

_PROBABILITIES = {
    "Softmax": "softmax",
    "Sigmoid": "sigmoid",
    "Hardsigmoid": "hardsigmoid",
    "LogSigmoid": "logsigmoid",
}
"""Autograd's name of an operation after which there are no logits any more -> its own name."""


def check_networks(settings: Settings, num_classes: int, classes: Sequence[str] | None = None) -> None:
    """Both networks can be built, fit the weights they start from, have the stages that are compared, and take a step.

    Args:
        classes: names of the data's classes; None: those in files of weights are not held against them.

    Raises:
        ValueError: naming the network, the key and the remedy.
    """
    networks = _build(settings, num_classes, classes)
    for name, network in networks.items():
        check_writable(network, what=name)
    configs = {"teacher": settings.teacher, "student": settings.student}
    stages = {name: _stages(name, configs[name], network) for name, network in networks.items()}
    if len(stages["teacher"]) != len(stages["student"]):
        raise ValueError(
            f"teacher has {len(stages['teacher'])} stages {stages['teacher']}, student {len(stages['student'])} "
            f"{stages['student']}; name as many of each under teacher.stages and student.stages"
        )
    if settings.teacher.checkpoint is not None:
        load_weights(
            settings.teacher.checkpoint,
            networks["teacher"],
            what="teacher.checkpoint",
            run=_needs(settings, settings.teacher, classes),
            metadata=settings.teacher.metadata,
            image_size=settings.data.crop_px,
            tell=lambda text: None,  # the stage that uses them tells
        )
    if classes is not None:  # else the networks do not have their first weights yet
        for name, network in networks.items():
            _check_values(network, name)
    try:
        on_meta = {name: network.to("meta") for name, network in networks.items()}
        _check_tasks(settings, on_meta, stages, num_classes)
    except Exception:  # of the meta device or of the networks: only the CPU can tell
        _check_tasks(settings, _build(settings, num_classes, None), stages, num_classes)


def _needs(settings: Settings, network: BackboneConfig, classes: Sequence[str] | None) -> About | None:
    """What the run needs a network to be; None: not known before its data are there."""
    if classes is None:
        return None
    has_source = settings.source.url is not None
    return About.of_run(
        settings.data, network, classes, has_source=has_source, grey_ranges=grey_ranges_of(settings)
    )


def _build(settings: Settings, num_classes: int, classes: Sequence[str] | None) -> dict[str, nn.Module]:
    """Teacher and student; with their first weights where the classes are given, with random ones otherwise."""
    trains_teacher = "source" in stages_to_run(settings) and settings.teacher.checkpoint is None
    starts = {
        "teacher": settings.teacher.start if trains_teacher else "random",
        "student": "random" if settings.student.start == "source" else settings.student.start,
    }
    networks: dict[str, nn.Module] = {}
    for name, config in (("teacher", settings.teacher), ("student", settings.student)):
        try:
            network = build(
                config,
                num_classes,
                start=starts[name] if classes is not None else "random",
                key=f"{name}.start",
                image_size=settings.data.crop_px,
                run=_needs(settings, config, classes),
                tell=lambda text: None,
            )
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if settings.step.activation_checkpointing and not recompute_blocks(network):
            raise ValueError(
                f"{name}: {config.arch} is no list of blocks that could run again; leave out "
                "step.activation_checkpointing"
            )
        networks[name] = network
    return networks


def _stages(name: str, config: BackboneConfig, network: nn.Module) -> tuple[str, ...]:
    try:
        return stage_names(config, network)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _check_tasks(
    settings: Settings, networks: dict[str, nn.Module], stages: dict[str, tuple[str, ...]], num_classes: int
) -> None:
    """One forward and backward pass of every task that the run trains, at its size of images and of batches."""
    side = settings.data.crop_px
    for name, network in networks.items():
        found = anatomy(network, stages[name], side, what=name).num_classes
        if found != num_classes:
            raise ValueError(
                f"{name}: {type(network).__name__} tells {found} classes apart, the data have {num_classes}; its entry "
                "point has to build a network of num_classes outputs"
            )
        _check_end(network, name, side)
    for stage in stages_to_run(settings):
        for name in _learning(stage, settings):
            _check_output(networks[name], name, side, learns=stage != "adapt")
        task = _task(stage, settings, networks, stages)
        _check_step(stage, settings, task, side)


def _learning(stage: StageName, settings: Settings) -> list[str]:
    """The networks that a stage trains."""
    if stage == "source":
        trains_teacher, trains_student = (
            settings.teacher.checkpoint is None,
            settings.student.start == "source",
        )
        return ["teacher"] * trains_teacher + ["student"] * trains_student
    return ["teacher"] if stage == "adapt" else ["student"]


def _task(
    stage: StageName, settings: Settings, networks: dict[str, nn.Module], stages: dict[str, tuple[str, ...]]
) -> nn.Module:
    if stage == "source":
        return SourceClassifiers({name: networks[name] for name in _learning(stage, settings)})
    if stage == "adapt":
        return AdaptTeacher(networks["teacher"], settings.adapt)
    return FourDs(
        networks["teacher"],
        networks["student"],
        teacher_stages=stages["teacher"],
        student_stages=stages["student"],
        config=settings.method,
        image_size=settings.data.crop_px,
        novice=settings.student.start == "random",
    )


def _check_values(network: nn.Module, name: str) -> None:
    """The first weights are finite; buffers may hold infinities, as masks of attention do."""
    for key, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if tensor.is_meta or not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        is_bad = ~torch.isfinite(tensor) if isinstance(tensor, nn.Parameter) else torch.isnan(tensor)
        if is_bad.any():
            raise ValueError(
                f"{name}: {type(network).__name__} begins with values that are not finite in {key}; give it finite "
                f"first weights under {name}.arch or {name}.start"
            )


def _check_end(network: nn.Module, name: str, side_px: int) -> None:
    """A network gives logits: the losses and the tests apply softmax themselves."""
    for training in (True, False):
        try:
            found = last_operation(network, side_px=side_px, training=training)
        except FAULTS:  # told where the network has to learn
            continue
        mode = "training" if training else "evaluation"
        if found in _PROBABILITIES:
            raise ValueError(
                f"{name}: {type(network).__name__} ends in {_PROBABILITIES[found]} in {mode}, and logits are needed: "
                f"the losses apply softmax themselves; name an entry point under {name}.arch whose network leaves "
                "its last activation out"
            )
        if found == "LogSoftmax" and training:
            _log.info(
                "%s: %s ends in log_softmax; its outputs are taken as logits, as softmax gives the same of both",
                name,
                type(network).__name__,
            )


def _check_output(network: nn.Module, name: str, side_px: int, *, learns: bool) -> None:
    """A network that learns has to give its logits alone, also in training, and something in it has to learn.

    Args:
        learns: its own weights do; else adapters in it.
    """
    kind = type(network).__name__
    try:
        output = call_on_blank_images(network, batch_size=2, side_px=side_px)
    except FAULTS as error:
        other = {p.dtype for p in network.parameters() if p.is_floating_point()} - {torch.float32}
        remedy = f"; its weights are {other.pop()}: make them torch.float32" if other else ""
        raise ValueError(
            f"{name}: {kind} fails in training on images of {side_px} px ({_line(error)}){remedy}"
        ) from None
    if not isinstance(output, Tensor) or output.dim() != 2:
        raise ValueError(
            f"{name}: {kind} gives {what_is(output)} in training, where its logits of shape (B, K) are "
            f"needed; name an entry point under {name}.arch whose network gives them alone"
        )
    if learns and not output.requires_grad:
        is_frozen = not any(parameter.requires_grad for parameter in network.parameters())
        reason = (
            "all its parameters are frozen (requires_grad=False)"
            if is_frozen
            else "its logits come without a gradient (torch.no_grad, detach or argmax in its forward pass)"
        )
        raise ValueError(
            f"{name}: nothing in {kind} would train: {reason}; correct the entry point under {name}.arch"
        )


def _check_step(stage: StageName, settings: Settings, task: nn.Module, side_px: int) -> None:
    smallest = smallest_part(stage, settings)
    try:
        without = parameters_without_gradient(task, batch_size=min(2, smallest), side_px=side_px)
    except FAULTS as error:
        if smallest == 1 and _works(lambda: parameters_without_gradient(task, batch_size=2, side_px=side_px)):
            key = f"{SECTION[stage]}.global_batch_size"
            raise ValueError(
                f"{key}={stage_config(stage, settings).global_batch_size} on {settings.launch.max_workers} "
                "worker(s) with "
                f"step.accumulation={settings.step.accumulation} leaves parts of one image, over which "
                "BatchNorm cannot "
                f"normalise maps of one pixel; raise {key} or data.crop_px, or lower step.accumulation"
            ) from None
        raise ValueError(
            f"{SECTION[stage]}: a step over images of {side_px} px fails ({_line(error)})"
        ) from None
    idle = [name for name in without if name.startswith("adapters.")]
    if idle:
        number = int(idle[0].split(".")[1])
        name = stage_names(settings.teacher, task.teacher)[number]  # pyright: ignore[reportArgumentType]
        raise ValueError(
            f"teacher: the adapter after stage {name!r} gets no gradient: what that stage gives does not "
            "reach the logits; "
            "choose another submodule under teacher.stages"
        )


def smallest_part(stage: StageName, settings: Settings) -> int:
    """The fewest images that go through the networks at a time: a worker's share of a batch, cut for accumulation."""
    size = stage_config(stage, settings).global_batch_size
    lanes = num_lanes(size)
    share = max(1, lanes // settings.launch.max_workers) * (size // lanes)
    part = math.ceil(share / settings.step.accumulation)
    return share % part or part


def _works(call: Callable[[], Any]) -> bool:
    try:
        call()
    except FAULTS:
        return False
    return True


def _line(error: BaseException) -> str:
    text = (str(error).splitlines() or [""])[0]
    return text if isinstance(error, (ValueError, RuntimeError)) else f"{type(error).__name__}: {text}"
