"""Checkpoints and weights as files: read without unpickling, and refused by name where they do not fit.

What a checkpoint holds is `snapshot`'s matter, where it lies `store`'s. Frozen weights are left out: they come from the
teacher's own file. Finished weights are safetensors.
"""

from __future__ import annotations

import io
import pickle
import warnings
from typing import Any

import fsspec
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

FORMAT = 2


class CheckpointRefusedError(ValueError):
    """A run's checkpoint that this run cannot go on from; on every rank alike."""


def decode_state(data: bytes, where: str) -> dict[str, Any]:
    """A checkpoint's state from a file's bytes, on the CPU.

    Raises:
        ValueError: truncated, not one of ours, of another format, or holding pickled code.
    """
    state = _torch_load(data, f"checkpoint {where}")
    found = state.get("format") if isinstance(state, dict) else None
    if not isinstance(found, int):
        raise CheckpointRefusedError(
            f"checkpoint {where} is not one of a run of ours; choose another run.name"
        )
    if found != FORMAT:
        remedy = (
            "update fourds_dist"
            if found > FORMAT
            else "go on with the version that began the run, or choose another run.name"
        )
        raise CheckpointRefusedError(
            f"checkpoint {where} has format {found}, {'newer' if found > FORMAT else 'older'} than the format {FORMAT} "
            f"that this version reads; {remedy}"
        )
    return state


def learning_state(task: nn.Module) -> dict[str, Tensor]:
    """Parameters that learn and all buffers of `task`, copied to the CPU."""
    frozen = {name for name, p in task.named_parameters() if not p.requires_grad}
    return {k: v.detach().to("cpu", copy=True) for k, v in task.state_dict().items() if k not in frozen}


def load_learning_state(task: nn.Module, state: dict[str, Tensor]) -> None:
    """Put back what `learning_state` gave.

    Raises:
        ValueError: the state belongs to another task.
    """
    expected = learning_state(task)
    problem = _mismatch(expected, state)
    if problem:
        raise CheckpointRefusedError(f"the checkpoint belongs to another model: {problem}")
    task.load_state_dict(state, strict=False)


def encode_weights(weights: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """Tensors as a safetensors file's bytes."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    return save_safetensors(plain, metadata)


def load_weights(url: str, network: nn.Module, *, what: str) -> None:
    """Fill `network` from a safetensors file or a plain `torch.save`d state dict, at a path or URL.

    Args:
        what: the file's role in the configuration, e.g. "teacher.checkpoint", for the error message.

    Raises:
        ValueError: missing, truncated, holding pickled code, or made for another architecture or class count.
    """
    weights = read_weights(url, what=what)
    problem = _mismatch(network.state_dict(), weights)
    if problem:
        kind = type(network).__name__
        raise ValueError(
            f"{what}: {url} does not fit the configured {kind}: {problem}; check arch, stem and classes"
        )
    network.load_state_dict(weights)


def read_weights(url: str, *, what: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a plain `torch.save`d state dict, by name.

    Raises:
        ValueError: missing, truncated, or holding pickled code.
    """
    try:
        with fsspec.open(url, "rb") as file:
            data = file.read()  # pyright: ignore[reportAttributeAccessIssue]
    except FileNotFoundError:
        raise ValueError(f"{what}: {url} does not exist") from None
    if url.endswith(".safetensors"):
        try:
            weights = load_safetensors(data)
        except Exception as error:
            raise ValueError(f"{what}: {url} is truncated or no safetensors file ({error})") from None
    else:
        weights = _torch_load(data, f"{what}: {url}")
        for wrapper in ("state_dict", "model"):
            weights = weights.get(wrapper, weights) if isinstance(weights, dict) else weights
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise ValueError(f"{what}: {url} holds no state dict (names to tensors)")
    for name, tensor in weights.items():
        if not isinstance(name, str) or not _holds_numbers(tensor):
            raise ValueError(
                f"{what}: {url} holds {name!r} as a {_kind(tensor)} tensor; save a state dict of dense real tensors, "
                "best as .safetensors"
            )
    return weights


def _holds_numbers(tensor: Tensor) -> bool:
    """Whether a tensor is dense, real and has its data."""
    return (
        not (tensor.is_meta or tensor.is_quantized or tensor.is_complex()) and tensor.layout == torch.strided
    )


def _kind(tensor: Tensor) -> str:
    layout = str(tensor.layout).removeprefix("torch.") + " " if tensor.layout != torch.strided else ""
    return (
        f"{layout}{str(tensor.dtype).removeprefix('torch.')}{' data-less (meta)' if tensor.is_meta else ''}"
    )


def _torch_load(data: bytes, where: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # PyTorch's warnings about odd pickles; what it refuses is told below
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error).lower() or "unsupported" in str(error).lower():
            raise ValueError(
                f"{where} holds pickled code, which is never run; save its state dict, best as .safetensors"
            ) from None
        told = (str(error).splitlines() or ["no pickle"])[0]
        raise ValueError(f"{where} is no PyTorch file ({told[:200]})") from None
    except Exception as error:  # what PyTorch's reader raises on garbage is not of one family
        told = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ValueError(f"{where} is truncated or no PyTorch file ({told[:200]})") from None


def _mismatch(expected: dict[str, Tensor], found: dict[str, Tensor]) -> str | None:
    missing = [k for k in expected if k not in found]
    extra = [k for k in found if k not in expected]
    if missing or extra:
        parts = [f"{len(missing)} missing (first: {missing[0]})"] if missing else []
        parts += [f"{len(extra)} unknown (first: {extra[0]})"] if extra else []
        return "tensors " + ", ".join(parts)
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            return f"{name} is {tuple(found[name].shape)} where {tuple(tensor.shape)} is needed"
    return None
