"""The configuration of a run's folder, and the changes that a restart of the run may have.

`effects` defines what each key affects. A key without effect on weights may change at any time. A key with an effect on
the weights of a stage may change before the stage has started, that is, before it has a checkpoint or results. The
optimiser's rates may also change during their stage. The fingerprint in the manifest identifies images, independent of
their URL.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fourds_dist.config.effects import LEARNT, Effect, keys_with
from fourds_dist.config.loading import as_words, differing, parsed
from fourds_dist.config.section import ConfigError
from fourds_dist.config.stage_names import STAGE_TITLES, StageName
from fourds_dist.config.trees import flatten
from fourds_dist.data.format.manifest import read_manifest
from fourds_dist.io.storage import is_url, join, parent, plain, translate_storage_errors
from fourds_dist.io.url import split_pattern
from fourds_dist.method.presets import WITH_TARGET_LABELS
from fourds_dist.runs.layout import DONE, RunFile
from fourds_dist.runs.run_folder import RunConfig, RunFolder
from fourds_dist.stages.network_inputs import with_network_inputs
from fourds_dist.stages.settings import SECTION, Settings, students_from_source
from fourds_dist.stages.stages import from_source, stages_to_run
from fourds_dist.stages.target_labels import criterion, method_of, source_fraction
from fourds_dist.training.checkpoint.checkpoint_store import FolderStore

FILES = ("teacher.checkpoint", "teacher.start", "student.start")
"""Keys that may name files that move together with the run's folder."""


class AnotherRunError(ConfigError):
    """A folder has a run of another configuration.

    Args:
        what: the folder and the differences.
        remedy: the remedy for a run outside sweeps and comparisons.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what = what


def depends_on(settings: Settings, stage: StageName, effects: Collection[Effect] = LEARNT) -> dict[str, Any]:
    """Return the keys with some of `effects` on a stage, and their values.

    Keys of networks that the stage does not train, and of domains that it does not read, are excluded.
    """
    values = dict(flatten(settings.model_dump(mode="json")))
    resolved = _resolved(settings, stage)  # null, auto and the value that they stand for are the same
    values |= resolved
    excluded = ["student."] if settings.students else ["students"]  # one of both holds all students
    if stage == "source":
        values["students"] = [student for student in values["students"] if student["start"] == "source"]
        has_teacher = settings.teacher.checkpoint is not None
        excluded += ["teacher."] if has_teacher else ["teacher.checkpoint"]
        excluded += [] if students_from_source(settings) else ["student"]
    elif resolved["data.source_fraction"] == 0:
        excluded += ["source."]
    keys = keys_with(Settings, effects, stage)
    return {key: values[key] for key in keys if not key.startswith(tuple(excluded))}


def _resolved(settings: Settings, stage: StageName) -> dict[str, Any]:
    """Return the values of the keys that depend on the data's labels; as with labels, if the data cannot be read."""
    try:
        by, fraction = criterion(stage, settings), source_fraction(settings)
        # The source stage does not see the target.
        method = settings.method if stage == "source" else method_of(settings)
    except (ValueError, OSError):  # the preflight refuses such data with a clear message
        by, fraction = "accuracy", settings.data.source_fraction or 0.0
        method = settings.method.for_target(has_labels=True)
    values = {"run.select_by": by, f"{SECTION[stage]}.select_by": by, "data.source_fraction": fraction}
    return values | {f"method.{key}": getattr(method, key) for key in WITH_TARGET_LABELS}


def begun_stages(folder: RunFolder, settings: Settings) -> list[StageName]:
    """Return the stages of a run that have a checkpoint or results, independent of `run.until`."""
    whole = settings.model_copy(update={"run": settings.run.model_copy(update={"until": "distill"})})
    return [
        stage
        for stage in stages_to_run(whole)
        if folder.exists(DONE[stage]) or FolderStore(folder.path(stage), retry_timeout_s=0).newest()
    ]


def changes(folder: RunFolder, settings: Settings, *, strict: bool = False) -> list[str]:
    """Return the permitted differences from the folder's configuration, as 'key: old -> new'.

    Args:
        strict: do not permit changes of the optimiser's rates during their stage.

    Raises:
        AnotherRunError: there are other differences.
    """
    if not folder.exists(RunFile.CONFIG):
        return []
    former = held_settings(folder)
    settings = with_network_inputs(settings, former)
    different = {
        key: words
        for key, words in differing(former, settings).items()
        if not _moved_with_the_run(key, former, settings)
    }
    begun = begun_stages(folder, settings) if different else []
    refused: dict[str, StageName] = {}
    for stage in begun:
        is_active = not strict and not folder.exists(DONE[stage])
        effects = LEARNT - {Effect.RATES} if is_active else LEARNT
        before, after = depends_on(former, stage, effects), depends_on(settings, stage, effects)
        for key in different:
            if (key in before, before.get(key)) != (key in after, after.get(key)):
                refused.setdefault(key, stage)
        for domain in _domains_of(settings, stage):
            key = f"{domain}.url"
            if key in different and not same_images(folder, former, settings, domain):
                refused.setdefault(key, stage)
    if refused:
        listed = "; ".join(different[key] for key in list(refused)[:5])
        more = f"; and {len(refused) - 5} more" if len(refused) > 5 else ""
        stage = next(iter(refused.values()))
        can_keep_source = "source" in begun and "source" not in refused.values()
        raise AnotherRunError(
            f"{folder.url} holds a run of another configuration ({listed}{more}), with which its "
            f"{STAGE_TITLES[stage]} has started",
            _remedy(folder, former, settings, can_keep_source=can_keep_source),
        )
    return list(different.values())


