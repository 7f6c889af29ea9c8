"""Image folders and lists under source.url and target.url: packed once, in `run.dir/.packed`, before workers start.

`ImageInputs.packed` replaces their paths by the URLs of dataset folders, which all later parts read as any other data
set. The name of such a folder has a fingerprint of the images: other runs, sweeps and comparisons in the same run.dir
use it again, and changed images get a folder of their own. `pack_images` packs what is not packed yet.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fourds_dist.config.loading import dump, parsed
from fourds_dist.config.section import ConfigError
from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.inputs import (
    ImageInput,
    class_difference,
    kind_of_input,
    lacks_labels,
    open_input,
)
from fourds_dist.data.decode.threads import num_cores
from fourds_dist.data.format.class_list import ClassList
from fourds_dist.data.format.manifest import MANIFEST, read_manifest
from fourds_dist.io.names import composed, shown
from fourds_dist.io.storage import is_url, join, locate, parent, plain, translate_storage_errors
from fourds_dist.io.terminal import say
from fourds_dist.io.url import split_pattern
from fourds_dist.runs.layout import RunFile
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.preflight import check_before_packing
from fourds_dist.stages.run_identity import begun_stages, held_settings
from fourds_dist.stages.settings import SECTION, Settings, stage_config
from fourds_dist.stages.stages import stages_to_run

PACKED = ".packed"
"""Folder in run.dir with the packed images of all runs. Names of runs do not begin with a dot."""
DomainName = Literal["source", "target"]
DOMAINS: tuple[DomainName, ...] = ("source", "target")


@dataclass(frozen=True)
class FoundImages:
    """The domains of a run that are images, and the class list of both domains."""

    images: Mapping[DomainName, ImageInput]
    classes: tuple[str, ...]


class ImageInputs:
    """The images under source.url and target.url of runs that share a folder; each folder or list is read once.

    Args:
        place: folder of the packed images, below the folder of the runs; an absolute path or URL.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._leave_out = None if is_url(place) else Path(parent(place))
        self._opened: dict[tuple[str, tuple[str, ...] | None], ImageInput | None] = {}
        self._labelled: dict[str, bool] = {}

    def find(self, settings: Settings) -> FoundImages | None:
        """Return the images of the domains that are no data sets yet; None: both domains are data sets.

        Args:
            settings: with absolute paths.

        Raises:
            ValueError: no images, labels that cannot be read, a single class, or classes that differ between domains.
        """
        wanted: dict[DomainName, str] = {}
        shards: str | None = None
        for name in DOMAINS:
            stream = getattr(settings, name)
            if stream.url is None:
                continue
            with _naming(name, stream.url):
                is_images = kind_of_input(stream.url) is not None
            if is_images:
                wanted[name] = plain(stream.url)
            elif stream.packed_from is not None and not is_packed(stream.url):
                wanted[name] = stream.packed_from
            else:
                shards = stream.url
        if not wanted:
            return None
        given = None if shards is None else read_manifest(split_pattern(shards)[0]).classes
        found: dict[DomainName, ImageInput] = {}
        with_labels = {name: self._has_labels(name, path) for name, path in wanted.items()}
        for name, path in sorted(wanted.items(), key=lambda each: not with_labels[each[0]]):
            if given is None and not with_labels[name] and found:  # the class list of the domain with labels
                given_here = next(iter(found.values())).classes
            else:
                given_here = given
            with _naming(name, path):
                images = self._open(path, given_here)
            if images is None:
                raise ValueError(f"{name}.packed_from={path}: there are no images any more; restore them")
            _refuse_one_class(name, images)
            found[name] = images
        found = {name: found[name] for name in DOMAINS if name in found}
        first = next(
            images for name, images in found.items() if with_labels[name] or not any(with_labels.values())
        )
        classes = first.classes if given is None else given
        for name, images in found.items():
            if difference := class_difference(shards or str(first.path), ClassList(classes), images):
                raise ValueError(f"{name}.url={images.path}: {difference}")
        return FoundImages(found, classes)

    def packed(self, settings: Settings) -> tuple[Settings, FoundImages | None]:
        """Return the settings with URLs of dataset folders instead of images, and the images; nothing is packed.

        Raises:
            ValueError: see `find`.
        """
        found = self.find(settings)
        if found is None:
            return settings, None
        changes: dict[str, Any] = {}
        for name, images in found.images.items():
            if plain(getattr(settings, name).url) == str(images.path):
                folder = f"{slug(images.path) or name}-{images.fingerprint(found.classes)}"
                changes |= {f"{name}.url": join(self._place, folder), f"{name}.packed_from": str(images.path)}
        return (changed(settings, changes), found) if changes else (settings, None)

    def domain(self, settings: Settings, name: DomainName) -> tuple[ImageInput, Domain]:
        """Return the images of a domain that is not packed, and the domain to pack, after a check of each image.

        Raises:
            ValueError: images have changed since `url` was chosen, are missing, or cannot be read.
        """
        from fourds_dist.data.pack.console import PackProgress

        found = self.find(settings)
        assert found is not None
        images, url = found.images[name], getattr(settings, name).url
        if not url.endswith(f"-{images.fingerprint(found.classes)}"):
            raise ValueError(
                f"{name}.url={url} holds no data set, and the images of {name}.packed_from={images.path} have changed "
                f"since that folder was chosen for them; start another run with {name}.url={images.path}"
            )
        with _naming(name, str(images.path)), PackProgress(shown(images.path)) as progress:
            domain = images.domain(
                slug(images.path) or name,
                found.classes,
                leave_out=self._leave_out,
                num_threads=_num_threads(),
                on_progress=progress,
            )
        return images, domain

    def _has_labels(self, name: DomainName, path: str) -> bool:
        if path not in self._labelled:
            with _naming(name, path):
                self._labelled[path] = not lacks_labels(path, leave_out=self._leave_out)
        return self._labelled[path]

    def _open(self, path: str, classes: tuple[str, ...] | None) -> ImageInput | None:
        key = (path, classes)
        if key not in self._opened:
            self._opened[key] = open_input(path, classes=classes, leave_out=self._leave_out)
        return self._opened[key]


