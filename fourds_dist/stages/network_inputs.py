"""The images that each network of a run takes: from the keys, else from the weights, else from `data`.

`with_network_inputs` writes what the weights say into the keys teacher.image_px, teacher.mean, teacher.std and those of
the students, before a run starts, as far as it differs from data.crop_px, data.mean and data.std. All later code reads
the keys alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from fourds_dist.data.stream.network_input import InputConversion, NetworkInput
from fourds_dist.models.backbones import BackboneConfig
from fourds_dist.models.weights.metadata import same
from fourds_dist.models.weights.weights_input import weights_input
from fourds_dist.runs.layout import Network, display_name
from fourds_dist.stages.settings import Settings

B = TypeVar("B", bound=BackboneConfig)
INPUT_KEYS = ("image_px", "mean", "std")
"""Keys of a network's section that define its images."""
OF_DATA = {"image_px": "crop_px", "mean": "mean", "std": "std"}
"""Key of a network -> key of `data` that it replaces."""
WEIGHTS_KEYS = ("arch", "checkpoint", "start", "metadata")
"""Keys of a network's section on which the images that its weights say depend."""


def with_network_inputs(settings: Settings, former: Settings | None = None) -> Settings:
    """Return the settings with the sizes and normalisations that the weights of all networks say of themselves.

    Keys that are given stay. A key stays null where the weights say nothing or the value of `data`, and with
    `metadata: ignore`. Weights that cannot be read change nothing: the check of the networks refuses them.

    Args:
        former: the settings of the run if the run has started, whose values stay for the same weights.
    """

    def filled(config: B, held: B | None) -> B:
        absent = [key for key in INPUT_KEYS if getattr(config, key) is None]
        if held is not None and former is not None and _same_weights(settings, config, former, held):
            values = {key: getattr(held, key) for key in absent}
        else:
            values = _said(settings, config, absent)
        return config.model_copy(update=values)

    held = {} if former is None else former.named_students
    teacher = filled(settings.teacher, None if former is None else former.teacher)
    settings = settings.with_students(lambda name, student: filled(student, held.get(name)))
    return settings.model_copy(update={"teacher": teacher})


def network_configs(settings: Settings) -> dict[str, BackboneConfig]:
    """Return the sections of the teacher and of all students, by their keys in metrics."""
    students = {Network.STUDENT.of_student(name): config for name, config in settings.named_students.items()}
    return {Network.TEACHER.value: settings.teacher, **students}


def network_inputs(settings: Settings) -> dict[str, NetworkInput]:
    """Return the size and the normalisation of the images of each network, by its key in metrics."""
    return {key: config.network_input(settings.data) for key, config in network_configs(settings).items()}


def conversions(settings: Settings) -> dict[str, InputConversion]:
    """Return the conversions from batches to the images of the networks, of those that need one."""
    batches = NetworkInput.of_data(settings.data)
    found = {role: own.conversion(batches) for role, own in network_inputs(settings).items()}
    return {role: conversion for role, conversion in found.items() if conversion is not None}


class _OnBatches(nn.Module):
    """A network with the conversion of its images."""

    def __init__(self, network: nn.Module, conversion: InputConversion) -> None:
        super().__init__()
        self.network, self.conversion = network, conversion

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        return self.network(self.conversion(images))


def predictor(network: nn.Module, conversion: InputConversion | None) -> nn.Module:
    """Return the module from images of a batch to a network's logits."""
    return network if conversion is None else _OnBatches(network, conversion)


def described(inputs: Mapping[str, NetworkInput], batches: NetworkInput) -> str | None:
    """Return one line on the networks whose images differ from those of the batches; None if none do."""
    parts = []
    for role, own in inputs.items():
        differs = [
            f"{key} {_plain(getattr(own, key))}"
            for key in INPUT_KEYS
            if getattr(own, key) != getattr(batches, key)
        ]
        if differs:
            parts.append(f"the {display_name(role)} takes images of {', '.join(differs)}")
    if not parts:
        return None
    given = ", ".join(f"data.{OF_DATA[key]} {_plain(getattr(batches, key))}" for key in INPUT_KEYS)
    largest = max(own.image_px for own in inputs.values())
    more = ""
    if largest > batches.image_px:
        more = f"; crops of {batches.image_px} px are enlarged, and a larger data.crop_px gives more detail"
    return f"{'; '.join(parts)} (batches: {given}){more}"


def _said(settings: Settings, config: BackboneConfig, absent: list[str]) -> dict[str, Any]:
    """Return the values that the weights of a network give to keys that are null."""
    if not absent or (getattr(config, "metadata", "check") == "ignore"):
        return {}
    start, key = _weights(config)
    try:
        said = weights_input(config, start, key)
    except Exception:  # of files, stores and entry points; the check of the networks reports it
        return {}
    found = {name: value for name, value in said.items() if name in absent}
    return {name: v for name, v in found.items() if not same(v, getattr(settings.data, OF_DATA[name]))}


def _weights(config: Any) -> tuple[str, str]:
    """Return the weights with which a network of the run starts, and their key."""
    checkpoint = getattr(config, "checkpoint", None)
    if checkpoint is not None:
        return checkpoint, f"{config.role}.checkpoint"
    return config.start, f"{config.role}.start"


def _same_weights(settings: Settings, own: BackboneConfig, former: Settings, other: BackboneConfig) -> bool:
    keys = [key for key in WEIGHTS_KEYS if hasattr(own, key)]
    return all(getattr(own, key) == getattr(other, key) for key in keys) and all(
        getattr(settings.data, key) == getattr(former.data, key) for key in OF_DATA.values()
    )


def _plain(value: Any) -> str:
    return f"[{', '.join(f'{v:.4g}' for v in value)}]" if isinstance(value, tuple) else str(value)
