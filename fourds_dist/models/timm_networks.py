"""Networks of timm: by a name of its registry, of a repository of the Hugging Face hub, or of a folder.

timm/convnext_atto               a name of the registry; timm/convnext_atto.d2_in1k names weights too
hf-hub:owner/name                a repository with timm's config.json; hf-hub:owner/name@revision; hf://owner/name too
local-dir:PATH                   a folder with the files of such a repository
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from fourds_dist.io.error_text import error_line, one_line
from fourds_dist.io.extras import fix
from fourds_dist.models.hub import HUB, SCHEME, fetch, is_repository, repository_of

REGISTRY = "timm/"
FOLDER = "local-dir:"
CONFIG_FILE = "config.json"

_NEAREST = 3
_SIZES_TO_TRY = 12
"""Multiples of 8 px around a refused image size that are tried, besides the model's own size."""


class TimmName(NamedTuple):
    """What timm builds for a name."""

    model: str
    """Name in timm's registry, with the tag of the weights if given."""
    config: Any
    """timm's description of the weights (PretrainedCfg); None if timm has none."""
    options: dict[str, Any]
    """Arguments of the constructor: the description and those in the file of a repository or a folder."""


def is_timm(arch: str) -> bool:
    """Return whether timm builds the network of this name."""
    return arch.startswith((REGISTRY, HUB, SCHEME, FOLDER))


def resolve(arch: str) -> TimmName:
    """Return what timm builds for a name.

    Raises:
        ValueError: timm is missing, a name or tag that timm does not have (with the nearest), or a repository or folder
            without a model of timm.
    """
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise ValueError(f"architecture {arch!r} needs timm ({error}): {fix('timm')}") from None
    if arch.startswith(REGISTRY):
        return _of_registry(timm, arch.removeprefix(REGISTRY))
    if is_repository(arch):
        source = repository_of(arch)
        fetch(source, (CONFIG_FILE,), where=arch, instead=f"arch={FOLDER}{{folder}}")
        load = timm.models.load_model_config_from_hf
    else:
        load = importlib.import_module("timm.models._hub").load_model_config_from_path
        source = str(Path(arch.removeprefix(FOLDER)).expanduser())
        if not Path(source, CONFIG_FILE).is_file():
            raise ValueError(
                f"{arch}: {source} has no {CONFIG_FILE} of timm; give a folder with the files of a repository "
                f"({CONFIG_FILE}, model.safetensors)"
            )
    try:
        config, model, options = load(source)
        names = {field.name for field in dataclasses.fields(timm.models.PretrainedCfg)}
        description = timm.models.PretrainedCfg(**{k: v for k, v in config.items() if k in names})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{arch}: its {CONFIG_FILE} describes no model of timm ({one_line(error)}); give timm/NAME as arch, and "
            "the weights under start"
        ) from None
    if not timm.is_model(model):
        raise ValueError(f"{arch}: its {CONFIG_FILE} names the architecture {_unknown(timm, model)}")
    return TimmName(model, description, {**options, "pretrained_cfg": description.to_dict()})


def _of_registry(timm: Any, name: str) -> TimmName:
    if not timm.is_model(name):
        raise ValueError(_unknown(timm, name))
    try:
        return TimmName(name, timm.get_pretrained_cfg(name), {})
    except RuntimeError:
        model, _, tag = name.partition(".")
        tags = sorted(known.partition(".")[2] for known in timm.list_pretrained(f"{model}.*"))
        known = f"known: {', '.join(tags)}" if tags else "timm has no weights for this model"
        raise ValueError(f"timm/{model} has no weights {tag!r}; {known}") from None


def _unknown(timm: Any, name: str) -> str:
    nearest = difflib.get_close_matches(name, timm.list_models(), n=_NEAREST)
    if not nearest:
        return f"timm has no model {name!r}; `timm.list_models()` lists all"
    names = " or ".join(f"'{REGISTRY}{other}'" for other in nearest)
    return f"timm has no model {name!r}; did you mean {names}?"


def size_options(name: TimmName, image_size: int | None) -> dict[str, Any]:
    """Return the keyword argument for the image size; empty for networks of any size, or without a given size."""
    is_fixed = name.config is not None and name.config.fixed_input_size
    return {"img_size": image_size} if image_size is not None and is_fixed else {}


def build(arch: str, num_classes: int, image_size: int | None, *, key: str = "data.crop_px") -> nn.Module:
    """Return a classifier of timm with random weights.

    Args:
        image_size: side of the square images in pixels, for networks of a fixed size; None: the default size.
        key: key of the image size in the configuration, for messages.

    Raises:
        ValueError: see `resolve`; a model without a classifier, or an image size that the model does not take.
    """
    name = resolve(arch)
    sizes = size_options(name, image_size)
    try:
        network = create(name, num_classes, sizes)
    except Exception as error:  # timm's constructors raise exceptions of many classes
        if not sizes:
            raise
        near = _nearest_size(name, num_classes, sizes["img_size"])
        raise ValueError(
            f"{arch} does not take images of {image_size} px ({error_line(error)}); set {key}={near}"
        ) from None
    if getattr(network, "num_classes", num_classes) != num_classes:
        raise ValueError(
            f"{arch} has no classifier: timm builds this model for features alone; choose a model with a classifier "
            "(timm.list_models() lists them), or an entry point that adds one"
        )
    return network


def create(name: TimmName, num_classes: int | None, options: dict[str, Any], **more: Any) -> nn.Module:
    """Return the network that timm builds.

    Args:
        num_classes: None: the number of classes of the weights.
        more: further arguments of timm.create_model.
    """
    timm = importlib.import_module("timm")
    classes = {} if num_classes is None else {"num_classes": num_classes}
    return timm.create_model(
        name.model, **{"pretrained": False, **classes, **name.options, **options, **more}
    )


def native_size(network: nn.Module) -> int | None:
    """Return the side of the square images in pixels for which timm built or describes a network; None if unknown."""
    size = getattr(network, "_model_args", {}).get("img_size")
    if size is None:
        size = (getattr(network, "pretrained_cfg", None) or {}).get("input_size", (None,))[-1]
    return size[0] if isinstance(size, tuple | list) else size


def _nearest_size(name: TimmName, num_classes: int, image_size: int) -> int:
    """Return the image size nearest to a refused one that the model takes; its own size if no size near it is."""
    near = round(image_size / 8)
    tried = {8 * step for step in range(max(1, near - _SIZES_TO_TRY // 2), near + _SIZES_TO_TRY // 2 + 1)}
    for size in sorted(tried, key=lambda size: (abs(size - image_size), size)):
        try:
            with torch.device("meta"):
                create(name, num_classes, {"img_size": size})
        except Exception:  # this size is refused too
            continue
        return size
    return name.config.input_size[-1]
