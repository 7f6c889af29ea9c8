"""Comparison of a weights file's metadata with the run: classes, preprocessing, architecture.

Runs write `arch`, `stem`, `classes` and `preprocessing` into the metadata of their safetensors files. `description`
finds the metadata of other trainers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fourds_dist.data.decode.grey import GreyRange, is_range
from fourds_dist.io.json_text import parse_json
from fourds_dist.models.weights.description import (
    Place,
    class_names,
    input_normaliser,
    normalisation,
    places,
    plain_name,
    reads_bgr,
)

if TYPE_CHECKING:
    from fourds_dist.data import DataConfig
    from fourds_dist.models.backbones import BackboneConfig

CROP_KEYS = ("resize_px", "crop_px", "resize_mode")
"""The keys of `data` that define the crop of an image."""
NETWORK_KEYS = ("mean", "std")
"""The keys of a network's section that define the normalisation of its images."""
PREPROCESSING_KEYS = (*CROP_KEYS, *NETWORK_KEYS)

GREY_TOLERANCE = 0.1
"""Tolerance of the ends of a grey range, as a fraction of its width."""
TOLERANCE = 1e-3
"""Tolerance of means and standard deviations, in [0, 1] units, since authors round them."""


@dataclass(frozen=True)
class NetworkMetadata:
    """Description of a network; unknown fields are None or empty."""

    arch: str | None = None
    stem: str | None = None
    classes: tuple[str, ...] | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    grey_ranges: tuple[GreyRange, ...] = ()
    """Grey ranges of the run's domains, or of the file; empty without images of more than 8 bits."""
    reads_bgr: bool = False
    """Whether the network reads images in BGR instead of RGB."""
    has_source: bool = False
    """Whether the run reads images of the source."""

    @classmethod
    def of_run(
        cls,
        data: DataConfig,
        network: BackboneConfig,
        classes: Sequence[str],
        *,
        has_source: bool,
        grey_ranges: Sequence[GreyRange] = (),
    ) -> NetworkMetadata:
        """Return the metadata that a run requires of a network.

        Args:
            grey_ranges: ranges by which the images of the run's domains are decoded.
        """
        own = network.network_input(data)
        prepared = data.model_dump(include=set(CROP_KEYS)) | vars(own)
        return cls(
            arch=network.arch,
            stem=network.stem,
            classes=tuple(classes),
            preprocessing=prepared,
            grey_ranges=tuple(grey_ranges),
            has_source=has_source,
        )

    @classmethod
    def of_file(
        cls,
        values: Mapping[str, Any],
        *,
        run: NetworkMetadata | None = None,
        tensors: Mapping[str, Tensor] | None = None,
        own: Mapping[str, Any] | None = None,
    ) -> NetworkMetadata:
        """Return the metadata in the values of a file other than tensors; unknown values are ignored.

        Args:
            run: metadata of the run, whose classes identify the list of class names among other lists.
            tensors: tensors of the file; a layer that normalises images defines the preprocessing.
            own: state dict of the run's network, whose layers are not such a layer.
        """
        found = places({k: v for k, v in values.items() if not (isinstance(v, Tensor) and k in (own or {}))})
        is_run_file = values.get("format") == "fourds_dist"
        if is_run_file:
            classes = tuple(str(values["classes"]).split("\n")) if "classes" in values else None
        else:
            classes = class_names(found, None if run is None else run.classes)
        preprocessing: dict[str, Any] = dict(normalisation(found))
        layer = input_normaliser(tensors or {}, own or {})
        if layer:
            preprocessing = normalisation([Place(layer, is_known=True)])
        is_bgr = not is_run_file and reads_bgr(found)
        if is_bgr:  # means and deviations have the order of the network's channels
            preprocessing = {key: values[::-1] for key, values in preprocessing.items()}
        if not is_run_file:
            return cls(None, None, classes, preprocessing, reads_bgr=is_bgr)
        if of_file := _json(values.get("preprocessing")):  # files of earlier versions squeeze
            preprocessing |= {"resize_mode": "squeeze", "image_px": of_file.get("crop_px")} | of_file
        grey_range = preprocessing.pop("grey_range", None)
        grey_range = tuple(grey_range) if isinstance(grey_range, list) else None
        grey_ranges = (grey_range,) if is_range(grey_range) else ()
        return cls(values.get("arch"), values.get("stem"), classes, preprocessing, grey_ranges)  # pyright: ignore[reportArgumentType]