def held_settings(folder: RunFolder) -> Settings:
    """Return the configuration in a run's folder.

    Raises:
        ConfigError: another version with other keys wrote the configuration.
    """
    try:
        return parsed(folder.read_text(RunFile.CONFIG), folder.path(RunFile.CONFIG)).build(Settings)
    except ConfigError as error:
        raise ConfigError(
            f"{error}; the run was started by another version of fourds_dist: resume with that version, or choose "
            "another run.name"
        ) from None


def started_with_network_inputs(settings: Settings) -> Settings:
    """Return the settings of a run with the images of its networks (`with_network_inputs`); a run that has started
    keeps those in its folder.

    Raises:
        ConfigError: see `held_settings`.
    """
    folder = RunFolder(settings.run_url)
    with translate_storage_errors(folder.url):
        former = held_settings(folder) if folder.exists(RunFile.CONFIG) else None
    return with_network_inputs(settings, former)


def refuse_moved(config: str, settings: Settings, given: Collection[str]) -> None:
    """Refuse the configuration in a copied or moved run's folder, since it names the former folder.

    Args:
        config: path or URL of the configuration.
        given: dotted keys given on the command line; with run.name or run.dir nothing is refused.

    Raises:
        ConfigError: with the keys that name the folder of the configuration.
    """
    here = RunFolder(parent(config if is_url(plain(config)) else str(Path(plain(config)).absolute())))
    if config.rpartition("/")[2] != RunFile.CONFIG or {"run.name", "run.dir"} & set(given):
        return
    if _same_folder(here.url, settings.run_url) or not here.exists(RunFile.METRICS):
        return
    name = here.url.rpartition("/")[2]
    try:
        run = RunConfig.model_validate({**settings.run.model_dump(), "dir": parent(here.url), "name": name})
    except ValidationError:
        remedy = f"Rename {here.url} to a valid run.name, and give that name and run.dir to resume there"
    else:
        own = as_words(settings.model_copy(update={"run": run}), ("run.dir", "run.name"))
        remedy = f"Give {shlex.join(own)} to resume there"
    raise ConfigError(
        f"{config} is in the folder of a run, but names another folder, {settings.run_url}: was the run copied or "
        f"moved? {remedy}, or run.name=... for a new run"
    )


def _same_folder(one: str, other: str) -> bool:
    if is_url(one) or is_url(other):
        return one == other
    return Path(one).resolve() == Path(other).resolve()


def keep_images(folder: RunFolder, settings: Settings) -> None:
    """Write the fingerprint of each domain's data set; refuse other images than those of a stage that has started.

    Raises:
        AnotherRunError: the images of a data set have changed.
    """
    known: dict[str, str] = folder.read_json(RunFile.IMAGES) if folder.exists(RunFile.IMAGES) else {}
    now = {domain: fingerprint(settings, domain) for domain in ("source", "target")}
    now = {domain: name for domain, name in now.items() if name is not None}
    for stage in begun_stages(folder, settings) if known else ():
        for domain in _domains_of(settings, stage):
            if known.get(domain, now.get(domain)) != now.get(domain):
                url = getattr(settings, domain).url
                raise AnotherRunError(
                    f"{url} no longer holds the images with which {folder.url} has started its {STAGE_TITLES[stage]}",
                    f"set {domain}.url to those images, or choose another run.name",
                )
    if now != known:
        folder.write_json(RunFile.IMAGES, now)


def fingerprint(settings: Settings, domain: str) -> str | None:
    """Return the identifier of a domain's images; None without a readable data set."""
    url = getattr(settings, domain).url
    if url is None:
        return None
    data_set, pattern = split_pattern(url)
    try:
        return f"{read_manifest(data_set).fingerprint}/{pattern or ''}"
    except (ValueError, OSError):  # the preflight refuses this with a clear message
        return None


def _domains_of(settings: Settings, stage: StageName) -> list[str]:
    """Return the domains whose images a stage trains on."""
    keys = depends_on(settings, stage, {Effect.IMAGES})
    return [key.partition(".")[0] for key in keys]


def same_images(folder: RunFolder, former: Settings, settings: Settings, domain: str) -> bool:
    """Whether a domain's images are those with which the run started, independent of their URL."""
    known: dict[str, str] = folder.read_json(RunFile.IMAGES) if folder.exists(RunFile.IMAGES) else {}
    before = known.get(domain) or fingerprint(former, domain)
    return before is not None and before == fingerprint(settings, domain)


def _remedy(folder: RunFolder, former: Settings, settings: Settings, *, can_keep_source: bool) -> str:
    """Return the remedy: a command for another run with the new values and, if possible, the trained source stage."""
    number = 2
    while RunFolder(join(settings.run.dir, f"{settings.run.name}-{number}")).exists(RunFile.CONFIG):
        number += 1
    new = settings
    if can_keep_source and folder.exists(DONE["source"]):
        new = from_source(settings, folder.url)
    new = new.model_copy(update={"run": new.run.model_copy(update={"name": f"{settings.run.name}-{number}"})})
    given = as_words(new, differing(former, new))
    words = ["python", "-m", "fourds_dist.train", folder.path(RunFile.CONFIG), *given]
    takes = (
        " from the trained source stage"
        if new.teacher != settings.teacher or new.named_students != settings.named_students
        else ""
    )
    return f"repeat its values to resume that run, or start another run{takes}: {shlex.join(words)}"


def _moved_with_the_run(key: str, former: Settings, settings: Settings) -> bool:
    """Whether a key names the same file as before, next to the run's folder, and both have moved."""
    if key not in FILES:
        return False
    before, after = (dict(flatten(of.model_dump(mode="json")))[key] for of in (former, settings))
    old, new = parent(former.run.dir), parent(settings.run.dir)
    return isinstance(before, str) and before.startswith(f"{old}/") and after == new + before[len(old) :]
