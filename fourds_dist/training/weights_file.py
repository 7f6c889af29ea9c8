"""Files of weights, of whatever trainer: their tensors by name, and what else they say.

A file may be safetensors or a `torch.save`d value of any nesting. The names of its tensors are the keys on the way to
them, joined by dots (`state_dict.module.conv1.weight`); `weights_names` finds the network's own among them.
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

from fourds_dist.json_text import parsed_json
from fourds_dist.runs.layout import RunFile
from fourds_dist.storage import explained, locate
from fourds_dist.training.unpickling import torch_load

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
"""What a folder of weights of other makers holds, by the names of Hugging Face."""

SHARD_INDEX = ".index.json"

SETTINGS_BESIDE = ("config.json", "preprocessor_config.json")
"""Files beside weights in which Hugging Face keeps class names and the normalisation of images."""

_HUGGING_FACE = re.compile(r"(model|pytorch_model|open_clip\w*)\b.*\.(safetensors|bin|index\.json)$")


@dataclass(frozen=True)
class WeightsFile:
    """A file's tensors and the values beside them.

    Args:
        where: "teacher.checkpoint: runs/x/teacher.safetensors", which begins every message on the file.
        tensors: by name.
        about: what lies beside the tensors: the metadata of a safetensors file, or the values of a PyTorch file, small
            tensors (means by channel) included.
    """

    where: str
    tensors: dict[str, Tensor]
    about: Mapping[str, Any]


def read_file(url: str, *, what: str, is_alone: bool = True) -> WeightsFile:
    """Read a file of weights.

    Args:
        what: the key of the configuration that names the file.
        is_alone: the file is no part of several that an index names.

    Raises:
        ValueError: no file of weights, truncated, or holding pickled code.
    """
    where = f"{what}: {url}"
    shard = re.match(r"(.*)-\d{5}-of-(\d{5})(\.\w+)$", url)
    if shard and shard[2] != "00001" and is_alone:
        raise ValueError(
            f"{where} is one of {int(shard[2])} files that hold the weights together; give their index, "
            f"{what}={shard[1]}{shard[3]}{SHARD_INDEX}"
        )
    data = _read(url, what)
    if url.endswith(SHARD_INDEX):
        return _read_shards(url, data, what)
    if url.endswith(".safetensors") or _is_safetensors(data):
        try:
            tensors = load_safetensors(data)
            about, where = _with_settings_beside(url, where, _metadata(data))
        except Exception as error:  # safetensors raises exceptions of its own without a common base
            raise ValueError(
                _another_kind(data, url, where) or f"{where} is truncated or no safetensors file ({error})"
            ) from None
        return WeightsFile(where, tensors, about)
    other = _another_kind(data, url, where)
    if other:
        raise ValueError(other)
    held = torch_load(data, where, url)
    if isinstance(held, Mapping) and isinstance(held.get("format"), int) and "identity" in held:
        raise ValueError(
            f"{where} is a checkpoint of a run's stage, which holds no whole network; give a file of weights that the "
            f"run left: {_run_s_files(url, what)}"
        )
    tensors = _flattened(held) or _flattened(held, arrays=True)
    if not tensors:
        raise ValueError(f"{where} holds no state dict (names to tensors)")
    for name, tensor in tensors.items():
        if tensor.is_meta or tensor.layout is not torch.strided:
            what_it_is = "has no values (device meta)" if tensor.is_meta else f"is sparse ({tensor.layout})"
            raise ValueError(
                f"{where}: {name} {what_it_is}; save a state dict of dense tensors with their values"
            )
    about = held if isinstance(held, Mapping) else {}
    values = {str(k): v for k, v in about.items() if not isinstance(v, Tensor) or v.numel() == 3}
    values, where = _with_settings_beside(url, where, values)
    return WeightsFile(where, tensors, values)


def _read(url: str, what: str) -> bytes:
    fs, path = locate(url)
    with explained(url):
        if fs.isdir(path):
            raise ValueError(_folder(url, what))
        try:
            data = fs.cat_file(path)
        except FileNotFoundError:
            raise ValueError(f"{what}: {url} does not exist") from None
    assert isinstance(data, bytes)
    return data


def _read_shards(url: str, data: bytes, what: str) -> WeightsFile:
    """All files that an index in Hugging Face's form names."""
    try:
        names = sorted(set(parsed_json(data)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{what}: {url} is no index of shards of weights (weight_map)") from None
    folder = url.rpartition("/")[0]
    files = [read_file(f"{folder}/{name}" if folder else name, what=what, is_alone=False) for name in names]
    tensors = {name: tensor for file in files for name, tensor in file.tensors.items()}
    about = {key: value for file in reversed(files) for key, value in file.about.items()}
    about, where = _with_settings_beside(url, f"{what}: {url}", about)
    return WeightsFile(where, tensors, about)


def _with_settings_beside(url: str, where: str, about: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """What a file says, with the settings that lie beside it where it is one of Hugging Face's; and both by name."""
    folder, slash, name = url.rpartition("/")
    values, read = dict(about), []
    if about.get("format") == "fourds_dist" or not _HUGGING_FACE.match(name):
        return values, where
    for settings in SETTINGS_BESIDE:
        fs, path = locate(f"{folder}{slash}{settings}")
        with contextlib.suppress(OSError, ValueError):
            held = parsed_json(fs.cat_file(path))
            if isinstance(held, dict):
                values.setdefault(settings, held)
                read.append(settings)
    return values, f"{where} (with {', '.join(read)})" if read else where


def _flattened(value: Any, prefix: str = "", *, arrays: bool = False) -> dict[str, Tensor]:
    """Tensors in nested dictionaries and lists, by the keys that lead to them; or arrays, as tensors."""
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
    return parsed_json(data[8 : 8 + size]).get("__metadata__") or {}


def _folder(url: str, what: str) -> str:
    """What is wrong with a folder, and which file of it would be right."""
    fs, path = locate(url)
    role = what.partition(".")[0]
    held = [
        name for name in (*RUN_FILES.get(role, ()), *OTHER_FILES) if fs.exists(f"{path.rstrip('/')}/{name}")
    ]
    if held:
        return (
            f"{what}: {url} is a folder; give the file of weights in it: {what}={url.rstrip('/')}/{held[0]}"
        )
    if re.search(r"/checkpoint-\d+/?$", url):
        return (
            f"{what}: {url} is a checkpoint of a run's stage, which holds no whole network; give a file of weights "
            f"that the run left: {_run_s_files(url, what)}"
        )
    return (
        f"{what}: {url} is a folder without weights that are known by name; give a file (.safetensors, or a state dict "
        "saved by torch.save)"
    )


def _run_s_files(url: str, what: str) -> str:
    """The files of weights in the run's folder that a checkpoint lies in, those that are there first."""
    run = re.sub(r"/[^/]+/checkpoint-\d+(/[^/]*)?/?$", "", url)
    names = RUN_FILES.get(what.partition(".")[0], RUN_FILES["teacher"])
    fs, path = locate(run)
    held = [name for name in names if fs.exists(f"{path}/{name}")]
    if held:
        return f"{what}={run}/{held[0]}"
    return f"{run}/{names[0]}, which is written when its stage is done"


def _state_dict_of(program: str) -> str:
    """What to give instead of a program: the weights beside it, which an export of a run has, or a state dict."""
    beside = f"{program.rpartition('.')[0]}.safetensors"
    fs, path = locate(beside)
    if fs.exists(path):
        return f"give the weights beside it, {beside}"
    return "give the state dict of its network, saved by torch.save(network.state_dict(), 'weights.pt')"


def _another_kind(data: bytes, url: str, where: str) -> str | None:
    """What a file is that is no file of weights, and what to give instead; None where it may be one."""
    state_dict = _state_dict_of(url)
    if not data:
        return f"{where} is an empty file"
    if data.startswith(b"version https://git-lfs"):
        return f"{where} is a pointer of Git LFS, not the file; fetch the file by `git lfs pull`"
    if data[:1] == b"<" or data[:512].lstrip().lower().startswith((b"<!doctype", b"<html")):
        return f"{where} is a page of HTML, not a file of weights; download the file again"
    if url.endswith(".onnx"):
        return f"{where} is an ONNX model, which cannot be trained or distilled; {state_dict}"
    if data.startswith(b"\x89HDF"):
        return f"{where} is an HDF5 file (Keras); {state_dict}"
    if data.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return f"{where} is a compressed file; unpack it and give what is in it"
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
            return f"{where} is a zip archive without weights of PyTorch; unpack it and give the file that is in it"
    return None


def _members(data: bytes) -> list[str]:
    """Names in a zip archive; none of what is no archive, or one that cannot be read."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            return archive.namelist()
    except Exception:  # what zipfile raises on garbage is not of one family
        return []
