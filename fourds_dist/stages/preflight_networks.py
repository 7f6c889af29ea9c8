"""Checks of the networks before a run starts: weights, stages, and one step of every task without data."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fourds_dist.config.stage_names import StageName
from fourds_dist.data.stream.order import num_partitions
from fourds_dist.method import AdaptTeacher, FourDs, SourceClassifiers, StudentNetwork
from fourds_dist.method.task import Task
from fourds_dist.models.activation_checkpointing import checkpoint_blocks
from fourds_dist.models.backbones import BackboneConfig, stage_names
from fourds_dist.models.class_names import check_class_names
from fourds_dist.models.feature_hooks import inspect_stages, what_is
from fourds_dist.models.running_statistics import has_batch_norm
from fourds_dist.models.weights.loading import check_writable, load_weights
from fourds_dist.models.weights.metadata import NetworkMetadata
from fourds_dist.models.weights.networks import StudentConfig, TeacherConfig, build
from fourds_dist.stages.grey_ranges import grey_ranges_of
from fourds_dist.stages.network_inputs import conversions, network_configs, network_inputs
from fourds_dist.stages.probe import text_model
from fourds_dist.stages.settings import SECTION, Settings, stage_config, students_from_source
from fourds_dist.stages.stages import stages_to_run
from fourds_dist.stages.students import students_by_key
from fourds_dist.stages.target_labels import method_of, source_fraction
from fourds_dist.stages.trial_step import (
    FAULTS,
    call_on_blank_images,
    last_operation,
    parameters_without_gradient,
)
from fourds_dist.training.linear_probe import last_linear

_log = logging.getLogger(__name__)

_PROBABILITIES = {
    "Softmax": "softmax",
    "Sigmoid": "sigmoid",
    "Hardsigmoid": "hardsigmoid",
    "LogSigmoid": "logsigmoid",
}
"""Names of the operations whose outputs are not logits, by autograd's names."""


def check_networks(settings: Settings, num_classes: int, classes: Sequence[str] | None = None) -> None:
    """Check that all networks can be built, fit their initial weights, have the configured stages, and can be trained.

    Args:
        classes: class names of the data; None: the classes in files of weights are not checked.

    Raises:
        ValueError: the problem, with the network, the key and the remedy.
    """
    networks = _build(settings, num_classes, classes)
    for key, network in networks.items():
        check_writable(network, what=_label(key))
    configs = network_configs(settings)
    stages = {key: _stages(_label(key), configs[key], network) for key, network in networks.items()}
    for key, names in stages.items():
        if len(names) != len(stages["teacher"]):
            raise ValueError(
                f"teacher has {len(stages['teacher'])} stages {stages['teacher']}, {_label(key)} {len(names)} {names}; "
                f"name equally many under teacher.stages and {_label(key)}.stages"
            )
    if settings.teacher.checkpoint is not None:
        load_weights(
            settings.teacher.checkpoint,
            networks["teacher"],
            what="teacher.checkpoint",
            run=_needs(settings, settings.teacher, classes),
            metadata=settings.teacher.metadata,
            image_size=settings.teacher.network_input(settings.data).image_px,
            notify=lambda text: None,  # the stage that uses the weights reports
        )
    if settings.teacher.checkpoint is None and settings.source_stage.train != "all":
        side = settings.teacher.network_input(settings.data).image_px
        last_linear(networks["teacher"], num_classes, side, what="teacher")
        if settings.source_stage.train == "class_names":
            text_model(settings)
            if classes is not None:
                check_class_names(classes)
    for key, config in students_by_key(settings).items():
        if settings.method.preset == "adabn" and not has_batch_norm(networks[key]):
            raise ValueError(
                f"method.preset=adabn adapts BatchNorm's statistics alone, and {_label(key)}, {config.arch}, has no "
                "BatchNorm; use method.preset=4ds or distillation, or an arch of the student with BatchNorm"
            )
    if classes is not None:  # otherwise the networks have random weights here
        for key, network in networks.items():
            _check_values(network, _label(key))
    try:
        on_meta = {name: network.to("meta") for name, network in networks.items()}
        _check_tasks(settings, on_meta, stages, num_classes)
    except Exception:  # caused by the meta device or by the networks; a check on the CPU decides
        _check_tasks(settings, _build(settings, num_classes, None), stages, num_classes)


def _needs(
    settings: Settings, network: BackboneConfig, classes: Sequence[str] | None
) -> NetworkMetadata | None:
    """Return the metadata that the run requires of a network; None before the data are packed."""
    if classes is None:
        return None
    has_source = settings.source.url is not None
    return NetworkMetadata.of_run(
        settings.data, network, classes, has_source=has_source, grey_ranges=grey_ranges_of(settings)
    )


