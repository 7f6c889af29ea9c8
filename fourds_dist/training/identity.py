"""Which configuration a run's folder belongs to, and what may change when the run is started again.

Every key says what it affects (`effects`). A key that changes no weight may change at any time; one that changes the
weights of a stage may change until that stage has begun, which a checkpoint or its results show. The optimiser's rates
may change while their stage goes on. Images are known by the manifest of their data set, wherever it lies.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fourds_dist.config import ConfigError, as_words, differing, leaves, parsed
from fourds_dist.data.manifest import read_manifest
from fourds_dist.data.url import split_pattern
from fourds_dist.effects import LEARNT, Effect, keys_with
from fourds_dist.runs.layout import DONE, STAGE_TITLES, RunFile, StageName
from fourds_dist.settings import Settings
from fourds_dist.storage import is_url, join, parent, plain
from fourds_dist.training.run_folder import RunConfig, RunFolder
from fourds_dist.training.stages import from_source, stages_to_run
from fourds_dist.training.store import FolderStore

FILES = ("teacher.checkpoint", "teacher.start", "student.start")
"""Keys that may name files which move with the run's folder."""


class AnotherRunError(ConfigError):
    """A folder that holds a run of another configuration.

    Args:
        what: names the folder and what differs.
        remedy: what to do, for a run that was started by itself.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what = what


def depends_on(settings: Settings, stage: StageName, effects: Collection[Effect] = LEARNT) -> dict[str, Any]:
    """The keys with some of `effects` on what a stage computes, and their values.

    Keys of a network that the stage does not train, and of a domain that it does not see, are left out.
    """
    values = dict(leaves(settings.model_dump(mode="json")))
    left_out: list[str] = []
    if stage == "source":
        has_teacher = settings.teacher.checkpoint is not None
        left_out += ["teacher."] if has_teacher else ["teacher.checkpoint"]
        left_out += [] if settings.student.start == "source" else ["student."]
    elif settings.data.source_fraction == 0:
        left_out += ["source."]
    keys = keys_with(Settings, effects, stage)
    return {key: values[key] for key in keys if not key.startswith(tuple(left_out))}


def begun_stages(folder: RunFolder, settings: Settings) -> list[StageName]:
    """The stages of a run that have left a checkpoint or their results, whatever `run.until` says."""
    whole = settings.model_copy(update={"run": settings.run.model_copy(update={"until": "distill"})})
    return [
        stage
        for stage in stages_to_run(whole)
        if folder.exists(DONE[stage]) or FolderStore(folder.path(stage), patience_s=0).newest()
    ]


def changes(folder: RunFolder, settings: Settings, *, strict: bool = False) -> list[str]:
    """What differs from the configuration that the folder holds and may differ, as 'key: old -> new'.

    Args:
        strict: the optimiser's rates count as the rest of what is learnt, also while their stage goes on.

    Raises:
        AnotherRunError: something else differs.
    """
    if not folder.exists(RunFile.CONFIG):
        return []
    held = held_settings(folder)
    different = {
        key: words
        for key, words in differing(held, settings).items()
        if not _moved_with_the_run(key, held, settings)
    }
    begun = begun_stages(folder, settings) if different else []
    refused: dict[str, StageName] = {}
    for stage in begun:
        is_going_on = not strict and not folder.exists(DONE[stage])
        effects = LEARNT - {Effect.RATES} if is_going_on else LEARNT
        before, after = depends_on(held, stage, effects), depends_on(settings, stage, effects)
        for key in different:
            if (key in before, before.get(key)) != (key in after, after.get(key)):
                refused.setdefault(key, stage)
        for domain in _domains_of(settings, stage):
            key = f"{domain}.url"
            if key in different and not same_images(folder, held, settings, domain):
                refused.setdefault(key, stage)
    if refused:
        told = "; ".join(different[key] for key in list(refused)[:5])
        more = f"; and {len(refused) - 5} more" if len(refused) > 5 else ""
        stage = next(iter(refused.values()))
        raise AnotherRunError(
            f"{folder.url} holds a run of another configuration ({told}{more}), with which its {STAGE_TITLES[stage]} "
            "has begun",
            _remedy(
                folder, held, settings, can_keep_source="source" in begun and "source" not in refused.values()
            ),
        )
    return list(different.values())


def held_settings(folder: RunFolder) -> Settings:
    """The configuration that a run's folder holds.

    Raises:
        ConfigError: it was written by a version with other keys.
    """
    try:
        return parsed(folder.read_text(RunFile.CONFIG), folder.path(RunFile.CONFIG)).build(Settings)
    except ConfigError as error:
        raise ConfigError(
            f"{error}; the run was begun by another version of fourds_dist: go on with that one, or choose another "
            "run.name"
        ) from None


def refuse_moved(config: str, settings: Settings, given: Collection[str]) -> None:
    """Refuse the configuration of a run's folder that was copied or moved: it names the folder where the run was.

    Args:
        config: path or URL of the configuration.
        given: dotted keys that were given beside it; the run's name and place among them say where to go.

    Raises:
        ConfigError: with the keys that name the folder in which the configuration lies.
    """
    here = RunFolder(parent(config if is_url(plain(config)) else str(Path(plain(config)).absolute())))
    if config.rpartition("/")[2] != RunFile.CONFIG or {"run.name", "run.dir"} & set(given):
        return
    if _same_place(here.url, settings.run_url) or not here.exists(RunFile.METRICS):
        return
    name = here.url.rpartition("/")[2]
    try:
        run = RunConfig.model_validate({**settings.run.model_dump(), "dir": parent(here.url), "name": name})
    except ValidationError:
        remedy = f"Rename {here.url} to what run.name may be, and give that and run.dir to go on there"
    else:
        own = as_words(settings.model_copy(update={"run": run}), ("run.dir", "run.name"))
        remedy = f"Give {shlex.join(own)} to go on there"
    raise ConfigError(
        f"{config} lies beside a run, but names another folder, {settings.run_url}: was the run copied or moved? "
        f"{remedy}, or run.name=... for a new run"
    )


def _same_place(one: str, other: str) -> bool:
    if is_url(one) or is_url(other):
        return one == other
    return Path(one).resolve() == Path(other).resolve()


def keep_images(folder: RunFolder, settings: Settings) -> None:
    """Write the fingerprint of each domain's data set; refuse other images where a stage has begun with the first.

    Raises:
        AnotherRunError: naming the data set.
    """
    known: dict[str, str] = folder.read_json(RunFile.IMAGES) if folder.exists(RunFile.IMAGES) else {}
    now = {domain: fingerprint(settings, domain) for domain in ("source", "target")}
    now = {domain: name for domain, name in now.items() if name is not None}
    for stage in begun_stages(folder, settings) if known else ():
        for domain in _domains_of(settings, stage):
            if known.get(domain, now.get(domain)) != now.get(domain):
                place = getattr(settings, domain).url
                raise AnotherRunError(
                    f"{place} no longer holds the images with which {folder.url} has begun its {STAGE_TITLES[stage]}",
                    f"give {domain}.url where those are, or choose another run.name",
                )
    if now != known:
        folder.write_json(RunFile.IMAGES, now)


def fingerprint(settings: Settings, domain: str) -> str | None:
    """Tells a domain's images apart; None: there is no such data set."""
    url = getattr(settings, domain).url
    if url is None:
        return None
    place, pattern = split_pattern(url)
    try:
        return f"{read_manifest(place).fingerprint}/{pattern or ''}"
    except (ValueError, OSError):  # what the preflight refuses in its own words
        return None


