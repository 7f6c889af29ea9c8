"""Console output of packing: a progress bar on a terminal, and a summary table of the dataset at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from fourds_dist.data.decode.grey import Grey
from fourds_dist.data.format.class_list import look_like_ids
from fourds_dist.data.format.manifest import SCALING, Manifest
from fourds_dist.io.terminal import harmless, say, words

UNITS = {"reading": "images", "checking": "images", "measuring": "images"}


class Rate(ProgressColumn):
    """Units per second, over the last seconds."""

    def render(self, task: Task) -> Text:
        """Return the rate; empty while it is unknown."""
        return Text(f"{task.speed:.0f}/s" if task.speed else "")


TOLD_EVERY_S = 30.0
"""Seconds between two lines about one step if the output is not a terminal."""


class PackProgress:
    """A progress bar on a terminal, and a line every 30 s elsewhere; a context manager that is passed as `on_progress`.

    Args:
        clock: returns the time in seconds.
    """

    def __init__(self, title: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._title = title
        self._clock = clock
        self._begun: dict[str, tuple[float, int]] = {}
        self._told: dict[str, float] = {}
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> PackProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    @property
    def changed_nothing(self) -> bool:
        """Whether the dataset existed already, so that nothing was written."""
        return "comparing" in self._tasks and "writing" not in self._tasks

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Show that `done` of `total` units of step `what` are done."""
        if what not in self._tasks:
            unit = UNITS.get(what, "shards")
            self._tasks[what] = self._bar.add_task(harmless(f"{self._title}: {what}"), total=total, unit=unit)
        self._bar.update(self._tasks[what], completed=done, total=total)
        if self._bar.disable:
            self._tell(what, done, total)

    def _tell(self, what: str, done: int, total: int | None) -> None:
        """Print a line with rate and time left, not more often than every TOLD_EVERY_S."""
        now = self._clock()
        begun_s, begun = self._begun.setdefault(what, (now, done))
        if now - self._told.setdefault(what, now) < TOLD_EVERY_S:
            return
        self._told[what] = now
        rate = (done - begun) / (now - begun_s)
        left = f", {(total - done) / rate:.0f} s left" if total is not None and rate > 0 else ""
        of = "" if total is None else f" of {total}"
        say(
            f"{self._title}: {what} {done}{of} {UNITS.get(what, 'shards')}, {rate:.3g}/s{left}",
            file=sys.stderr,
        )


def show(url: str, manifest: Manifest) -> None:
    """Print the table of a dataset, and the remarks on its images."""
    table = Table(title=words(f"{manifest.name}: {len(manifest.classes)} classes"), title_justify="left")
    for heading in ("split", "images", "unlabelled", "images of a class", "shards", "MB"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for split, shards in manifest.splits.items():
        counts, images = manifest.class_counts[split], manifest.num_samples(split)
        of_class = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
        megabytes = sum(shard.num_bytes for shard in shards) / 1e6
        unlabelled = images - sum(counts)
        table.add_row(split, f"{images}", f"{unlabelled}", of_class, f"{len(shards)}", f"{megabytes:.1f}")
    console = Console(highlight=False)
    console.print(table)
    for line in _remarks(manifest):
        console.print(words(line), soft_wrap=True)
    console.print(words(url), soft_wrap=True)


def _remarks(manifest: Manifest) -> list[str]:
    lines = []
    for split, counts in manifest.class_counts.items():
        if any(counts) and (empty := [c for c, n in zip(manifest.classes, counts, strict=True) if n == 0]):
            listed = f"{', '.join(empty[:5])}{', ...' if len(empty) > 5 else ''}"
            lines.append(f"no images in {split}: {len(empty)} classes ({listed})")
    if missing := [split for split in ("train", "val", "test") if not manifest.num_samples(split)]:
        lines.append(
            f"there is no {' and no '.join(missing)} split; a target needs train, val and test, val and test with "
            "labels"
        )
    counts = [sum(of_class) for of_class in zip(*manifest.class_counts.values(), strict=True)]
    num_used, num_labelled = sum(count > 0 for count in counts), sum(counts)
    if look_like_ids(num_used, num_labelled):
        lines.append(
            f"{num_used} classes for {num_labelled} labelled images: are these classes, or ids of images?"
        )
    reasons = ("unreadable", "missing", "with two labels")
    if skipped := {what: manifest.notes.get(what) for what in reasons if manifest.notes.get(what)}:
        lines.append("left out: " + ", ".join(f"{count} images {what}" for what, count in skipped.items()))
    if manifest.grey_range is not None:
        lines.append(_grey_remark(manifest))
    if manifest.max_side is not None:
        lines.append(_scaling_remark(manifest))
    if others := manifest.notes.get("other files"):
        lines.append("files that are no images: " + ", ".join(f"{n} {kind}" for kind, n in others.items()))
    lines += manifest.notes.get("remarks", ())
    return lines


def _scaling_remark(manifest: Manifest) -> str:
    note = manifest.notes[SCALING]
    scaled, copied = (note.get(kind, 0) for kind in ("scaled", "copied"))
    line = f"{scaled} images scaled to at most {manifest.max_side} px, {copied} smaller ones copied"
    return f"{line}, {note['deep']} larger ones of more than 8 bits copied" if "deep" in note else line


def _grey_remark(manifest: Manifest) -> str:
    assert manifest.grey_range is not None
    if measured := manifest.notes.get("grey"):
        grey = Grey(**measured)
        num_plain = sum(manifest.num_samples(split) for split in manifest.splits) - grey.num_images
        beside = (
            f"; the {num_plain} images of 8 bits keep their values: compare both kinds by `fourds pack sheet`"
        )
        return grey.remark(manifest.grey_range) + (beside if num_plain > 0 else "")
    black, white = manifest.grey_range
    return (
        f"images of more than 8 bits are read with black at {black:g} and white at {white:g} (--grey-range)"
    )