def class_order(file: NetworkMetadata, run: NetworkMetadata) -> list[int] | None:
    """Return the index in the file of each class of the run; None if the names differ or one side has none."""
    if file.classes is None or run.classes is None:
        return None
    file_index = {plain_name(name): index for index, name in enumerate(file.classes)}
    run_names = [plain_name(name) for name in run.classes]
    if len(file_index) != len(file.classes) or set(file_index) != set(run_names):
        return None
    return [file_index[name] for name in run_names] if len(run_names) == len(file_index) else None


def other_classes(file: NetworkMetadata, run: NetworkMetadata) -> str | None:
    """Return how the class names of a file differ from the run's; None if they are equal or one side has none."""
    if file.classes is None or run.classes is None or class_order(file, run) is not None:
        return None
    in_file, in_run = ({plain_name(name) for name in names} for names in (file.classes, run.classes))
    parts = []
    if len(file.classes) != len(run.classes):
        parts.append(f"the file has {len(file.classes)} classes, the data have {len(run.classes)}")
    if in_run - in_file:
        parts.append(f"the file lacks {_some(n for n in run.classes if plain_name(n) not in in_file)}")
    if in_file - in_run:
        parts.append(f"the data lack {_some(n for n in file.classes if plain_name(n) not in in_run)}")
    return "; ".join(parts) or "its class names are not distinct"


def other_preprocessing(
    file: NetworkMetadata, run: NetworkMetadata, keys: Iterable[str] = PREPROCESSING_KEYS, *, role: str
) -> list[str]:
    """Return the differences in preprocessing, each with the key and both values.

    Args:
        keys: keys to compare.
        role: section of the network in the configuration.
    """
    differences = []
    for key in keys:
        in_file, in_run = file.preprocessing.get(key), run.preprocessing.get(key)
        if in_file is not None and in_run is not None and not same(in_file, in_run):
            section = "data" if key in CROP_KEYS else role
            differences.append(
                f"{section}.{key} is {_plain(in_file)} in the file and {_plain(in_run)} in the run"
            )
    return differences


def other_grey_range(file: NetworkMetadata, run: NetworkMetadata) -> tuple[str, bool] | None:
    """Return how the file's grey range differs from those of all domains of the run, and whether by a large amount.

    Ranges are measured, so those of two similar data sets differ slightly. A file for a domain that the run does not
    read may have any range. None: the file's range is one of the run's, or one side has none.
    """
    if not file.grey_ranges or not run.grey_ranges:
        return None
    (in_file,) = file.grey_ranges
    span = in_file[1] - in_file[0]
    distances = [max(abs(a - b) for a, b in zip(in_file, r, strict=True)) / span for r in run.grey_ranges]
    if min(distances) < TOLERANCE:
        return None
    in_run = " and ".join(dict.fromkeys(_range(r) for r in run.grey_ranges))
    text = f"data.grey_range is {_range(in_file)} in the file and {in_run} in the run"
    return text, run.has_source and min(distances) > GREY_TOLERANCE


def other_architecture(file: NetworkMetadata, run: NetworkMetadata) -> str | None:
    """Return the architecture of a file if it differs from the run's, else None."""
    differs = [
        f"{key}={in_file}"
        for key, in_file, in_run in (("arch", file.arch, run.arch), ("stem", file.stem, run.stem))
        if in_file is not None and in_run is not None and in_file != in_run
    ]
    return ", ".join(differs) or None


def _json(text: Any) -> dict[str, Any]:
    try:
        value = parse_json(text)
    except (TypeError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def same(a: Any, b: Any) -> bool:
    """Whether two values of a key are equal, numbers within TOLERANCE."""
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) or isinstance(b, float):
        return isinstance(a, (int, float)) and isinstance(b, (int, float)) and abs(a - b) < TOLERANCE
    return a == b


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
