"""Files of weights of any trainer: tensors by name, and the other values of the file.

A file may be safetensors or a `torch.save`d value of any nesting. The name of a tensor is the path of its keys, joined
by dots (`state_dict.module.conv1.weight`); `names` matches these names with a network's.
"""

from __future__ import annotations

import contextlib
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor

from fourds_dist.config.stage_names import STAGES
from fourds_dist.io.json_text import parse_json
from fourds_dist.io.storage import locate, translate_storage_errors
from fourds_dist.io.unpickling import torch_load
from fourds_dist.models.hub import fetch, is_repository, repository_of
from fourds_dist.runs.layout import RunFile

RUN_FILES = {
    "teacher": (RunFile.TEACHER,),
    "student": (RunFile.STUDENT, RunFile.STUDENT_SOURCE),
}
OTHER_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)
"""Files of weights in a folder of another trainer, by the names of Hugging Face."""

SHARD_INDEX = ".index.json"

SETTINGS_BESIDE = ("config.json", "preprocessor_config.json")
"""Files in the folder of the weights in which Hugging Face stores class names and the normalisation of images."""

_HUGGING_FACE = re.compile(r"(model|pytorch_model|open_clip\w*)\b.*\.(safetensors|bin|index\.json)$")


@dataclass(frozen=True)
class WeightsFile:
    """Tensors and other values of a file.

    Args:
        where: start of every message about the file, such as "teacher.checkpoint: runs/x/teacher.safetensors".
        tensors: tensors by name.
        about: the metadata of a safetensors file, or the other values of a PyTorch file including small tensors (means
            by channel).
    """

    where: str
    tensors: dict[str, Tensor]
    about: Mapping[str, Any]


def read_file(url: str, *, what: str, is_alone: bool = True) -> WeightsFile:
    """Read a file of weights, at a path or URL or of a repository of the hub.

    Args:
        what: the key of the configuration that names the file.
        is_alone: the file is not a shard that an index names.

    Raises:
        ValueError: the file is missing, truncated, not a file of weights, or contains pickled code.
    """
    where = f"{what}: {url}"
    if is_repository(url):
        files = (*RUN_FILES["student"][:1], *RUN_FILES["teacher"], *OTHER_FILES[:2])
        url = str(fetch(repository_of(url), files, where=where, instead=f"{what}={{folder}}/{files[0]}"))
    shard = re.match(r"(.*)-\d{5}-of-(\d{5})(\.\w+)$", url)
    if shard and shard[2] != "00001" and is_alone:
        raise ValueError(
            f"{where} is one of {int(shard[2])} shards of the weights; give their index, "
            f"{what}={shard[1]}{shard[3]}{SHARD_INDEX}"
        )
    data = _read(url, what)
    if url.endswith(SHARD_INDEX):
        return _read_shards(url, data, what)
    if url.endswith(".safetensors") or _is_safetensors(data):
        try:
            tensors = load_safetensors(data)
            values, where = _with_settings_beside(url, where, _metadata(data))
        except Exception as error:  # safetensors raises exceptions without a common base class
            raise ValueError(
                _another_kind(data, url, where) or f"{where} is truncated or not a safetensors file ({error})"
            ) from None
        return WeightsFile(where, tensors, values)
    other = _another_kind(data, url, where)
    if other:
        raise ValueError(other)
    content = torch_load(data, where, url)
    if isinstance(content, Mapping) and isinstance(content.get("format"), int) and "identity" in content:
        raise ValueError(
            f"{where} is a checkpoint of a run's stage, which has no complete network; give a file of weights of the "
            f"run: {_files_of_run(url, what)}"
        )
    tensors = _flattened(content) or _flattened(content, arrays=True)
    if not tensors:
        raise ValueError(
            f"{where} has no state dict (names to tensors); give a file saved by "
            "torch.save(network.state_dict(), 'weights.pt')"
        )
    for name, tensor in tensors.items():
        if tensor.is_meta or tensor.layout is not torch.strided:
            problem = "has no values (device meta)" if tensor.is_meta else f"is sparse ({tensor.layout})"
            raise ValueError(
                f"{where}: {name} {problem}; save a state dict of dense tensors with their values"
            )
    values = content if isinstance(content, Mapping) else {}
    values = {str(k): v for k, v in values.items() if not isinstance(v, Tensor) or v.numel() == 3}
    values, where = _with_settings_beside(url, where, values)
    return WeightsFile(where, tensors, values)


def _read(url: str, what: str) -> bytes:
    fs, path = locate(url)
    with translate_storage_errors(url):
        if fs.isdir(path):
            raise ValueError(_folder(url, what))
        try:
            data = fs.cat_file(path)
        except FileNotFoundError:
            raise ValueError(f"{what}: {url} does not exist") from None
    assert isinstance(data, bytes)
    return data


