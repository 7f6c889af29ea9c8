"""Class names and image normalisation in the values that other trainers store with a file's tensors.

The values may be nested in any way. Keys are compared without case and punctuation. An ambiguous key (`names`,
`labels`), or a key outside the mappings in which trainers store settings, counts only if its names match the classes of
the data.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fourds_dist.io.json_text import parse_json
from fourds_dist.models.weights.settings_text import settings_of

_NESTED = (
    "hyperparameters datamodulehyperparameters hparams args opt cfg config configjson meta metadata datasetmeta "
    "preprocessing preprocessor preprocessorconfigjson dataconfig pretrainedcfg transform transforms normalize "
    "normalization imgnormcfg datapreprocessor"
)
NESTED = frozenset(_NESTED.split())
"""Keys, normalised by `_plain`, of the mappings in which trainers store settings."""

_CLASS_KEYS = (
    "classes classnames classtoidx idxtoclass labelnames id2label label2id class2idx idx2class class2id id2class "
    "label2idx idx2label labeltoidx idxtolabel labeltoid idtolabel classlist categories categorynames"
)
_OTHER_CLASS_KEYS = (
    "names labels vocab labelmap labelmapping classmap classmapping classindex labellist labelencoder "
    "targetnames tags"
)
CLASS_KEYS, OTHER_CLASS_KEYS = tuple(_CLASS_KEYS.split()), tuple(_OTHER_CLASS_KEYS.split())
"""Keys of class names, and keys that may hold class names or something else."""

_OF_IMAGES = (
    "",
    "image",
    "img",
    "pixel",
    "norm",
    "normalize",
    "normalization",
    "input",
    "dataset",
    "data",
    "rgb",
    "new",
)
MEANS = tuple((f"{word}mean", f"{word}std") for word in _OF_IMAGES)
"""Keys of the mean and the standard deviation of images in one mapping."""

_BGR_IF_SET = "doflipchannelorder flipchannelorder doflipchannels rgbtobgr rgb2bgr tobgr usebgr isbgr bgr"
_BGR_UNLESS_SET = "torgb bgrtorgb bgr2rgb"
_BGR_IF = {True: _BGR_IF_SET.split(), False: _BGR_UNLESS_SET.split()}
"""Keys of flags whose value True, or False, means that the network reads images in BGR."""
_ORDER = re.compile("channel|colou?r|space|format|mode|order")
"""Parts of keys whose value may be the text BGR."""

MOST = 1e6
"""Upper bound of a mean or standard deviation of images; larger values are ignored."""
MOST_PLACES = 10_000
"""Maximum number of mappings to search for settings."""

_NUMBERED = re.compile(r"label_?[0-9]+", re.IGNORECASE)
"""Hugging Face's names of unnamed classes."""

