"""Runs from Python: the same as `fourds train`, with the configuration's sections as arguments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fourds_dist.config import load
from fourds_dist.results.run import Run
from fourds_dist.settings import Settings, with_absolute_paths
from fourds_dist.train import QUICKSTART, train


def fit(config: str | Path | None = None, **sections: Mapping[str, Any] | str | None) -> Run:
    """Run both stages, or what is left of them, and give the finished run.

    Args:
        config: YAML file; None: the defaults, or the quickstart where there are no sections either.
        sections: of the configuration, over those of the file: `launch={"workers": 4}`. `source` and `target` may be
            just the URL of their data.

    >>> from fourds_dist import fit, load_student
    >>> few = {"labels_per_class": 20, "unlabelled": "drop"}
    >>> run = fit(
    ...     source={"url": "shards/digits", **few},
    ...     target={"url": "shards/digits-photos", **few},
    ...     teacher={"arch": "resnet10", "stem": "small"},
    ...     student={"arch": "resnet10", "stem": "small"},
    ...     data={"resize_px": 18, "crop_px": 16},
    ...     source_stage={"epochs": 1},
    ...     distill={"epochs": 1},
    ...     launch={"runner": "inline"},
    ...     run={"name": "notebook"},
    ... )  # doctest: +ELLIPSIS, +NORMALIZE_WHITESPACE
    notebook: accuracy on test splits
    ...
    >>> run.outcome.lines[-1].target.num_samples
    359
    >>> epochs, losses = run.series("distill", "step", "student_ce")
    >>> len(epochs) == len(losses) > 0
    True
    >>> student = load_student(run)
    >>> student.predict("seven.png", top=3)[0].ranking  # doctest: +ELLIPSIS
    (('...', 0...), ('...', 0...), ('...', 0...))

    Raises:
        ValueError: a configuration that cannot work, found before anything is started.
        RuntimeError: a stage that failed.
    """
    overrides = [f"{key}={json.dumps(value)}" for key, value in _flat(sections)]
    settings = load(Settings, config if config is not None else None if sections else QUICKSTART, overrides)
    settings = with_absolute_paths(settings, Path.cwd())
    train(settings)
    return Run(settings.run_url)


def _flat(sections: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values."""
    for name, value in sections.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", inner) for key, inner in _flat(value))
        elif name in ("source", "target") and isinstance(value, str):
            yield f"{name}.url", value
        else:
            yield name, value
