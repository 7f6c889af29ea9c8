"""What a file of weights says of itself, held against the run: classes, preprocessing, architecture.

Runs write `arch`, `stem`, `classes` and `preprocessing` into the metadata of their safetensors files. What other
trainers leave is found by `weights_description`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fourds_dist.data.grey import GreyRange, is_range
from fourds_dist.json_text import parsed_json
from fourds_dist.training.weights_description import (
    Place,
    class_names,
    input_normaliser,
    normalisation,
    places,
    plain_name,
)

if TYPE_CHECKING:
    from fourds_dist.data import LoaderConfig
    from fourds_dist.method.backbones import BackboneConfig

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
        data: LoaderConfig,
        network: BackboneConfig,
        classes: Sequence[str],
        *,
        has_source: bool,
        grey_ranges: Sequence[GreyRange] = (),
    ) -> About:
        """What a run needs its network to be.

        Args:
            grey_ranges: by which the images of its domains are read.
        """
        prepared = preprocessing_of(data)
        return cls(network.arch, network.stem, tuple(classes), prepared, tuple(grey_ranges), has_source)

    @classmethod
    def of_file(
        cls,
        about: Mapping[str, Any],
        *,
        run: About | None = None,
        tensors: Mapping[str, Tensor] | None = None,
        own: Mapping[str, Any] | None = None,
    ) -> About:
        """What a file says, from the values beside its tensors; what cannot be understood is left out.

        Args:
            run: whose classes tell which of several lists are class names.
            tensors: the file's; a layer among them that normalises images says how these are prepared.
            own: the state dict of the run's network, whose own layers say nothing of the images.
        """
        found = places(about)
        is_ours = about.get("format") == "fourds_dist"
        if is_ours:
            classes = tuple(str(about["classes"]).split("\n")) if "classes" in about else None
        else:
            classes = class_names(found, None if run is None else run.classes)
        told: dict[str, Any] = dict(normalisation(found))
        layer = input_normaliser(tensors or {}, own or {})
        if layer:
            told = normalisation([Place(layer, is_known=True)])
        if not is_ours:
            return cls(None, None, classes, told)
        told |= _json(about.get("preprocessing"))
        grey_range = told.pop("grey_range", None)
        grey_range = tuple(grey_range) if isinstance(grey_range, list) else None
        grey_ranges = (grey_range,) if is_range(grey_range) else ()
        return cls(about.get("arch"), about.get("stem"), classes, told, grey_ranges)  # pyright: ignore[reportArgumentType]


def preprocessing_of(data: LoaderConfig) -> dict[str, Any]:
    """How a run's images become its networks' input, for the metadata of its files."""
    return data.model_dump(include=set(PREPROCESSING_KEYS))


def class_order(file: About, run: About) -> list[int] | None:
    """For each class of the run its place in the file, where both have the same names; None: they do not, or one side
    names none."""
    if file.classes is None or run.classes is None:
        return None
    theirs = {plain_name(name): place for place, name in enumerate(file.classes)}
    ours = [plain_name(name) for name in run.classes]
    if len(theirs) != len(file.classes) or set(theirs) != set(ours) or len(ours) != len(theirs):
        return None
    return [theirs[name] for name in ours]


def other_classes(file: About, run: About) -> str | None:
    """How the class names of a file differ from the run's; None: the same names, or one side names none."""
    if file.classes is None or run.classes is None or class_order(file, run) is not None:
        return None
    theirs, ours = ({plain_name(name) for name in names} for names in (file.classes, run.classes))
    parts = []
    if len(file.classes) != len(run.classes):
        parts.append(f"it has {len(file.classes)} classes, the data have {len(run.classes)}")
    if ours - theirs:
        parts.append(f"it lacks {_some(n for n in run.classes if plain_name(n) not in theirs)}")
    if theirs - ours:
        parts.append(f"the data lack its {_some(n for n in file.classes if plain_name(n) not in ours)}")
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


def _json(text: Any) -> dict[str, Any]:
    try:
        value = parsed_json(text)
    except (TypeError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


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