_NORMALISER = re.compile(r"(.*[._]|)(mean|std|stddev|sigma)", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """A mapping of settings.

    Args:
        values: values by their keys, normalised by `_plain`.
        is_known: whether the mapping is one in which trainers store settings.
    """

    values: Mapping[str, Any]
    is_known: bool


def places(values: Mapping[str, Any]) -> list[Place]:
    """Return the mapping and all nested ones, outer ones first, with the attributes of objects and JSON texts."""
    found: list[Place] = []
    pending: deque[tuple[Mapping[Any, Any], bool]] = deque([(values, True)])
    while pending and len(found) < MOST_PLACES:
        mapping, is_known = pending.popleft()
        found.append(Place({_plain(key): value for key, value in mapping.items()}, is_known))
        for key, value in mapping.items():
            inner = _mapping(value, is_known=is_known and _plain(key) in NESTED)
            if inner and not _is_weights(inner):
                pending.append((inner, is_known and _plain(key) in NESTED))
    return found


def class_names(found: Sequence[Place], like: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the names of a network's classes in the order of its outputs; None if there are none.

    Args:
        like: classes of the data. Names under an ambiguous key or mapping count only if most of them are among these
            classes. None: such names count too.
    """
    for keys, is_sure in ((CLASS_KEYS, True), (CLASS_KEYS, False), (OTHER_CLASS_KEYS, False)):
        for place in found:
            for key in keys:
                if key not in place.values or (is_sure and not place.is_known):
                    continue
                names = _names(place.values[key], is_sure=is_sure)
                if names and (is_sure or _fit(names, like)):
                    return names
    return None


def normalisation(found: Sequence[Place]) -> dict[str, tuple[float, ...]]:
    """Return `mean` and `std` of images by channel, in [0, 1] units, as far as given."""
    for place in found:
        if place.is_known and place.values.get("donormalize") is False:
            return {"mean": (0.0,) * 3, "std": (1.0,) * 3}
        for names in MEANS:
            mean, std = (_numbers(place.values.get(name)) for name in names)
            if (mean and std) or (place.is_known and (mean or std) and names == MEANS[0]):
                scale = 255 if max(mean or (0,)) > 1 or max(std or (0,)) > 1 else 1
                both = {"mean": mean, "std": std}
                return {key: tuple(v / scale for v in value) for key, value in both.items() if value}
    return {}


def reads_bgr(found: Sequence[Place]) -> bool:
    """Whether the first setting of the channel order says BGR, the order in which OpenCV reads images."""
    for place in found:
        for key, value in place.values.items():
            if isinstance(value, str) and _ORDER.search(key) and value.strip().lower() in ("bgr", "rgb"):
                return value.strip().lower() == "bgr"
            for flag, keys in _BGR_IF.items():
                if isinstance(value, bool) and key in keys:
                    return value is flag
    return False


def input_normaliser(tensors: Mapping[str, Tensor], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return `mean` and `std` of a layer of the file's network that normalises images and that the run's network lacks.

    Args:
        own: state dict of the run's network.
    """
    by_layer: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _NORMALISER.fullmatch(name)
        is_own = any(
            name.endswith(other) for other in own if other.rpartition(".")[2] == name.rpartition(".")[2]
        )
        if match and not match[1].endswith("running_") and tensor.numel() in (1, 3) and not is_own:
            by_layer.setdefault(match[1], {})["mean" if match[2].lower() == "mean" else "std"] = tensor
    return next((layer for layer in by_layer.values() if len(layer) == 2), {})


def _plain(key: object) -> str:
    return re.sub(r"[\W_]", "", str(key)).lower()


def _mapping(value: Any, *, is_known: bool) -> Mapping[Any, Any] | None:
    """Return the settings in a value: its items, and the attributes of an object of an unknown class.

    Args:
        is_known: the value is where trainers store settings; other texts are read only if they look like JSON.
    """
    if isinstance(value, str) and (is_known or value.lstrip()[:1] == "{"):
        value = settings_of(value)
    if isinstance(value, Tensor | str | bytes) or callable(value):
        return None
    attributes = getattr(value, "__dict__", None)
    settings = attributes if isinstance(attributes, Mapping) else {}
    return {**value, **settings} if isinstance(value, Mapping) else settings


def _is_weights(value: Mapping[Any, Any]) -> bool:
    """Whether a mapping is a state dict, which contains no settings."""
    num = sum(isinstance(inner, Tensor) and inner.numel() > 3 for inner in value.values())
    return 2 * num > len(value)


def _fit(names: Sequence[str], like: Sequence[str] | None) -> bool:
    return like is None or 2 * len({*map(plain_name, names)} & {*map(plain_name, like)}) >= len(names)


def _names(value: Any, *, is_sure: bool) -> tuple[str, ...] | None:
    """Return class names in their order. The value is a list, a text with one name per line or with commas, a
    dictionary from or to numbers, or a list of categories with ids."""
    if isinstance(value, str):
        return _of_text(value)
    if isinstance(value, Mapping):
        names = _of_mapping(value)
    elif isinstance(value, Sequence) or hasattr(value, "tolist"):
        items = list(value.tolist() if hasattr(value, "tolist") else value)  # pyright: ignore[reportAttributeAccessIssue]
        if items and all(isinstance(item, Mapping) and {"id", "name"} <= set(item) for item in items):
            return _of_mapping({item["id"]: item["name"] for item in items})
        if not is_sure and items and all(_is_number(item) for item in items):
            items = [str(item) for item in items]
        names = tuple(items) if items and all(isinstance(name, str) for name in items) else None
    else:
        return None
    return None if names and all(_NUMBERED.fullmatch(name) for name in names) else names


def _of_text(text: str) -> tuple[str, ...] | None:
    try:
        value = parse_json(text)
    except ValueError:
        for separator in ("\n", ";", ","):
            parts = [part.strip() for part in text.strip().split(separator)]
            if len(parts) > 1:
                return tuple(parts)
        return None
    return None if isinstance(value, str) else _names(value, is_sure=True)


def _of_mapping(value: Mapping[Any, Any]) -> tuple[str, ...] | None:
    """Return the names of a mapping from or to numbers, which start at 0 or 1."""
    keys, values = list(value), list(value.values())
    if all(_is_number(v) and not isinstance(v, str) for v in values):
        pairs = list(zip(keys, values, strict=True))
    elif all(map(_is_number, keys)):
        pairs = list(zip(values, keys, strict=True))
    else:
        pairs = list(zip(keys, values, strict=True))
    if not pairs or not all(isinstance(name, str) and _is_number(index) for name, index in pairs):
        return None
    by_index = {int(index): name for name, index in pairs}
    first = min(by_index)
    if first not in (0, 1) or set(by_index) != set(range(first, first + len(pairs))):
        return None
    return tuple(by_index[n] for n in sorted(by_index))


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()):
        return True
    return hasattr(value, "__index__") and getattr(value, "ndim", 0) == 0


def _numbers(value: Any) -> tuple[float, ...] | None:
    """Return one number per channel (three); a single number applies to all channels."""
    if isinstance(value, Tensor) or hasattr(value, "tolist"):
        value = value.flatten().tolist() if hasattr(value, "flatten") else value.tolist()
    if isinstance(value, int | float):
        value = [value]
    if not isinstance(value, list | tuple) or len(value) not in (1, 3):
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < MOST for v in value):
        return None
    return tuple(float(v) for v in value) * (3 // len(value))


def plain_name(name: str) -> str:
    """Return a class name normalised for comparison."""
    return unicodedata.normalize("NFC", name).strip()