def _read_shards(url: str, data: bytes, what: str) -> WeightsFile:
    """Read all files of a shard index of Hugging Face."""
    try:
        names = sorted(set(parse_json(data)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{what}: {url} is not an index of shards of weights (weight_map)") from None
    folder = url.rpartition("/")[0]
    files = [read_file(f"{folder}/{name}" if folder else name, what=what, is_alone=False) for name in names]
    tensors = {name: tensor for file in files for name, tensor in file.tensors.items()}
    values = {key: value for file in reversed(files) for key, value in file.about.items()}
    values, where = _with_settings_beside(url, f"{what}: {url}", values)
    return WeightsFile(where, tensors, values)


def _with_settings_beside(url: str, where: str, metadata: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the metadata, with the settings in the folder of a Hugging Face file; and `where` with their names."""
    folder, slash, name = url.rpartition("/")
    values, read = dict(metadata), []
    if values.get("format") == "fourds_dist" or not _HUGGING_FACE.match(name):
        return values, where
    for settings in SETTINGS_BESIDE:
        fs, path = locate(f"{folder}{slash}{settings}")
        with contextlib.suppress(OSError, ValueError):
            content = parse_json(fs.cat_file(path))
            if isinstance(content, dict):
                values.setdefault(settings, content)
                read.append(settings)
    return values, f"{where} (with {', '.join(read)})" if read else where


def _flattened(value: Any, prefix: str = "", *, arrays: bool = False) -> dict[str, Tensor]:
    """Return the tensors in nested dictionaries and lists by the path of their keys; with `arrays`, arrays too."""
    found: dict[str, Tensor] = {}
    if isinstance(value, list | tuple):
        value = dict(enumerate(value)) if any(isinstance(inner, Mapping) for inner in value) else {}
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(inner, Tensor):
                found[f"{prefix}{key}"] = inner
            elif arrays and isinstance(inner, np.ndarray) and inner.dtype.kind in "fiu":
                found[f"{prefix}{key}"] = torch.from_numpy(np.array(inner))
            else:
                found |= _flattened(inner, f"{prefix}{key}.", arrays=arrays)
    return found


def _is_safetensors(data: bytes) -> bool:
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data)


def _metadata(data: bytes) -> dict[str, str]:
    size = int.from_bytes(data[:8], "little")
    return parse_json(data[8 : 8 + size]).get("__metadata__") or {}


def _folder(url: str, what: str) -> str:
    """Return the message for a folder instead of a file, with the file to use."""
    fs, path = locate(url)
    role = what.partition(".")[0]
    existing = [
        name for name in (*RUN_FILES.get(role, ()), *OTHER_FILES) if fs.exists(f"{path.rstrip('/')}/{name}")
    ]
    if existing:
        return f"{what}: {url} is a folder; give the file of weights in it: {what}={url.rstrip('/')}/{existing[0]}"
    parent, _, name = path.rstrip("/").rpartition("/")
    is_stage = name in STAGES and fs.exists(f"{parent}/{RunFile.CONFIG}")
    if is_stage or re.search(r"/checkpoint-\d+/?$", url):
        kind = "the folder" if is_stage else "a checkpoint"
        return (
            f"{what}: {url} is {kind} of a run's stage, which has no complete network; give a file of weights of the "
            f"run: {_files_of_run(url, what)}"
        )
    return (
        f"{what}: {url} is a folder without a known file of weights; give a file (.safetensors, or a state dict saved "
        "by torch.save)"
    )


def _files_of_run(url: str, what: str) -> str:
    """Return the file of weights to use instead of a checkpoint, from the run's folder."""
    run = re.sub(r"/[^/]+(/checkpoint-\d+(/[^/]*)?)?/?$", "", url)
    names = RUN_FILES.get(what.partition(".")[0], RUN_FILES["teacher"])
    fs, path = locate(run)
    existing = [name for name in names if fs.exists(f"{path}/{name}")]
    if existing:
        return f"{what}={run}/{existing[0]}"
    return f"{run}/{names[0]}, which is written at the end of its stage"


def _state_dict_of(program: str) -> str:
    """Return what to use instead of a program: the weights next to an exported one, or a state dict."""
    weights = f"{program.rpartition('.')[0]}.safetensors"
    fs, path = locate(weights)
    if fs.exists(path):
        return f"give the weights in its folder, {weights}"
    return "give the state dict of its network, saved by torch.save(network.state_dict(), 'weights.pt')"


def _another_kind(data: bytes, url: str, where: str) -> str | None:
    """Return the message for a file of another kind, with what to use instead; None for a possible file of weights."""
    state_dict = _state_dict_of(url)
    if not data:
        return f"{where} is an empty file"
    if data.startswith(b"version https://git-lfs"):
        return f"{where} is a Git LFS pointer, not the file; fetch the file by `git lfs pull`"
    if data[:1] == b"<" or data[:512].lstrip().lower().startswith((b"<!doctype", b"<html")):
        return f"{where} is an HTML page, not a file of weights; download the file again"
    if url.endswith(".onnx"):
        return f"{where} is an ONNX model, which cannot be trained or distilled; {state_dict}"
    if data.startswith(b"\x89HDF"):
        return f"{where} is an HDF5 file (Keras); {state_dict}"
    if data.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return f"{where} is a compressed file; decompress the file and give the result"
    names = _members(data)
    if names:
        parts = {part for name in names for part in name.split("/")}
        if "constants.pkl" in parts and "code" in parts:
            return f"{where} is a TorchScript program, not its weights; {state_dict}"
        if "archive_format" in parts or any("serialized_exported_program" in part for part in parts):
            return f"{where} is an exported program (.pt2), not its weights; {state_dict}"
        if all(name.endswith(".npy") for name in names):
            return f"{where} is a file of numpy arrays (.npz); {state_dict}"
        if "data.pkl" not in parts:
            return f"{where} is a zip archive without PyTorch weights; extract the archive and give the file in it"
    return None


def _members(data: bytes) -> list[str]:
    """Return the names in a zip archive; none if the data are not a readable archive."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            return archive.namelist()
    except Exception:  # zipfile raises exceptions of many classes on corrupt data
        return []
