"""What a file of weights says of itself, held against the run: classes, preprocessing, architecture.

Runs write `arch`, `stem`, `classes` and `preprocessing` into the metadata of their safetensors files. Other trainers
leave `classes` or `class_to_idx`, `mean` and `std` beside the tensors, some of them inside `hyper_parameters`, `args`,
`config` or `meta`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fourds_dist.data.grey import GreyRange, is_range
from fourds_dist.json_text import parsed_json

if TYPE_CHECKING:
    from fourds_dist.method.backbones import BackboneConfig
    from fourds_dist.settings import Settings

CLASS_KEYS = ("classes", "class_names", "classnames", "class_to_idx", "idx_to_class", "label_names",
              "id2label", "label2id", "CLASSES")  # fmt: skip
NESTED = ("hyper_parameters", "args", "config", "cfg", "meta", "metadata", "dataset_meta", "preprocessing",
          "data_config", "pretrained_cfg", "transform", "normalize")  # fmt: skip
PREPROCESSING_KEYS = ("resize_px", "crop_px", "mean", "std")
"""The keys of `data` by which an image becomes a network's input."""

GREY_TOLERANCE = 0.1
"""Of the ends of a grey range, as a share of its width."""
TOLERANCE = 1e-3
"""Of means and standard deviations, in [0, 1] units: authors round them."""


@dataclass(frozen=True)
class About:
    """A network's description; None and empty where nothing is said."""

    arch: str | None = None
    stem: str | None = None
    classes: tuple[str, ...] | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    grey_ranges: tuple[GreyRange, ...] = ()
    """Of the run's domains, or of the file; empty where there are no images of more than 8 bits."""
    has_source: bool = False
    """Whether the run reads images of the source."""

    @classmethod
    def of_run(
        cls,
        settings: Settings,
        network: BackboneConfig,
        classes: Sequence[str],
        grey_ranges: Sequence[GreyRange] = (),
    ) -> About:
        """What a run needs its network to be.

        Args:
            grey_ranges: by which the images of its domains are read.
        """
        has_source = settings.source.url is not None
        prepared = preprocessing_of(settings)
        return cls(network.arch, network.stem, tuple(classes), prepared, tuple(grey_ranges), has_source)

    @classmethod
    def of_file(cls, about: Mapping[str, Any]) -> About:
        """What a file says, from the values beside its tensors; what cannot be understood is left out."""
        places = list(_places(about))
        classes = next(filter(None, (_classes(p[k]) for p in places for k in CLASS_KEYS if k in p)), None)
        is_ours = about.get("format") == "fourds_dist"
        told: dict[str, Any] = {}
        for place in places:
            for key in PREPROCESSING_KEYS if is_ours else ("mean", "std"):
                value = _numbers(place.get(key))
                if value is not None:
                    told.setdefault(key, value)
        if is_ours:
            told = {**told, **_json(about.get("preprocessing"))}
        arch, stem = (about.get(key) if is_ours else None for key in ("arch", "stem"))
        grey_range = told.pop("grey_range", None)
        grey_range = tuple(grey_range) if isinstance(grey_range, list) else None
        return cls(arch, stem, classes, told, (grey_range,) if is_range(grey_range) else ())  # pyright: ignore[reportArgumentType]


def preprocessing_of(settings: Settings) -> dict[str, Any]:
    """How a run's images become its networks' input, for the metadata of its files."""
    return settings.data.model_dump(include=set(PREPROCESSING_KEYS))


def class_order(file: About, run: About) -> list[int] | None:
    """For each class of the run its place in the file, where both have the same names; None: they do not, or one side
    names none."""
    if file.classes is None or run.classes is None:
        return None
    theirs = {_name(name): place for place, name in enumerate(file.classes)}
    ours = [_name(name) for name in run.classes]
    if len(theirs) != len(file.classes) or set(theirs) != set(ours) or len(ours) != len(theirs):
        return None
    return [theirs[name] for name in ours]


def other_classes(file: About, run: About) -> str | None:
    """How the class names of a file differ from the run's; None: the same names, or one side names none."""
    if file.classes is None or run.classes is None or class_order(file, run) is not None:
        return None
    theirs, ours = ({_name(name) for name in names} for names in (file.classes, run.classes))
    parts = []
    if len(file.classes) != len(run.classes):
        parts.append(f"it has {len(file.classes)} classes, the data have {len(run.classes)}")
    if ours - theirs:
        parts.append(f"it lacks {_some(n for n in run.classes if _name(n) not in theirs)}")
    if theirs - ours:
        parts.append(f"the data lack its {_some(n for n in file.classes if _name(n) not in ours)}")
    return "; ".join(parts) or "its class names are not distinct"