def _domains_of(settings: Settings, stage: StageName) -> list[str]:
    """The domains whose images a stage learns."""
    keys = depends_on(settings, stage, {Effect.IMAGES})
    return [key.partition(".")[0] for key in keys]


def same_images(folder: RunFolder, held: Settings, settings: Settings, domain: str) -> bool:
    """Whether a domain's images are those that the folder began with, though they may lie elsewhere now."""
    known: dict[str, str] = folder.read_json(RunFile.IMAGES) if folder.exists(RunFile.IMAGES) else {}
    before = known.get(domain) or fingerprint(held, domain)
    return before is not None and before == fingerprint(settings, domain)


def _remedy(folder: RunFolder, held: Settings, settings: Settings, *, can_keep_source: bool) -> str:
    """What to do, with a command for another run that has the new values, and takes what is trained where it can."""
    number = 2
    while RunFolder(join(settings.run.dir, f"{settings.run.name}-{number}")).exists(RunFile.CONFIG):
        number += 1
    new = settings
    if can_keep_source and folder.exists(DONE["source"]):
        new = from_source(settings, folder.url)
    new = new.model_copy(update={"run": new.run.model_copy(update={"name": f"{settings.run.name}-{number}"})})
    given = as_words(new, differing(held, new))
    words = ["python", "-m", "fourds_dist.train", folder.path(RunFile.CONFIG), *given]
    takes = (
        " from the trained source stage"
        if new.teacher != settings.teacher or new.student != settings.student
        else ""
    )
    return f"repeat its values to go on with it, or start another run{takes}: {shlex.join(words)}"


def _moved_with_the_run(key: str, held: Settings, settings: Settings) -> bool:
    """Whether a key names the same file as before, beside the run's folder, and both lie elsewhere now."""
    if key not in FILES:
        return False
    before, after = (dict(leaves(of.model_dump(mode="json")))[key] for of in (held, settings))
    old, new = parent(held.run.dir), parent(settings.run.dir)
    return isinstance(before, str) and before.startswith(f"{old}/") and after == new + before[len(old) :]
