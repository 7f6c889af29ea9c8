"""Fuzzed: encoded images, weights, checkpoints, students, and the files of a run's folder."""

from __future__ import annotations

import functools
import io
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save as save_safetensors

from fourds_dist.config.loading import builtin_config, dump, load
from fourds_dist.data.datasets.files import check_images
from fourds_dist.data.decode.decode import decode
from fourds_dist.data.stream.preprocessing import Preprocessing
from fourds_dist.inference.loading import load_student, load_weights
from fourds_dist.inference.student import description
from fourds_dist.models.backbones import BackboneConfig, build_backbone
from fourds_dist.models.weights.networks import StudentConfig, build_initialised
from fourds_dist.reports.report import report
from fourds_dist.runs.events import (
    EpochEnded,
    Event,
    Note,
    StageStarted,
    StageStopped,
    StepLogged,
    TimeShares,
    Validation,
    encode,
)
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.stages.finished_run import Run
from fourds_dist.stages.settings import Settings
from fourds_dist.training.checkpoint.learning_state import FORMAT, decode_state
from tests.fuzz.mutations import TEXTS, Draw, changed_bytes, changed_json, changed_lines, changed_tree, values
from tests.fuzz.target import Files, Target, cases

PIXELS = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)


@functools.cache
def images() -> tuple[bytes, ...]:
    """One small image of each kind that is read."""
    photo = Image.fromarray(PIXELS)
    tags = Image.Exif()
    tags[0x0112] = 6
    deep = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 200)
    kinds = [
        (photo, "JPEG", {}), (photo, "JPEG", {"progressive": True, "exif": tags}), (photo.convert("CMYK"), "JPEG", {}),
        (photo.convert("L"), "JPEG", {}), (photo, "PNG", {}), (photo.convert("P"), "PNG", {"transparency": 3}),
        (photo.convert("RGBA"), "PNG", {}), (deep, "PNG", {}), (photo.convert("1"), "PNG", {}), (photo, "WEBP", {}),
        (photo, "WEBP", {"lossless": True, "exif": tags}), (photo, "BMP", {}), (photo.convert("P"), "BMP", {}),
        (photo, "GIF", {"save_all": True, "append_images": [photo.rotate(90)]}), (photo, "TIFF", {}),
        (photo, "TIFF", {"compression": "tiff_lzw"}), (photo, "TIFF", {"compression": "tiff_deflate"}),
        (Image.fromarray(PIXELS[..., 0].astype(np.float32)), "TIFF", {}), (deep, "TIFF", {}), (photo, "PPM", {}),
        (photo.resize((700, 500)), "JPEG", {}),
    ]  # fmt: skip
    encoded = []
    for image, kind, options in kinds:
        out = io.BytesIO()
        image.save(out, kind, **options)
        encoded.append(out.getvalue())
    return tuple(encoded)


def image_case(draw: Draw) -> Files:
    data = draw(st.sampled_from(images()))
    head = draw(st.integers(0, min(len(data), 120)))
    if draw(st.booleans()):  # numbers in headers: sizes, depths, offsets
        number = draw(
            st.sampled_from((0, 1, 2, 3, 5, 16, 32, 255, 256, 30_000, 65_535, 2**31 - 1, 2**31, 2**32 - 1))
        )
        packed = struct.pack(draw(st.sampled_from((">I", "<I"))), number)[draw(st.sampled_from((0, 2, 3))) :]
        data = data[:head] + packed + data[head + len(packed) :]
    if draw(st.booleans()):
        data = changed_bytes(draw, data)
    return {"image.jpg": data}


def read_image_case(folder: Path) -> None:
    data = (folder / "image.jpg").read_bytes()
    for decodes in (False, True):
        check_images([folder / "image.jpg", folder / "image.jpg"], skip_bad=True, decode=decodes, num_threads=1,
                     on_progress=lambda *_: None) if data else None  # fmt: skip
    pixels = decode(data, resize_px=20, crop_px=16, place=(0.3, 0.6))
    assert pixels.shape == (3, 16, 16)


