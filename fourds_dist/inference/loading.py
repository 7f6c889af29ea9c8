"""Load a student from a run, a checkpoint or a file, at a path or URL.

runs/photos                          run: the finished student; of several the named one, or the best by validation
runs/photos/distill/checkpoint-...   checkpoint: the best weights so far
student.safetensors                  weights with metadata, from a run or an export
student.pt2, student.onnx            exported programs
shipped                              folder of an export: its first file of these
timm/resnet18.a1_in1k                published weights of timm, with the classes of their data
hf://owner/name                      repository of the hub: a student of `fourds export --push`, or a model of timm;
                                     hf://owner/name@revision
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fourds_dist.data import open_split
from fourds_dist.data.stream.preprocessing import Preprocessing
from fourds_dist.inference.student import ABOUT, Student, classes_of, description
from fourds_dist.io.error_text import one_line
from fourds_dist.io.extras import fix
from fourds_dist.io.json_text import parse_json
from fourds_dist.io.storage import locate, translate_storage_errors
from fourds_dist.models.backbones import BackboneConfig, build_backbone
from fourds_dist.models.hub import fetch, is_repository, repository_of
from fourds_dist.models.timm_networks import CONFIG_FILE, is_timm
from fourds_dist.models.weights.loading import load_weights
from fourds_dist.models.weights.published import PRETRAINED, class_titles, published_weights
from fourds_dist.runs.layout import CHECKPOINT_STATE, Network, RunFile, checkpoint_step
from fourds_dist.stages.finished_run import Run, read_bytes
from fourds_dist.training.checkpoint.learning_state import decode_state
from fourds_dist.training.selection import best_network
from fourds_dist.training.train_state import Best

FORMATS = (".safetensors", ".pt2", ".onnx")
STUDENT_FILES = (*(f"student{suffix}" for suffix in FORMATS), "student.int8.onnx")
"""Files of an export, in the order of preference."""
MOST_HEADER_BYTES = 100 << 20
"""Largest header that the safetensors format allows."""


def load_student(source: str | Path | Run, name: str | None = None) -> Student:
    """Load the student of a run, a checkpoint or a file, given by path or URL.

    Args:
        name: one of several students of a run or its checkpoint; None: the best one on the validation split.

    >>> student = load_student("runs/digits")
    >>> student.classes[:3]
    ('0', '1', '2')
    >>> student.predict(["seven.png"])[0].label
    '7'

    Raises:
        ValueError: no such file or folder, an unsupported format, a file without a student's metadata, or a name that
            the run does not have.
    """
    if isinstance(source, Run):
        return _of_run(source, name)
    url = str(source).rstrip("/")
    checkpoint = url.removesuffix(f"/{CHECKPOINT_STATE}")
    if checkpoint_step(checkpoint.rpartition("/")[2]) is not None:
        return _of_checkpoint(checkpoint, name)
    if name is not None:
        if url.endswith(FORMATS) or is_repository(url) or is_timm(url):
            raise ValueError(
                f"{url} is one student, so the name {name!r} selects nothing; leave out the name"
            )
        return _of_run(Run(url), name)
    if is_repository(url):
        return _of_repository(url)
    if is_timm(url):
        return _of_published(url)
    if url.endswith(".safetensors"):
        return _of_safetensors(url)
    if url.endswith(".pt2"):
        return _of_program(url)
    if url.endswith(".onnx"):
        return _of_onnx(url)
    fs, path = locate(url)
    with translate_storage_errors(url):
        if not fs.exists(path):
            raise ValueError(f"{url}: nothing there; give a run's folder or a student ({', '.join(FORMATS)})")
        if not fs.isdir(path):
            raise ValueError(f"{url} is no student; give a run's folder or a file {', '.join(FORMATS)}")
        if not fs.exists(f"{path}/{RunFile.CONFIG}"):
            for file in STUDENT_FILES:
                if fs.exists(f"{path}/{file}"):
                    return load_student(f"{url}/{file}")
    return _of_run(Run(url))


def _of_run(run: Run, name: str | None = None) -> Student:
    file = RunFile.STUDENT if name is None else RunFile.STUDENT.of_student(_known(run, name))
    if not run.folder.exists(file):
        raise ValueError(
            f"{run.url} has no {file} yet: the run is not done; repeat its command to resume the run, or "
            "give one of its checkpoints (distill/checkpoint-...)"
        )
    return _of_safetensors(run.folder.path(file))


def _known(run: Run, name: str) -> str:
    """Return the name of a run's student in its files, where the name of an only student is empty.

    Raises:
        ValueError: the run has no student of this name.
    """
    names = run.settings.student_names
    if name not in names:
        raise ValueError(f"{run.url} has no student {name!r}; its students are {', '.join(names)}")
    return name if len(names) > 1 else ""


def _of_safetensors(url: str) -> Student:
    about = _safetensors_metadata(url)
    classes = classes_of(about, url)
    if "preprocessing" in about:
        preprocessing = Preprocessing.from_json(about["preprocessing"], url)
    else:
        preprocessing = _preprocessing_beside(url)
    config = BackboneConfig.model_validate({"arch": about["arch"], "stem": about.get("stem", "imagenet")})
    network = build_backbone(config, len(classes), preprocessing.network_px)
    load_weights(url, network, what="student")
    return _of_network(network, url, classes, preprocessing, about)


def _of_repository(url: str) -> Student:
    files = (*STUDENT_FILES, CONFIG_FILE)
    path = fetch(repository_of(url), files, where=url, instead="STUDENT={folder}", with_config=False)
    return _of_published(url) if path.name == CONFIG_FILE else replace(load_student(path), origin=url)


def _of_published(arch: str) -> Student:
    """Load the network and the weights that timm or a repository publishes; classes are those of the weights."""
    weights = published_weights(arch, PRETRAINED, None, arch)
    names = weights.about.get("label_names")
    if isinstance(names, Mapping):
        names = [name for _, name in sorted(names.items(), key=lambda item: int(item[0]))]
    if not names:
        raise ValueError(
            f"{arch}: the published weights name no classes; train the network on your data (arch: {arch}, start: "
            "pretrained)"
        )
    side, crop = weights.about["image_px"], weights.about["crop_pct"]
    preprocessing = Preprocessing(round(side / crop), side, *(weights.about[key] for key in ("mean", "std")))
    config = BackboneConfig(arch=arch)
    network = build_backbone(config, len(names), side)
    network.load_state_dict(weights.tensors)
    classes = class_titles(names)
    return _of_network(network, arch, classes, preprocessing, description(config, classes, preprocessing, {}))


def _of_checkpoint(url: str, name: str | None = None) -> Student:
    run = Run(url.rpartition("/")[0].rpartition("/")[0])
    settings = run.settings
    own_name = None if name is None else _known(run, name)
    state = decode_state(read_bytes(f"{url}/{CHECKPOINT_STATE}"), url)
    best, prefix, config = Best.of_state(state["best"]), "student.", settings.student
    if settings.students and best.apart:
        named = settings.named_students
        key = Network.STUDENT.of_student(own_name) if own_name else best_network(best.apart)
        number = list(named).index(key.partition("/")[2])
        best, prefix = best.apart[key], f"students.{number}.student."
        config = settings.students[number]
    weights = best.weights or {}
    student_weights = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    if not student_weights:
        raise ValueError(
            f"{url} holds no student with an evaluated epoch; give a checkpoint of distill/, or a later one"
        )
    target = open_split(settings.target, "train")
    own = config.network_input(settings.data)
    classes, preprocessing = target.classes, Preprocessing.of(settings.data, target.grey_range, own)
    network = build_backbone(config, len(classes), preprocessing.network_px)
    try:
        network.load_state_dict(student_weights)
    except RuntimeError as error:
        raise ValueError(
            f"{url} does not fit {RunFile.CONFIG} of its run: {str(error).splitlines()[-1].strip()}"
        ) from None
    about = description(config, classes, preprocessing, {"domain": str(settings.target.url)})
    return _of_network(network, url, classes, preprocessing, about)


def _of_network(
    network: nn.Module,
    origin: str,
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
    about: Mapping[str, str],
) -> Student:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device).eval()

    def run(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            return network(preprocessing.normalised(pixels.to(device))).float().cpu()

    return Student(origin, classes, preprocessing, run, network, about)


def _of_program(url: str) -> Student:
    extra: dict[str, Any] = {ABOUT: ""}
    data = io.BytesIO(read_bytes(url))
    try:
        if not zipfile.is_zipfile(data):  # avoids PyTorch's long log about files that are no archives
            raise ValueError("no archive")
        data.seek(0)
        program = torch.export.load(data, extra_files=extra)
        about = parse_json(extra[ABOUT])
        if not isinstance(about, dict) or not all(isinstance(text, str) for text in about.values()):
            raise ValueError(f"{ABOUT} is no mapping of strings")
    except Exception as error:  # zipfile and PyTorch raise unrelated exceptions on corrupt files
        raise ValueError(f"{url} is no exported student ({one_line(error)}); export it again") from None
    module = program.module()

    def run(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            return module(pixels.float() / 255)

    preprocessing = Preprocessing.from_json(about["preprocessing"], url)
    return Student(url, classes_of(about, url), preprocessing, run, None, about)


def _of_onnx(url: str) -> Student:
    try:
        import onnxruntime
    except ImportError:
        raise ValueError(f"{url} needs ONNX Runtime: {fix('export')}") from None
    data = read_bytes(url)
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise ValueError(
            f"{url} is no ONNX model that ONNX Runtime can run ({one_line(error)}); export the student again"
        ) from None
    about = session.get_modelmeta().custom_metadata_map
    classes = classes_of(about, url)

    def run(pixels: Tensor) -> Tensor:
        inputs = {session.get_inputs()[0].name: (pixels.float() / 255).numpy()}
        return torch.from_numpy(np.asarray(session.run(None, inputs)[0]))

    return Student(url, classes, Preprocessing.from_json(about["preprocessing"], url), run, None, about)


def _safetensors_metadata(url: str) -> dict[str, str]:
    """Return the metadata in a safetensors file's header."""
    size = int.from_bytes(read_bytes(url, 0, 8), "little")
    try:
        header: Any = parse_json(read_bytes(url, 8, 8 + size)) if size < MOST_HEADER_BYTES else ""
        about = header.get("__metadata__") or {}
        if not all(isinstance(text, str) for text in about.values()):
            raise ValueError("no strings")
    except (ValueError, AttributeError):
        raise ValueError(f"{url} is truncated or no safetensors file") from None
    if "arch" not in about:
        raise ValueError(
            f"{url} names no architecture in its metadata, so it is no student of fourds_dist; give a file from a "
            "run's folder or from `fourds export`"
        )
    return about


def _preprocessing_beside(url: str) -> Preprocessing:
    """Return the preprocessing in the configuration of the run whose folder holds the file."""
    try:
        settings = Run(url.rpartition("/")[0] or ".").settings
        return Preprocessing.of(settings.data, network=settings.student.network_input(settings.data))
    except ValueError:
        raise ValueError(
            f"{url} has no preprocessing in its metadata, and its folder has no {RunFile.CONFIG} of a run; leave the "
            "file in its run's folder, or give one written by `fourds export RUN DEST --formats safetensors`"
        ) from None