def _build(settings: Settings, num_classes: int, classes: Sequence[str] | None) -> dict[str, nn.Module]:
    """Return teacher and students by their keys, with their initial weights if the classes are given, else with random
    weights."""
    networks: dict[str, nn.Module] = {}
    for key, config in network_configs(settings).items():
        try:
            network = build(
                config,
                num_classes,
                start=_start(config) if classes is not None else "random",
                key=f"{config.role}.start",
                image_size=config.network_input(settings.data).image_px,
                run=_needs(settings, config, classes),
                notify=lambda text: None,
            )
        except ValueError as error:
            raise ValueError(f"{_label(key)}: {error}") from None
        if settings.step.activation_checkpointing and not checkpoint_blocks(network):
            raise ValueError(
                f"{_label(key)}: {config.arch} has no list of blocks that could run again; set "
                "step.activation_checkpointing=false"
            )
        networks[key] = network
    return networks


def _start(config: BackboneConfig) -> str:
    """Return the weights with which the run builds a network, before it trains or loads others."""
    if isinstance(config, TeacherConfig):
        return config.start if config.checkpoint is None else "random"
    assert isinstance(config, StudentConfig)
    return "random" if config.start == "source" else config.start


def _label(key: str) -> str:
    """Return the section of a network in the configuration, given its key in metrics.

    >>> _label("student"), _label("student/resnet10")
    ('student', 'students.resnet10')
    """
    return key.replace("student/", "students.")


def _stages(name: str, config: BackboneConfig, network: nn.Module) -> tuple[str, ...]:
    try:
        return stage_names(config, network)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _check_tasks(
    settings: Settings, networks: dict[str, nn.Module], stages: dict[str, tuple[str, ...]], num_classes: int
) -> None:
    """Run a forward and backward pass of every task of the run, with the run's image size and batch size."""
    sides = {key: own.image_px for key, own in network_inputs(settings).items()}
    configs = network_configs(settings)
    for key, network in networks.items():
        side, name = sides[key], _label(key)
        size_key = configs[key].size_key.replace("student.", f"{name}.")
        found = inspect_stages(network, stages[key], side, what=name, key=size_key).num_classes
        if found != num_classes:
            raise ValueError(
                f"{name}: {type(network).__name__} has {found} outputs, the data have {num_classes} classes; its entry "
                "point has to build a network with num_classes outputs"
            )
        _check_end(network, name, side)
    for stage in stages_to_run(settings):
        for key in _trained(stage, settings):
            _check_output(networks[key], _label(key), sides[key], learns=stage != "adapt")
        task = _task(stage, settings, networks, stages)
        _check_step(stage, settings, task, settings.data.crop_px)


def _trained(stage: StageName, settings: Settings) -> list[str]:
    """Return the keys of the networks that a stage trains."""
    if stage == "source":
        teacher = ["teacher"] if settings.teacher.checkpoint is None else []
        return teacher + list(students_from_source(settings))
    return ["teacher"] if stage == "adapt" else list(students_by_key(settings))


def _task(
    stage: StageName, settings: Settings, networks: dict[str, nn.Module], stages: dict[str, tuple[str, ...]]
) -> Task:
    if stage == "source":
        trained = {key: networks[key] for key in _trained(stage, settings)}
        return SourceClassifiers(trained, conversions(settings))
    if stage == "adapt":
        return AdaptTeacher(
            networks["teacher"],
            settings.adapt,
            conversions(settings),
            last_stage=stages["teacher"][-1],
            image_size=network_inputs(settings)["teacher"].image_px,
        )
    return FourDs(
        networks["teacher"],
        {
            key: StudentNetwork(networks[key], stages[key], config.start == "random")
            for key, config in students_by_key(settings).items()
        },
        teacher_stages=stages["teacher"],
        config=settings.method,
        image_size=settings.data.crop_px,
        inputs=conversions(settings),
    )


def _check_values(network: nn.Module, name: str) -> None:
    """Check that the initial weights are finite; buffers may have infinities, as attention masks do."""
    for key, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if tensor.is_meta or not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        is_bad = ~torch.isfinite(tensor) if isinstance(tensor, nn.Parameter) else torch.isnan(tensor)
        if is_bad.any():
            raise ValueError(
                f"{name}: {type(network).__name__} has initial values that are not finite in {key}; give finite "
                f"initial weights under {name}.arch or {name}.start"
            )


