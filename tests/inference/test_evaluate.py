"""Metrics of a student on labelled images: counts of images left out, the tables and the plain values."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from fourds_dist.data.stream.preprocessing import Preprocessing
from fourds_dist.inference.evaluate import MOST_CLASSES, evaluate_student
from fourds_dist.inference.images import open_labelled
from fourds_dist.inference.loading import load_student
from fourds_dist.inference.student import Student
from tests.data.shards import SIDE, write_dataset


def by_brightness(num_classes: int = 3) -> Student:
    """A student whose class is the red value of an image modulo the number of classes, as in `image_of`."""

    def run(pixels: Tensor) -> Tensor:
        return (
            50.0 * torch.nn.functional.one_hot(pixels[:, 0, 0, 0].long() % num_classes, num_classes).float()
        )

    names = tuple(f"c{number}" for number in range(num_classes))
    return Student("s", names, Preprocessing(SIDE, SIDE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), run, None, {})


def dataset(folder: Path, labels: list[int], num_classes: int = 3) -> str:
    classes = tuple(f"c{number}" for number in range(num_classes))
    return write_dataset(folder, [len(labels)], splits=("test",), labels=labels, classes=classes)


def test_classes_named_like_markup_are_shown_as_they_are(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = load_student(workplace / "runs" / "digits")
    classes = ("[bold]x[/bold]", "[/]", *student.classes[2:])
    named = replace(student, classes=classes, origin="[/red]")
    images = open_labelled(str(workplace / "shards/digits"), student.classes)
    evaluate_student(named, images).show(Console(width=120))
    out = capsys.readouterr().out
    assert "[bold]x[/bold]" in out
    assert any(line.split()[:1] == ["[/]"] for line in out.splitlines())
    assert "[/red]" in out


def test_images_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    student = by_brightness()
    url = dataset(tmp_path / "set", [0, 1, 2, 0, 1, -1, 1, -1])  # image 6 has the label 1 instead of 0
    for batch_size in (1, 3, 100):
        done = evaluate_student(student, open_labelled(url, student.classes), batch_size=batch_size)
        values = done.as_dict()
        assert (values["num_images"], values["num_unlabelled"], values["num_unreadable"]) == (6, 2, 0)
        assert values["top1"]["value"] == pytest.approx(5 / 6)
        assert values["confusion"] == [[2, 0, 0], [1, 2, 0], [0, 0, 1]]
        assert (values["student"], values["data"]) == ("s", done.where)
        assert len(done.names) == 6


def test_the_table_has_the_classes_with_the_lowest_recall(tmp_path: Path) -> None:
    num = MOST_CLASSES + 5
    student = by_brightness(num)
    url = dataset(tmp_path / "set", [*range(num - 1), 0], num)  # the last image has a wrong label
    console = Console(width=100, record=True, file=io.StringIO())
    evaluate_student(student, open_labelled(url, student.classes)).show(console)
    lines = [line.strip() for line in console.export_text().splitlines()]
    assert f"{MOST_CLASSES} classes with the lowest recall, of {num - 1}" in lines
    rows = [line.split() for line in lines if re.match(r"c\d", line)]
    assert len(rows) == MOST_CLASSES
    assert tuple(rows[0][:3]) == ("c0", "2", "50.0%")
    assert any(line.startswith("top-5 accuracy") for line in lines)
    assert lines[-1] == f"{num} images"


def test_refused(tmp_path: Path) -> None:
    student = by_brightness()
    url = dataset(tmp_path / "set", [-1, -1])
    images = open_labelled(url, student.classes)
    with pytest.raises(ValueError, match="a batch size of 0: give 1 or more"):
        evaluate_student(student, images, batch_size=0)
    with pytest.raises(ValueError, match="no labelled images; give data with labels"):
        evaluate_student(student, images)
