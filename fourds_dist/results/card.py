"""The model card of an exported student: what it is, how good, how to run it without fourds_dist, where it ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import fourds_dist
from fourds_dist.results.scores import wilson
from fourds_dist.results.student import Student

if TYPE_CHECKING:
    from fourds_dist.results.export import Exported

MOST_CLASSES = 40


def model_card(student: Student, done: Sequence[Exported], where: str) -> str:
    """README.md of the exported files.

    Args:
        where: the images on which they were compared.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    first = done[0]
    low, high = wilson(round(first.student_accuracy * first.num_images), first.num_images)
    return environment.get_template("card.md.j2").render(
        student=student,
        done=done,
        files={e.format: e.file for e in done},
        where=where.rstrip("/").rpartition("/")[2],
        domain=str(student.about.get("domain", "")).rstrip("/").rpartition("/")[2],
        interval=f"{low:.1%} to {high:.1%}",
        build=build_code(student),
        preprocessing=student.preprocessing,
        mean=json.dumps(student.preprocessing.mean),
        std=json.dumps(student.preprocessing.std),
        most=MOST_CLASSES,
        version=fourds_dist.__version__,
    )


def build_code(student: Student) -> str:
    """Python that makes the network, by torchvision alone or the package it comes from."""
    arch, num = student.about["arch"], len(student.classes)
    if arch == "resnet10":
        block = "torchvision.models.resnet.BasicBlock"
        made = f"network = torchvision.models.ResNet({block}, [1, 1, 1, 1], num_classes={num})"
    elif arch.startswith("timm/"):
        made = (
            f'network = timm.create_model("{arch.removeprefix("timm/")}", num_classes={num})  # import timm'
        )
    elif ":" in arch:
        module, _, function = arch.partition(":")
        made = f"from {module} import {function}\nnetwork = {function}(num_classes={num})"
    else:
        made = f'network = torchvision.models.get_model("{arch}", weights=None, num_classes={num})'
    if student.about.get("stem") == "small":
        made += "\nnetwork.conv1 = torch.nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)"
        made += "\nnetwork.maxpool = torch.nn.Identity()"
    return made
