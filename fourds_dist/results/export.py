"""The student in other formats, each read back and compared with the original on real images before it is let out."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fourds_dist.data import LoaderConfig
from fourds_dist.data.index import UNLABELLED
from fourds_dist.data.samples import Sample, SampleReader
from fourds_dist.results.card import MADE_BY, model_card, preparation_code
from fourds_dist.results.formats import FILES, Writer, check_packages
from fourds_dist.results.images import FileImages, ShardImages, open_labelled
from fourds_dist.results.loading import load_student
from fourds_dist.results.preprocessing import Preprocessing
from fourds_dist.results.student import Student
from fourds_dist.storage import check_writable, explained, locate, read_text, write_bytes
from fourds_dist.terminal import words

CARD = "README.md"
NUM_COMPARED = 256
NUM_CALIBRATION = 128
CLOSE = 1e-3
"""Largest error of a logit in units of the logits' deviation, for formats that compute the same."""
LEAST_AGREEMENT = {"int8": 0.95}
"""Share of images with the same answer as the student, where a format computes something else."""
BATCHES = (1, 32, 7)
"""Images per call of the comparison, in turn: batches are dynamic or the comparison fails."""
NUM_TIMED = 30
NUM_PREPARED = 16
"""Encoded images on which the model card's code is run."""
CLOSE_LEVELS = 1.0
"""Mean difference of a prepared image, of 255 levels: JPEG decoders and resizing round in other ways."""


@dataclass(frozen=True)
class Exported:
    """One format, compared."""

    format: str
    file: str
    num_bytes: int
    latency_ms: float
    """Median of one image alone, all threads."""
    error: float
    """Largest difference of a logit, in units of the logits' deviation."""
    agreement: float
    """Share of images with the student's answer."""
    accuracy: float
    student_accuracy: float
    num_images: int

    def refusal(self, most_loss: float) -> str | None:
        """Why this file must not be let out; None: it may.

        Args:
            most_loss: accuracy that a format that computes something else may lose.
        """
        loss = self.student_accuracy - self.accuracy
        if self.format not in LEAST_AGREEMENT:
            if self.error > CLOSE or self.agreement < 1:
                return (
                    f"its outputs differ from the student's: by {self.error:.2g} deviations of a logit (allowed: "
                    f"{CLOSE:g}), and {1 - self.agreement:.1%} of the answers"
                )
            return None
        if loss > most_loss:
            return f"it loses {100 * loss:.1f} points of accuracy (allowed: {100 * most_loss:.1f})"
        least = LEAST_AGREEMENT[self.format]
        if self.agreement < least:
            return f"it gives the student's answer on {self.agreement:.1%} of the images only (least: {least:.0%})"
        return None


def check_request(dest: str, formats: Sequence[str]) -> None:
    """Refuse what cannot be exported, whatever the student is.

    Raises:
        ValueError: unknown format, missing packages, a place that cannot be written, or that has a README.md which is
            no model card.
    """
    unknown = [f for f in formats if f not in FILES]
    if unknown or not formats:
        named = f"unknown format {unknown[0]!r}" if unknown else "no format"
        raise ValueError(f"{named}; there are {', '.join(FILES)}")
    check_packages(formats)
    check_writable(dest)
    card = f"{dest.rstrip('/')}/{CARD}"
    fs, path = locate(card)
    with explained(card):
        if fs.exists(path) and MADE_BY not in read_text(card):
            raise ValueError(f"{card} is there and is no model card of ours; give another folder")


def export(
    student: Student, dest: str, formats: Sequence[str], *, data: str | None = None, most_loss: float = 0.01
) -> tuple[list[Exported], dict[str, str]]:
    """Write a student in some formats, and its model card, to a folder or URL.

    Args:
        data: labelled images to compare on; None: the test split of the target it was made for.
        most_loss: see `Exported.refusal`.

    Returns:
        what was let out, and why other formats were refused.

    Raises:
        ValueError: unknown format, no data, missing packages.
    """
    check_request(dest, formats)
    where = data or student.about.get("domain")
    if not where:
        raise ValueError(f"{student.origin} does not say what its target is; give labelled images by --data")
    images = open_labelled(where, student.classes, key="--data" if data else "its target")
    check_preparation(student.preprocessing, _encoded(images))
    pixels, labels = _some(images, student, NUM_COMPARED)
    about = {**student.about, "format": "fourds_dist", "preprocessing": student.preprocessing.to_json()}
    calibration = _calibration(images, student) if "int8" in formats else pixels
    writer = Writer(student, about, lambda: calibration)
    expected = student.run(pixels)
    done: list[Exported] = []
    refused: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as here:
        for format_ in formats:
            path = writer.write(format_, Path(here))
            seen = compared(format_, path, pixels, labels, expected)
            why = seen.refusal(most_loss)
            if why is None:
                done.append(seen)
            else:
                refused[format_] = why
        card = model_card(student, done, images.where) if done else ""
        for (
            seen
        ) in done:  # once all formats are written and compared: one that cannot be written leaves nothing
            _put(Path(here, seen.file), f"{dest.rstrip('/')}/{seen.file}")
    if done:
        write_bytes(f"{dest.rstrip('/')}/{CARD}", card.encode())
    return done, refused