def place_of(settings: Settings) -> str:
    """Return the folder of the packed images of runs in run.dir."""
    return join(settings.run.dir, PACKED)


def changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Return the settings with other values of dotted keys, checked as a whole."""
    return parsed(dump(settings), "the configuration").changed(changes, "the images").build(Settings)


def slug(path: Path) -> str:
    """Return the name of a folder or list as a part of other names; empty if no character can be used."""
    name = composed(path.stem if path.is_file() else path.name)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:40]


def is_packed(url: str) -> bool:
    """Return whether a folder holds a finished data set."""
    fs, path = locate(join(url, MANIFEST))
    with translate_storage_errors(url):
        fs.invalidate_cache()
        return fs.exists(path)


def refuse_changed_images(settings: Settings) -> None:
    """Refuse to resume a run whose images have changed since they were packed.

    Raises:
        ConfigError: with the command that resumes the run with its images.
    """
    folder = RunFolder(settings.run_url)
    with translate_storage_errors(folder.url):
        if not folder.exists(RunFile.CONFIG):
            return
        former = held_settings(folder)
        for name in DOMAINS:
            before, now = getattr(former, name), getattr(settings, name)
            is_same = before.packed_from != now.packed_from or before.url == now.url
            if now.packed_from is not None and not is_same and begun_stages(folder, former):
                raise ConfigError(
                    f"{name}.url={now.packed_from}: the images or their classes have changed since the run in "
                    f"{folder.url} was started; resume it with the images of then by `fourds train "
                    f"{folder.path(RunFile.CONFIG)}`, or give another run.name to train on the images of now"
                )


def pack_images(runs: Sequence[Settings]) -> None:
    """Pack the images of `packed_from` whose dataset folders do not exist yet.

    Args:
        runs: the runs that need the images; all are checked before anything is packed.

    Raises:
        ValueError: an invalid configuration or unusable images: nothing is packed. Or packing fails.
    """
    missing: dict[str, tuple[DomainName, Settings]] = {}
    for run in runs:
        for name in DOMAINS:
            stream = getattr(run, name)
            if stream.packed_from is not None and not is_packed(stream.url):
                missing.setdefault(stream.url, (name, run))
    if not missing:
        return
    inputs = ImageInputs(parent(next(iter(missing))))
    for run in runs:
        if found := inputs.find(run):
            _check(run, found)
    work = [(url, *inputs.domain(run, name)) for url, (name, run) in missing.items()]
    for url, images, domain in work:
        _pack(url, images, domain)


def _pack(url: str, images: ImageInput, domain: Domain) -> None:
    from fourds_dist.data.pack.console import PackProgress
    from fourds_dist.data.pack.writer import pack_domain

    say(f"packing {domain.num_images} images of {images.path} into {url}", file=sys.stderr)
    with PackProgress(domain.name) as progress:
        manifest = pack_domain(domain, url, num_threads=_num_threads(), on_progress=progress)
    counts = ", ".join(f"{manifest.num_samples(split)} {split}" for split in manifest.splits)
    say(f"packed {counts} of {len(manifest.classes)} classes", file=sys.stderr)
    for remark in manifest.notes.get("remarks", ()):
        say(f"{images.path}: {remark}", file=sys.stderr)


def _check(run: Settings, found: FoundImages) -> None:
    """Check all of a configuration that can be checked before its images are packed."""
    check_before_packing(run, len(found.classes))
    for stage in stages_to_run(run):
        images = found.images.get("source" if stage == "source" else "target")
        size = stage_config(stage, run).global_batch_size
        if images is not None and size > len(images.files):
            raise ValueError(
                f"{SECTION[stage]}.global_batch_size={size}: {images.path} has only {len(images.files)} images; lower "
                "the batch size"
            )


def _refuse_one_class(name: DomainName, images: ImageInput) -> None:
    if len(images.classes) < 2:
        only = "".join(images.classes)
        raise ValueError(
            f"{name}.url={images.path}: all {len(images.files)} images are of one class, {only!r}, and a classifier "
            "needs two or more: give the folder that holds a sub-folder for each class, or a list with all classes"
        )


@contextmanager
def _naming(name: DomainName, path: str) -> Iterator[None]:
    """Name the key in errors of the block, and the command whose options the errors may name."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"{name}.url={path}: {error}\n(options with -- are those of `fourds pack folder SRC DEST` and `fourds pack "
            f"list FILE DEST`: pack with them, then give DEST as {name}.url)"
        ) from None


def _num_threads() -> int:
    return max(2, int(num_cores()))
