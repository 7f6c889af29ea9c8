"""Export a student to other formats; each file is read back and compared with the student on images before writing."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from fourds_dist.data import DataConfig
from fourds_dist.data.format.index import UNLABELLED
from fourds_dist.data.stream.preprocessing import Preprocessing
from fourds_dist.data.stream.samples import EncodedSample, SampleReader
from fourds_dist.inference.export.exported import Exported
from fourds_dist.inference.export.formats import FILES, Writer, check_packages
from fourds_dist.inference.export.model_card import CARD, MADE_BY, model_card, preparation_code
from fourds_dist.inference.images import FileImages, ShardImages, open_labelled
from fourds_dist.inference.loading import load_student
from fourds_dist.inference.student import Student
from fourds_dist.io.storage import check_writable, locate, read_text, translate_storage_errors, write_bytes
from fourds_dist.io.tables import print_table
from fourds_dist.models.hub import is_repository
from fourds_dist.runs.accuracy import percent

NUM_COMPARED = 256
NUM_CALIBRATION = 128
BATCHES = (1, 32, 7)
"""Batch sizes of the comparison, in turn; a program with a fixed batch size fails."""
NUM_TIMED = 30
NUM_PREPARED = 16
"""Encoded images on which the model card's code is run."""
CLOSE_LEVELS = 1.0
"""Largest mean difference of a prepared image, of 255 levels; JPEG decoders and resizing differ in rounding."""


def check_request(dest: str, formats: Sequence[str]) -> None:
    """Refuse requests that no student can meet.

    Raises:
        ValueError: unknown format, missing packages, a folder or URL that cannot be written to, or one with a README.md
            that is no model card.
    """
    unknown = [f for f in formats if f not in FILES]
    if unknown or not formats:
        problem = f"unknown format {unknown[0]!r}" if unknown else "no format"
        raise ValueError(f"{problem}; there are {', '.join(FILES)}")
    check_packages(formats)
    if is_repository(dest):
        raise ValueError(f"{dest} is a repository of the hub; give --push {dest}")
    check_writable(dest)
    card = f"{dest.rstrip('/')}/{CARD}"
    fs, path = locate(card)
    with translate_storage_errors(card):
        if fs.exists(path) and MADE_BY not in read_text(card):
            raise ValueError(f"{card} exists and is no model card of fourds_dist; give another folder")


def export(
    student: Student, dest: str, formats: Sequence[str], *, data: str | None = None, most_loss: float = 0.01
) -> tuple[list[Exported], dict[str, str]]:
    """Write a student in several formats, and its model card, to a folder or URL.

    Args:
        data: labelled images to compare on; None: the test split of the student's target.
        most_loss: see `Exported.refusal`.

    Returns:
        The files written, and format -> reason for the formats that were refused.

    Raises:
        ValueError: unknown format, no labelled images, missing packages.
    """
    check_request(dest, formats)
    where = data or student.about.get("domain")
    if not where:
        raise ValueError(f"{student.origin} has no target in its metadata; give labelled images with --data")
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
            exported = compared(format_, path, pixels, labels, expected)
            reason = exported.refusal(most_loss)
            if reason is None:
                done.append(exported)
            else:
                refused[format_] = reason
        card = model_card(student, done, images.where) if done else ""
        for exported in done:  # only after all formats: an error in one of them leaves no files
            _put(Path(here, exported.file), f"{dest.rstrip('/')}/{exported.file}")
    if done:
        write_bytes(f"{dest.rstrip('/')}/{CARD}", card.encode())
    return done, refused