def compared(format_: str, path: Path, pixels: Tensor, labels: np.ndarray, expected: Tensor) -> Exported:
    """Read a file back, as its user would, and compare it with what the student said of the same images."""
    again = load_student(path)
    given: list[Tensor] = []
    begin = 0
    while begin < len(pixels):
        size = BATCHES[len(given) % len(BATCHES)]
        given.append(again.run(pixels[begin : begin + size]))
        begin += size
    logits = torch.cat(given)
    answers, own = logits.argmax(1).numpy(), expected.argmax(1).numpy()
    known = labels != UNLABELLED
    return Exported(
        format_,
        path.name,
        path.stat().st_size,
        _latency_ms(again, pixels[:1]),
        float((logits - expected).abs().max() / expected.std()),
        float((answers == own).mean()),
        float((answers == labels)[known].mean()),
        float((own == labels)[known].mean()),
        len(pixels),
    )


def check_preparation(preprocessing: Preprocessing, encoded: Mapping[str, bytes]) -> None:
    """Run the model card's own code on encoded images: it has to prepare them as the student's images were.

    Raises:
        ValueError: naming an image that it prepares otherwise.
    """
    names: dict[str, Any] = {}
    exec(preparation_code(preprocessing), names)
    with tempfile.TemporaryDirectory() as here:
        path = Path(here, "image")
        for name, data in encoded.items():
            try:
                ours = preprocessing.pixels(data).numpy()
            except ValueError:
                continue  # broken images are left out of the comparison
            path.write_bytes(data)
            difference = np.abs(names["prepare"](path)[0] * 255 - ours)
            if difference.mean() > CLOSE_LEVELS:
                raise ValueError(
                    f"{name}: the model card's code prepares this image otherwise than training does, by "
                    f"{difference.mean():.1f} of 255 levels on average; nothing is written: please report it"
                )


def _encoded(images: ShardImages | FileImages) -> dict[str, bytes]:
    """Some encoded images, evenly spread, by name."""
    if isinstance(images, FileImages):
        some = np.linspace(0, images.num_images - 1, min(NUM_PREPARED, images.num_images)).round().astype(int)
        return {str(images.paths[i]): images.paths[i].read_bytes() for i in some}
    few = images.thinned(NUM_PREPARED).split
    fetcher = LoaderConfig().fetcher(few.num_bytes)
    try:
        read = SampleReader(few, fetcher, fetcher).read(few.positions(np.arange(few.num_samples)))
    finally:
        fetcher.stop()
    return {sample.key: bytes(sample.data) for sample in read if isinstance(sample, Sample)}


def show(done: Sequence[Exported], console: Console) -> None:
    """Print the table."""
    table = Table(title=words(f"compared on {done[0].num_images} real images"), title_justify="left")
    table.add_column("file", no_wrap=True)
    for column in ("size", "1 image", "same answers", "accuracy", "logits off by"):
        table.add_column(column, justify="right")
    for e in done:
        size, latency = f"{e.num_bytes / 1e6:.1f} MB", f"{e.latency_ms:.1f} ms"
        shares = (f"{e.agreement:.1%}", f"{e.accuracy:.1%}")
        table.add_row(words(e.file), size, latency, *shares, f"{e.error:.1e}")
    console.print(table)


def _some(images: ShardImages | FileImages, student: Student, most: int) -> tuple[Tensor, np.ndarray]:
    """(pixels, labels) of at most `most` images, evenly spread."""
    if isinstance(images, ShardImages):
        images = images.thinned(most)
    elif images.num_images > most:
        chosen = np.linspace(0, images.num_images - 1, most).round().astype(int)
        images = FileImages(
            images.where, [images.paths[i] for i in chosen], [images.labels[i] for i in chosen]
        )
    seen = list(images.batches(student.preprocessing))
    if not seen or all((p.labels == UNLABELLED).all() for p in seen):
        raise ValueError(f"{images.where}: no labelled images to compare on; give others by --data")
    return torch.cat([p.pixels for p in seen]), torch.cat([p.labels for p in seen]).numpy()


def _calibration(images: ShardImages | FileImages, student: Student) -> Tensor:
    """Training images where there are, so that what is compared has not been seen; else the images of comparison."""
    if isinstance(images, ShardImages):
        images = open_labelled(images.split.url, student.classes, "train")  # pyright: ignore[reportAssignmentType]
    return _some(images, student, NUM_CALIBRATION)[0]


def _latency_ms(student: Student, pixels: Tensor) -> float:
    times = []
    for _ in range(NUM_TIMED):
        began = time.perf_counter()
        student.run(pixels)
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times[3:])


def _put(path: Path, url: str) -> None:
    fs, place = locate(url)
    if "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)):
        target = Path(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.partial")
        shutil.copyfile(path, partial)
        partial.replace(target)
    else:
        write_bytes(url, path.read_bytes())
