"""The model card of an exported student: what it is, how good, how to run it without fourds_dist, where it ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import fourds_dist
from fourds_dist.data import pixels
from fourds_dist.data.preprocessing import Preprocessing
from fourds_dist.method.backbones import size_options
from fourds_dist.results.scores import wilson
from fourds_dist.results.student import Student

if TYPE_CHECKING:
    from fourds_dist.results.export import Exported

MADE_BY = "It was distilled by 4Ds"
"""In every card: what tells a card from another README.md."""
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
        needs=" ".join(["torch", "torchvision", *_packages(student), "safetensors", "pillow"]),
        code=preparation_code(student.preprocessing),
        grey_range=student.preprocessing.grey_range,
        preprocessing=student.preprocessing,
        mean=json.dumps(student.preprocessing.mean),
        std=json.dumps(student.preprocessing.std),
        most=MOST_CLASSES,
        version=fourds_dist.__version__,
    )


def preparation_code(preprocessing: Preprocessing) -> str:
    """Python with a function `prepare`, from a path to the programs' input, by the rule that training decodes by."""
    rule = Path(pixels.__file__).read_text("utf-8")
    rule = rule[rule.index("FORMATS = ") :].rstrip()
    most_pixels = round(preprocessing.max_megapixels * 1e6)
    allowed = f"\nImage.MAX_IMAGE_PIXELS = {most_pixels}\n" if most_pixels > pixels.MOST_PIXELS else ""
    resize, crop = preprocessing.resize_px, preprocessing.crop_px
    return f"""import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps
{allowed}
{rule}


def prepare(path, resize={resize}, crop={crop}, grey_range={preprocessing.grey_range}):
    image = Image.fromarray(rgb(Path(path).read_bytes(), grey_range, resize))
    wide, tall = (max(1, round(side * crop / resize)) for side in image.size)
    left, top = round((image.width - wide) / 2), round((image.height - tall) / 2)
    image = image.crop((left, top, left + wide, top + tall)).resize((crop, crop), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32).transpose(2, 0, 1)[None] / 255"""


def build_code(student: Student) -> str:
    """Python that makes the network, by torchvision alone or the package it comes from."""
    arch, num = student.about["arch"], len(student.classes)
    sizes = size_options(arch, student.preprocessing.crop_px)
    told = ", ".join([f"num_classes={num}", *(f"{key}={value}" for key, value in sizes.items())])
    if arch == "resnet10":
        block = "torchvision.models.resnet.BasicBlock"
        made = f"network = torchvision.models.ResNet({block}, [1, 1, 1, 1], {told})"
    elif arch.startswith("timm/"):
        made = f'import timm\n\nnetwork = timm.create_model("{arch.removeprefix("timm/")}", {told})'
    elif ":" in arch:
        module, _, function = arch.partition(":")
        made = f"from {module} import {function}\n\nnetwork = {function}({told})"
    else:
        made = f'network = torchvision.models.get_model("{arch}", weights=None, {told})'
    if student.about.get("stem") == "small":
        made += "\nnetwork.conv1 = torch.nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)"
        made += "\nnetwork.maxpool = torch.nn.Identity()"
    return made


def _packages(student: Student) -> list[str]:
    """What the network comes from, where that is not torchvision."""
    arch = student.about["arch"]
    return ["timm"] if arch.startswith("timm/") else []