def _check_end(network: nn.Module, name: str, side_px: int) -> None:
    """Check that a network returns logits, since losses and metrics apply the softmax."""
    for training in (True, False):
        try:
            found = last_operation(network, side_px=side_px, training=training)
        except FAULTS:  # reported by the check of trained networks
            continue
        mode = "training" if training else "evaluation"
        if found in _PROBABILITIES:
            raise ValueError(
                f"{name}: {type(network).__name__} ends in {_PROBABILITIES[found]} in {mode}, but the losses apply a "
                f"softmax to logits; name an entry point under {name}.arch whose network has no last activation"
            )
        if found == "LogSoftmax" and training:
            _log.info(
                "%s: %s ends in log_softmax; its outputs are used as logits, as softmax gives equal values for both",
                name,
                type(network).__name__,
            )


def _check_output(network: nn.Module, name: str, side_px: int, *, learns: bool) -> None:
    """Check that a network in training mode returns only logits, and that its logits have a gradient.

    Args:
        learns: whether the stage trains the network's weights; False: no gradient is needed.
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
            f"{name}: {kind} returns {what_is(output)} in training instead of logits of shape (B, K); name an entry "
            f"point under {name}.arch whose network returns only logits"
        )
    if learns and not output.requires_grad:
        is_frozen = not any(parameter.requires_grad for parameter in network.parameters())
        reason = (
            "all its parameters are frozen (requires_grad=False)"
            if is_frozen
            else "its logits have no gradient (torch.no_grad, detach or argmax in its forward pass)"
        )
        raise ValueError(
            f"{name}: nothing in {kind} would train: {reason}; correct the entry point under {name}.arch"
        )


def _check_step(stage: StageName, settings: Settings, task: Task, side_px: int) -> None:
    smallest = smallest_part(stage, settings)
    try:
        without = parameters_without_gradient(task, batch_size=min(2, smallest), side_px=side_px)
    except FAULTS as error:
        if smallest == 1 and _works(lambda: parameters_without_gradient(task, batch_size=2, side_px=side_px)):
            key = f"{SECTION[stage]}.global_batch_size"
            raise ValueError(
                f"{key}={stage_config(stage, settings).global_batch_size} on {settings.launch.max_workers} worker(s) "
                f"with step.gradient_accumulation_steps={settings.step.gradient_accumulation_steps} leaves parts of "
                "one image, over which BatchNorm cannot normalise maps of one pixel; raise "
                f"{key} or data.crop_px, or lower step.gradient_accumulation_steps"
            ) from None
        raise ValueError(
            f"{SECTION[stage]}: a step over images of {side_px} px fails ({_line(error)})"
        ) from None
    idle = [name for name in without if name.startswith("adapters.")]
    if idle:
        number = int(idle[0].split(".")[1])
        name = stage_names(settings.teacher, task.teacher)[number]  # pyright: ignore[reportArgumentType]
        raise ValueError(
            f"teacher: the adapter after stage {name!r} gets no gradient, as the logits do not depend on that stage's "
            "output; choose another submodule under teacher.stages"
        )


def smallest_part(stage: StageName, settings: Settings) -> int:
    """Return the smallest number of images in a forward pass: a part of a worker's share of a batch, of one domain if
    both are normalised separately."""
    size = stage_config(stage, settings).global_batch_size
    num_parts = settings.step.gradient_accumulation_steps
    num_source = _num_source(settings, size) if stage == "distill" else 0
    shares = [_share(part, settings) for part in (size - num_source, num_source) if part > 0]
    if len(shares) == 2:
        return min(shares) // min(num_parts, *shares)
    part = math.ceil(shares[0] / num_parts)
    return shares[0] % part or part


def _share(num_images: int, settings: Settings) -> int:
    """Return the smallest worker's number of images of a domain's part of the global batch."""
    partitions = num_partitions(num_images)
    return max(1, partitions // settings.launch.max_workers) * (num_images // partitions)


def _num_source(settings: Settings, global_batch_size: int) -> int:
    """Return the number of source images that BatchNorm normalises separately; 0 if the data cannot be read."""
    try:
        is_separate = method_of(settings).domain_batch_norm
        return round(source_fraction(settings) * global_batch_size) if is_separate else 0
    except (ValueError, OSError):
        return 0


def _works(call: Callable[[], Any]) -> bool:
    try:
        call()
    except FAULTS:
        return False
    return True


def _line(error: BaseException) -> str:
    text = (str(error).splitlines() or [""])[0]
    return text if isinstance(error, (ValueError, RuntimeError)) else f"{type(error).__name__}: {text}"