def other_preprocessing(file: About, run: About, keys: Iterable[str] = PREPROCESSING_KEYS) -> list[str]:
    """Differences in how images are prepared, each with both values and the key of the run.

    Args:
        keys: that are compared.
    """
    told = []
    for key in keys:
        theirs, ours = file.preprocessing.get(key), run.preprocessing.get(key)
        if theirs is not None and ours is not None and not _same(theirs, ours):
            told.append(f"data.{key} is {_plain(theirs)} in the file and {_plain(ours)} in the run")
    return told


def other_grey_range(file: About, run: About) -> tuple[str, bool] | None:
    """How the grey range that a file names differs from those of all domains of the run, and whether by much.

    Ranges are measured, so those of two data sets of one kind differ a little. A file for a domain that the run does
    not read may name any range. None: one of them is the file's, or one side names none.
    """
    if not file.grey_ranges or not run.grey_ranges:
        return None
    (theirs,) = file.grey_ranges
    span = theirs[1] - theirs[0]
    away = [max(abs(a - b) for a, b in zip(theirs, ours, strict=True)) / span for ours in run.grey_ranges]
    if min(away) < TOLERANCE:
        return None
    ours = " and ".join(dict.fromkeys(_range(ours) for ours in run.grey_ranges))
    text = f"data.grey_range is {_range(theirs)} in the file and {ours} in the run"
    return text, run.has_source and min(away) > GREY_TOLERANCE


def other_architecture(file: About, run: About) -> str | None:
    """The architecture that a file names, where it is not the run's."""
    differs = [
        f"{key}={theirs}"
        for key, theirs, ours in (("arch", file.arch, run.arch), ("stem", file.stem, run.stem))
        if theirs is not None and ours is not None and theirs != ours
    ]
    return ", ".join(differs) or None


def _places(about: Mapping[str, Any], depth: int = 0) -> Iterable[Mapping[str, Any]]:
    """The mapping, and the mappings in it that hold settings; objects count by their attributes."""
    yield about
    for key in NESTED if depth < 3 else ():
        inner = about.get(key)
        if isinstance(inner, str):
            inner = _json(inner)
        attributes = getattr(inner, "__dict__", None)
        for place in (inner, attributes):
            if isinstance(place, Mapping) and place:
                yield from _places(place, depth + 1)


def _json(text: Any) -> dict[str, Any]:
    try:
        value = parsed_json(text)
    except (TypeError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _classes(value: Any) -> tuple[str, ...] | None:
    """Class names in their order, from a list, a text with a name a line, or a dictionary from or to numbers."""
    if isinstance(value, str):
        try:
            return _classes(parsed_json(value))
        except ValueError:
            return tuple(value.split("\n")) if "\n" in value else None
    if isinstance(value, Mapping) and value:
        to_numbers = all(_is_number(v) and not isinstance(v, str) for v in value.values())
        pairs = [(k, v) if to_numbers else (v, k) for k, v in value.items()]
        if not all(isinstance(name, str) and _is_number(place) for name, place in pairs):
            return None
        by_place = {int(place): name for name, place in pairs}
        return (
            tuple(by_place[n] for n in range(len(by_place)))
            if set(by_place) == set(range(len(pairs)))
            else None
        )
    if isinstance(value, Sequence) or hasattr(value, "tolist"):
        names = list(value.tolist() if hasattr(value, "tolist") else value)  # pyright: ignore[reportAttributeAccessIssue]
        return tuple(names) if names and all(isinstance(name, str) for name in names) else None
    return None


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return (
        isinstance(value, int) or (isinstance(value, str) and value.isdigit()) or hasattr(value, "__index__")
    )


def _numbers(value: Any) -> Any:
    """One number or three, in [0, 1] units."""
    if isinstance(value, Tensor) or hasattr(value, "tolist"):
        value = value.flatten().tolist() if hasattr(value, "flatten") else value.tolist()
    if (
        isinstance(value, (list, tuple))
        and len(value) == 3
        and all(isinstance(v, (int, float)) for v in value)
    ):
        scale = 255 if max(value) > 1 else 1
        return tuple(v / scale for v in value)
    return None


def _name(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip()


def _same(theirs: Any, ours: Any) -> bool:
    if isinstance(theirs, (list, tuple)) and isinstance(ours, (list, tuple)):
        return len(theirs) == len(ours) and all(_same(a, b) for a, b in zip(theirs, ours, strict=True))
    if isinstance(theirs, float) or isinstance(ours, float):
        return (
            isinstance(theirs, (int, float))
            and isinstance(ours, (int, float))
            and abs(theirs - ours) < TOLERANCE
        )
    return theirs == ours


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_plain(v) for v in value)}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _range(values: GreyRange) -> str:
    return f"[{values[0]:.10g}, {values[1]:.10g}]"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(repr(name) for name in listed[:3]) + (
        f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    )
