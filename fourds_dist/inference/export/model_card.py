"""Model card of an exported student: classes, metrics, code to run each file without fourds_dist, limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fourds_dist.data.decode import pixels
from fourds_dist.data.stream.preprocessing import Preprocessing
from fourds_dist.inference.metrics import wilson
from fourds_dist.inference.student import Student
from fourds_dist.io.version import __version__
from fourds_dist.models.backbones import SMALL_VITS, size_options
from fourds_dist.models.hub import is_repository, repository_of
from fourds_dist.models.timm_networks import REGISTRY, is_timm
from fourds_dist.runs.accuracy import percent

if TYPE_CHECKING:
    from fourds_dist.inference.export.exported import Exported

CARD = "README.md"
"""Name of the card's file."""
MADE_BY = "It was distilled by 4Ds"
"""Text of every card, which distinguishes a card from other README.md files."""
MOST_CLASSES = 40
"""Classes that the card lists by name."""


def model_card(student: Student, done: Sequence[Exported], where: str) -> str:
    """Return the text of the README.md beside the exported files.

    Args:
        done: the exported files, at least one.
        where: path or URL of the images on which the files were compared.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    first = done[0]
    interval = ""
    if first.student_accuracy is not None:
        low, high = wilson(round(first.student_accuracy * first.num_images), first.num_images)
        interval = f"{low:.1%} to {high:.1%}"
    return environment.get_template("card.md.j2").render(
        student=student,
        base_model=base_model(student.about["arch"]),
        done=done,
        files={e.format: e.file for e in done},
        where=_last_part(where),
        domain=_last_part(str(student.about.get("domain", ""))),
        json=json.dumps,
        interval=interval,
        percent=percent,
        build=build_code(student),
        needs=" ".join(["torch", "torchvision", *_packages(student), "safetensors", "pillow"]),
        code=preparation_code(student.preprocessing),
        grey_range=student.preprocessing.grey_range,
        preprocessing=student.preprocessing,
        mean=json.dumps(student.preprocessing.mean),
        std=json.dumps(student.preprocessing.std),
        most=MOST_CLASSES,
        version=__version__,
    )


def base_model(arch: str) -> str | None:
    """Return the repository of the hub with the network that was trained; None: `arch` names none.

    >>> base_model("timm/resnet18.a1_in1k"), base_model("hf://owner/name@v1"), base_model("resnet18")
    ('timm/resnet18.a1_in1k', 'owner/name', None)
    """
    if is_repository(arch):
        return repository_of(arch).partition("@")[0]
    return arch if arch.startswith(REGISTRY) and "." in arch else None


def preparation_code(preprocessing: Preprocessing) -> str:
    """Return Python code of a function `prepare` from an image file to the programs' input.

    The code contains the source of `fourds_dist.data.decode.pixels`, which decodes images in training.
    """
    decoding = Path(pixels.__file__).read_text("utf-8")
    decoding = decoding[decoding.index("FORMATS = ") :].rstrip()
    most_pixels = round(preprocessing.max_megapixels * 1e6)
    allowed = f"\nImage.MAX_IMAGE_PIXELS = {most_pixels}\n" if most_pixels > pixels.MOST_PIXELS else ""
    resize, crop = preprocessing.resize_px, preprocessing.crop_px
    sides = "image.size" if preprocessing.resize_mode == "squeeze" else "[min(image.size)] * 2"
    return f"""import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps
{allowed}
{decoding}


def prepare(path, resize={resize}, crop={crop}, grey_range={preprocessing.grey_range}):
    image = Image.fromarray(rgb(Path(path).read_bytes(), grey_range, resize))
    wide, tall = (max(1, round(side * crop / resize)) for side in {sides})
    left, top = round((image.width - wide) / 2), round((image.height - tall) / 2)
    image = image.crop((left, top, left + wide, top + tall)).resize((crop, crop), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32).transpose(2, 0, 1)[None] / 255"""


def build_code(student: Student) -> str:
    """Return Python code that builds the network with torchvision or with the package that defines the network."""
    arch, num = student.about["arch"], len(student.classes)
    sizes = size_options(arch, student.preprocessing.network_px)
    options = ", ".join([f"num_classes={num}", *(f"{key}={value}" for key, value in sizes.items())])
    if arch == "resnet10":
        block = "torchvision.models.resnet.BasicBlock"
        code = f"network = torchvision.models.ResNet({block}, [1, 1, 1, 1], {options})"
    elif arch in SMALL_VITS:
        options = ", ".join([options, *(f"{key}={value}" for key, value in SMALL_VITS[arch].items())])
        code = f"network = torchvision.models.VisionTransformer({options})"
    elif is_timm(arch):
        code = f'import timm\n\nnetwork = timm.create_model("{arch.removeprefix("timm/")}", {options})'
    elif ":" in arch:
        module, _, function = arch.partition(":")
        code = f"from {module} import {function}\n\nnetwork = {function}({options})"
    else:
        code = f'network = torchvision.models.get_model("{arch}", weights=None, {options})'
    if student.about.get("stem") == "small":
        code += "\nnetwork.conv1 = torch.nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)"
        code += "\nnetwork.maxpool = torch.nn.Identity()"
    return code


def _last_part(url: str) -> str:
    return url.rstrip("/").rpartition("/")[2]


def _packages(student: Student) -> list[str]:
    """Return the packages besides torchvision that define the network."""
    arch = student.about["arch"]
    return ["timm"] if is_timm(arch) else []