@functools.cache
def weights() -> dict[str, torch.Tensor]:
    """Of the smallest network that there is by name."""
    return build_backbone(BackboneConfig.model_validate(NETWORK), 3, 16).state_dict()


NETWORK = {"arch": "tests.fuzz.files:linear", "stem": "imagenet", "stages": ("0",)}


def linear(num_classes: int) -> torch.nn.Module:
    """A network of one layer."""
    return torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, num_classes)
    )


def _torch_bytes(value: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def _changed_state(draw: Draw) -> object:
    """A state dict with names, wrappers and values that do not belong."""
    held = dict(weights())
    names = sorted(held)
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(names))
        tensor = weights()[name]
        changed = (
            tensor.double(), tensor.half(), tensor.to(torch.complex64), tensor[:1], tensor[None], tensor.new_zeros(0),
            tensor.to_sparse(), torch.tensor(math.nan), tensor.bool(), tensor.long(), tensor * math.inf,
            tensor.to("meta"), torch.zeros(1).expand(10**9), None, 3, "x", [tensor], {}, torch.nn.Parameter(tensor),
        )  # fmt: skip
        held[name] = draw(st.sampled_from(changed))
    if draw(st.booleans()):
        name = draw(st.sampled_from((*TEXTS, "module.2.weight", "arch")))
        held[name] = draw(st.sampled_from((torch.zeros(2), 1, "resnet")))
    if draw(st.integers(0, 3)) == 0:
        return draw(
            st.sampled_from((list(held), {1: 2}, {1: torch.zeros(1)}, None, 3, "x", torch.zeros(3), [held]))
        )
    for wrapper in draw(
        st.lists(st.sampled_from(("state_dict", "model", "model_state_dict", "net", "model_ema")), max_size=2)
    ):
        held = {
            wrapper: held,
            **draw(st.sampled_from(({}, {"epoch": 3}, {"state_dict_ema": {}}, {"arch": "x"}))),
        }
    return held


def student_file(classes: tuple[str, ...], more: Mapping[str, str]) -> bytes:
    """A student of the smallest network, with its description."""
    network = build_backbone(BackboneConfig.model_validate(NETWORK), len(classes), 16)
    preprocessing = Preprocessing.of(load(Settings, builtin_config("quickstart.yaml")).data)
    about = description(BackboneConfig.model_validate(NETWORK), classes, preprocessing, more)
    return save_safetensors(network.state_dict(), about)


@functools.cache
def _student() -> bytes:
    return student_file(("a", "b", "c"), {"domain": "x"})


def _changed_safetensors(draw: Draw) -> bytes:
    data = _student()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    match draw(st.integers(0, 3)):
        case 0:
            return changed_bytes(draw, data)
        case 1:
            header["__metadata__"] = {k: v if isinstance(v, str) else json.dumps(v) for k, v in
                                      _as_dict(changed_tree(draw, header["__metadata__"])).items()}  # fmt: skip
            text = json.dumps(header).encode()
        case 2:
            text = changed_json(draw, header)
        case _:
            told = json.loads(header["__metadata__"]["preprocessing"])
            header["__metadata__"]["preprocessing"] = changed_json(draw, told).decode("utf-8", "replace")
            text = json.dumps(header).encode()
    if draw(st.integers(0, 9)) == 0:
        length = draw(
            st.sampled_from((0, 1, 2**31, 2**63, 2**64 - 1, 100 << 20, len(text) + 8, len(text) - 1))
        )
        return (length % 2**64).to_bytes(8, "little") + text + data[8 + length :][:1000]
    return len(text).to_bytes(8, "little") + text + data[8 + int.from_bytes(data[:8], "little") :]


def _as_dict(tree: object) -> dict[str, object]:
    return tree if isinstance(tree, dict) else {"format": tree}


def weights_case(draw: Draw) -> Files:
    if draw(st.booleans()):
        return {"weights.safetensors": _changed_safetensors(draw)}
    data = _torch_bytes(_changed_state(draw))
    return {"weights.pt": changed_bytes(draw, data) if draw(st.booleans()) else data}


