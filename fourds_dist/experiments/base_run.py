"""The run that a sweep or a comparison varies: its file with the changes of the experiment and of the command line.

The file of an experiment names the file of the run under `config` and changes its keys under `changes`. On the command
line, keys of the run stand without `changes`, beside keys of the experiment.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fourds_dist.config.loading import Draft, draft
from fourds_dist.config.section import ConfigError
from fourds_dist.config.trees import flatten
from fourds_dist.experiments.config import ExperimentConfig
from fourds_dist.io.storage import beside
from fourds_dist.launch.image_inputs import ImageInputs, place_of
from fourds_dist.stages.settings import Settings, with_absolute_paths

E = TypeVar("E", bound=ExperimentConfig)


def read_experiment(path: str | Path, words: Sequence[str], root: type[E]) -> tuple[E, Draft]:
    """An experiment, and the run that it varies, as its file and `key=value` words give them.

    Raises:
        ConfigError: naming the key, where it was given, and the nearest valid one.
    """
    config = draft(path, [word for word in words if not is_run_key(word, root)]).build(root)
    base = draft(beside(str(path), config.config) if config.config else None)
    base = base.changed(flat(config.changes), f"{path} (changes)")
    for word in words:
        base = with_word(base, word) if is_run_key(word, root) else base
    return config, base


def with_word(changed: Draft, word: str) -> Draft:
    """A configuration with a `key=value` word, whose value may be a section."""
    return changed.changed(flat(draft(None, [word]).tree), f"override {word!r}")


def is_run_key(word: str, root: type[ExperimentConfig]) -> bool:
    """Whether a `key=value` word is about the run and not about the experiment, by the nearest section of either."""
    section = word.partition("=")[0].split(".")[0]
    names = [*root.model_fields, *Settings.model_fields]
    nearest = difflib.get_close_matches(section, names, n=1)
    return (nearest[0] if nearest else section) in Settings.model_fields


def of_one_student(given: Draft) -> Settings:
    """The settings of a run with one student.

    Raises:
        ConfigError: the run has several.
    """
    settings = given.build(Settings)
    if settings.students:
        raise ConfigError(
            f"students has {len(settings.students)} entries, and sweeps, comparisons and advice measure one student a "
            "run; vary student.arch as a key, or compare the students of one run by its report"
        )
    return settings


def with_absolute_base_paths(base: Draft, folder: Path, where: str) -> Draft:
    """The same with every relative local path made absolute.

    Args:
        folder: what the paths are relative to.
        where: named in errors about these keys.
    """
    settings = of_one_student(base)
    before = dict(flatten(settings.model_dump(mode="json")))
    after = dict(flatten(with_absolute_paths(settings, folder).model_dump(mode="json")))
    return base.changed({key: after[key] for key in after if after[key] != before[key]}, where)


def with_packed_urls(base: Draft, where: str) -> Draft:
    """The same with the dataset folders of image folders and lists, which `prepare` packs.

    Args:
        where: named in errors about these keys.

    Raises:
        ValueError: images that cannot be used.
    """
    settings = base.build(Settings)
    packed, found = ImageInputs(place_of(settings)).packed(settings)
    if found is None:
        return base
    keys = [f"{name}.{key}" for name in found.images for key in ("url", "packed_from")]
    values = dict(flatten(packed.model_dump(mode="json")))
    return base.changed({key: values[key] for key in keys}, where)


def flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value."""
    return dict(flatten(tree)) if tree else {}
