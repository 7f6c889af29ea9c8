"""Runs from Python: `fit` is `fourds train` with sections of the configuration as arguments."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fourds_dist.config.loading import Draft, draft, dump, parsed
from fourds_dist.config.section import ConfigError, ConfigSection
from fourds_dist.launch.chosen import with_images
from fourds_dist.launch.run import QUICKSTART, settings_of, train
from fourds_dist.runs.layout import RunFile
from fourds_dist.stages.finished_run import Run
from fourds_dist.stages.settings import Settings, with_absolute_paths

Config = str | os.PathLike[str] | Mapping[str, Any] | Settings | Run


def fit(
    config: Config | None = None,
    **sections: Mapping[str, Any] | Sequence[Any] | ConfigSection | str | os.PathLike[str] | None,
) -> Run:
    """Run all unfinished stages and return the finished run.

    Args:
        config: path or URL of a YAML file, a mapping of sections, Settings, or a Run, whose configuration is used;
            None: the defaults, or the quickstart if there are no `sections`.
        sections: sections that override `config`: `launch={"workers": 4}`. `source` and `target` may be the path or URL
            of their data, which may be image folders. `students` is a list of sections. Values may also be paths, and
            numbers and arrays of NumPy and PyTorch.

    >>> from fourds_dist import fit, load_student
    >>> few = {"labels_per_class": 20, "unlabelled": "drop"}
    >>> run = fit(
    ...     source={"url": "shards/digits", **few},
    ...     target={"url": "shards/digits-photos", **few},
    ...     teacher={"arch": "resnet10", "stem": "small"},
    ...     student={"arch": "resnet10", "stem": "small"},
    ...     data={"resize_px": 18, "crop_px": 16},
    ...     source_stage={"epochs": 1},
    ...     distill_stage={"epochs": 1},
    ...     launch={"runner": "inline"},
    ...     run={"name": "notebook"},
    ... )  # doctest: +ELLIPSIS, +NORMALIZE_WHITESPACE
    notebook: accuracy on test splits
    ...
    >>> run.summary.lines[-1].target.num_samples
    359
    >>> losses = [step.losses["student_ce"] for step in run.steps("distill")]
    >>> len(losses) > 0
    True
    >>> student = load_student(run)
    >>> student.predict("seven.png", top=3)[0].ranking  # doctest: +ELLIPSIS
    (('...', 0...), ('...', 0...), ('...', 0...))

    Raises:
        ValueError: an invalid configuration, found before the start of workers.
        RuntimeError: a stage failed.
    """
    if config is None and not sections:
        config = QUICKSTART
    file = _draft_of(config)
    changes = {key: _plain(key, value) for key, value in _flat(sections)}
    given = file.changed(changes, "fit")
    settings = with_images(with_absolute_paths(settings_of(given, file), Path.cwd()), given)
    train(settings)
    return Run(settings.run_url)


def _draft_of(config: Any) -> Draft:
    match config:
        case None:
            return Draft({}, {})
        case str() | os.PathLike():
            return draft(os.fspath(config))
        case Run():
            return parsed(config.config_text, f"{config.url}/{RunFile.CONFIG}")
        case Settings():
            return parsed(dump(config), "config")
        case Mapping():
            return Draft({}, {}).changed({key: _plain(key, value) for key, value in _flat(config)}, "config")
        case _:
            raise ConfigError(
                f"config is a {type(config).__name__}; give the path of a YAML file, a mapping, Settings or a Run"
            )


def _flat(sections: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values."""
    for name, value in sections.items():
        key = f"{prefix}{name}"
        if isinstance(value, ConfigSection):
            value = value.model_dump(mode="json", exclude_unset=True)
        if isinstance(value, Mapping):
            yield from _flat(value, f"{key}.")
        elif key in ("source", "target") and isinstance(value, str | os.PathLike):
            yield f"{key}.url", value
        else:
            yield key, value


def _plain(key: str, value: Any) -> Any:
    """Return a value as in YAML: paths as text, and numbers, flags and arrays of NumPy and PyTorch as Python values.

    Raises:
        ConfigError: the type cannot be a value of a configuration; the message names the key.
    """
    match value:
        case None | bool():
            return value
        case int():
            return int(value)
        case float():
            return float(value)
        case str():  # also of enumerations and NumPy
            return str.__str__(value)
        case os.PathLike():
            return os.fsdecode(value)
        case ConfigSection():
            return value.model_dump(mode="json", exclude_unset=True)
        case Mapping():
            return {str(name): _plain(f"{key}.{name}", inner) for name, inner in value.items()}
        case list() | tuple() | range():
            return [_plain(key, inner) for inner in value]
        case _ if callable(getattr(value, "tolist", None)):  # numbers and arrays of NumPy and PyTorch
            return _plain(key, value.tolist())
        case _:
            raise ConfigError(
                f"{key}: a {type(value).__name__} cannot be a value of a configuration ({value!r:.80})"
            )