def read_weights_case(folder: Path) -> None:
    (file,) = folder.iterdir()
    config = StudentConfig.model_validate(NETWORK)
    errors = []
    for use in (
        lambda: load_weights(str(file), build_backbone(config, 3, 16), what="teacher.checkpoint"),
        lambda: build_initialised(config, 3, start=str(file), key="student.start", image_size=16),
        lambda: build_initialised(config, 5, start=str(file), key="student.start", image_size=16),
    ):
        try:
            use()
        except (ValueError, OSError) as error:
            errors.append(error)
    if errors:
        raise max(errors, key=lambda error: len(str(error)))


def student_case(draw: Draw) -> Files:
    return {"student.safetensors": _changed_safetensors(draw)}


def read_student_case(folder: Path) -> None:
    student = load_student(folder / "student.safetensors")
    assert student.run(torch.zeros(1, 3, 16, 16, dtype=torch.uint8)).shape == (1, len(student.classes))


def checkpoint_case(draw: Draw) -> Files:
    state = {
        "format": FORMAT,
        "step": 3,
        "epoch": 0,
        "task": dict(weights()),
        "best": {"weights": {}, "value": 0.5},
    }
    if draw(st.booleans()):
        state[draw(st.sampled_from(sorted(state)))] = draw(values)
    data = _torch_bytes(state)
    return {"state.pt": changed_bytes(draw, data) if draw(st.booleans()) else data}


def read_checkpoint_case(folder: Path) -> None:
    decode_state((folder / "state.pt").read_bytes(), "state.pt")


@functools.cache
def run_files() -> Files:
    """A run's folder as far as text goes."""
    length = {"num_epochs": 2, "num_steps_per_epoch": 2, "global_batch_size": 8}
    events: list[Event] = [StageStarted(step=0, **length, num_workers=1, device="CPU")]
    for epoch in range(1, 3):
        events += [
            StepLogged(
                step=2 * epoch, epoch=epoch - 0.5, loss=0.5, losses={"cross_entropy": 0.4}, images_per_s=50.0,
                shares=TimeShares(0.1), learning_rates={"student": 0.1}, method_values={"mix/adapter1": 0.5},
            ),
            EpochEnded(
                step=2 * epoch, epoch=epoch, loss=0.5, images_per_s=50.0, num_evaluated=9, is_best=True, left_s=1.0,
                validation={"student": Validation(0.5, 1.0), "teacher": Validation(0.6, 1.0)},
            ),
        ]  # fmt: skip
    events.append(Note(step=3, text="1 of 50 is broken"))
    events.append(StageStopped(step=3, reason=StopReason(StopKind.SIGTERM)))
    text = "".join(encode(event.stamped("distill", 2.0)) + "\n" for event in events)
    config = dump(load(Settings, builtin_config("quickstart.yaml")))
    return {"run/config.yaml": config.encode(), "run/metrics.jsonl": text.encode()}


def run_folder_case(draw: Draw) -> Files:
    files = dict(run_files())
    rows = [json.loads(line) for line in files["run/metrics.jsonl"].splitlines()]
    if draw(st.booleans()):
        at = draw(st.integers(0, len(rows) - 1))
        lines = [json.dumps(row).encode() for row in rows]
        lines[at] = changed_json(draw, rows[at]).replace(b"\n", b" ")
        files["run/metrics.jsonl"] = b"\n".join(lines) + b"\n"
    else:
        files["run/metrics.jsonl"] = changed_lines(draw, files["run/metrics.jsonl"].decode())
    if draw(st.integers(0, 3)) == 0:
        files["run/summary.json"] = changed_json(draw, {"lines": [], "train_images_per_s": 3.0})
    return files


def read_run_folder_case(folder: Path) -> None:
    run = Run(str(folder / "run"))
    assert repr(run)
    report([run], str(folder / "out"))


TARGETS = (
    Target("image", cases(image_case), read_image_case, growth_bytes=1800 << 20),
    Target("weights", cases(weights_case), read_weights_case),
    Target("student", cases(student_case), read_student_case),
    Target("checkpoint", cases(checkpoint_case), read_checkpoint_case),
    Target("run", cases(run_folder_case), read_run_folder_case, share=0.1, shrinks=False),
)