def compared(format_: str, path: Path, pixels: Tensor, labels: np.ndarray, expected: Tensor) -> Exported:
    """Load an exported file and compare its logits with the student's logits `expected` of the same images."""
    loaded = load_student(path)
    batches: list[Tensor] = []
    begin = 0
    while begin < len(pixels):
        size = BATCHES[len(batches) % len(BATCHES)]
        batches.append(loaded.run(pixels[begin : begin + size]))
        begin += size
    logits = torch.cat(batches)
    predicted, predicted_by_student = logits.argmax(1).numpy(), expected.argmax(1).numpy()
    labelled = labels != UNLABELLED
    return Exported(
        format_,
        path.name,
        path.stat().st_size,
        _latency_ms(loaded, pixels[:1]),
        float((logits - expected).abs().max() / expected.std()),
        float((predicted == predicted_by_student).mean()),
        float((predicted == labels)[labelled].mean()) if labelled.any() else None,
        float((predicted_by_student == labels)[labelled].mean()) if labelled.any() else None,
        len(pixels),
    )


def check_preparation(preprocessing: Preprocessing, encoded: Mapping[str, bytes]) -> None:
    """Run the model card's code on encoded images and compare the result with the student's preprocessing.

    Raises:
        ValueError: the two differ; the message names the image.
    """
    names: dict[str, Any] = {}
    exec(preparation_code(preprocessing), names)
    with tempfile.TemporaryDirectory() as here:
        path = Path(here, "image")
        for name, data in encoded.items():
            try:
                expected = preprocessing.pixels(data).numpy()
            except ValueError:
                continue  # broken images are left out of the comparison
            path.write_bytes(data)
            difference = np.abs(names["prepare"](path)[0] * 255 - expected)
            if difference.mean() > CLOSE_LEVELS:
                raise ValueError(
                    f"{name}: the model card's code prepares this image differently from training, by "
                    f"{difference.mean():.1f} of 255 levels on average; nothing was written; please report this error"
                )


def _encoded(images: ShardImages | FileImages) -> dict[str, bytes]:
    """Return at most NUM_PREPARED evenly spaced encoded images by name."""
    if isinstance(images, FileImages):
        num = min(NUM_PREPARED, images.num_images)
        chosen = np.linspace(0, images.num_images - 1, num).round().astype(int)
        return {str(images.paths[i]): images.paths[i].read_bytes() for i in chosen}
    split = images.thinned(NUM_PREPARED).split
    fetcher = DataConfig().fetcher(split.num_bytes)
    try:
        samples = SampleReader(split, fetcher, fetcher).read(split.positions(np.arange(split.num_samples)))
    finally:
        fetcher.stop()
    return {sample.key: bytes(sample.data) for sample in samples if isinstance(sample, EncodedSample)}


def show(done: Sequence[Exported], console: Console) -> None:
    """Print the table of the comparison."""
    rows = []
    for e in done:
        size, latency = f"{e.num_bytes / 1e6:.1f} MB", f"{e.latency_ms:.1f} ms"
        rows.append((e.file, size, latency, percent(e.agreement), percent(e.accuracy), f"{e.error:.1e}"))
    columns = ("file", "size", "latency", "agreement", "accuracy", "logit error")
    print_table(console, f"compared with the student on {done[0].num_images} images", columns, rows)


def _some(images: ShardImages | FileImages, student: Student, most: int) -> tuple[Tensor, np.ndarray]:
    """Return (pixels, labels) of at most `most` images, evenly spaced."""
    if isinstance(images, ShardImages):
        images = images.thinned(most)
    elif images.num_images > most:
        chosen = np.linspace(0, images.num_images - 1, most).round().astype(int)
        images = FileImages(
            images.where, [images.paths[i] for i in chosen], [images.labels[i] for i in chosen]
        )
    batches = list(images.batches(student.preprocessing))
    if not batches:
        raise ValueError(f"{images.where}: no images to compare on; give other images with --data")
    return torch.cat([batch.pixels for batch in batches]), torch.cat(
        [batch.labels for batch in batches]
    ).numpy()


def _calibration(images: ShardImages | FileImages, student: Student) -> Tensor:
    """Return calibration images: of the train split if `images` are shards, else of the images of the comparison."""
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
    fs, fs_path = locate(url)
    if "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)):
        target = Path(fs_path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.partial")
        shutil.copyfile(path, partial)
        partial.replace(target)
    else:
        write_bytes(url, path.read_bytes())
