"""Loading of weights into networks, with checks of tensors and metadata, and encoding of weights as safetensors.

`files` reads a file of weights, `names` matches its tensors, `metadata_check` compares its metadata with the
run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fourds_dist.models.weights.files import WeightsFile, read_file
from fourds_dist.models.weights.form import form_of
from fourds_dist.models.weights.metadata import NetworkMetadata
from fourds_dist.models.weights.metadata_check import Metadata, MetadataCheck, Notify
from fourds_dist.models.weights.names import MatchedTensors, match_tensors

_log = logging.getLogger(__name__)


def encode_weights(weights: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    """Return tensors as the bytes of a safetensors file, the same for the same input.

    Shared memory (tied weights) is written once per name.
    """
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in weights.items():
        own = tensor.detach().cpu().contiguous()
        if own.numel() and own.untyped_storage().data_ptr() in seen:
            own = own.clone()
        seen.add(own.untyped_storage().data_ptr())
        plain[name] = own
    return _with_sorted_metadata(save_safetensors(plain, metadata))


def _with_sorted_metadata(data: bytes) -> bytes:
    """Return a safetensors file with its metadata in order, as the library orders them randomly in every process."""
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8 bytes
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(data)[begin:]))


def check_writable(network: nn.Module, *, what: str) -> None:
    """Check that the state dict of a network can be written as safetensors, without copies.

    Raises:
        ValueError: a tensor that cannot be written, by name.
    """
    for name, value in network.state_dict().items():
        if is_lazy(value):
            reason = "has no shape yet, as the network's forward pass does not use it"
        elif not isinstance(value, Tensor):
            reason = f"is a {type(value).__name__}, not a tensor"
        elif value.layout != torch.strided:
            reason = f"is a tensor of layout {value.layout}"
        else:
            try:
                save_safetensors({name: torch.empty(0, dtype=value.dtype)})
                continue
            except (KeyError, TypeError, ValueError):
                reason = f"has the type {value.dtype}"
        raise ValueError(
            f"{what}: {name} in the state dict of {type(network).__name__} {reason}, and cannot be written as "
            f"safetensors; remove {name} from the state dict, or choose another {what}.arch"
        )


def read_weights(url: str, *, what: str) -> dict[str, Tensor]:
    """Return the tensors of a file by their names in the file.

    Raises:
        ValueError: the file is missing, truncated, or contains pickled code.
    """
    return read_file(url, what=what).tensors


def load_weights(
    url: str,
    network: nn.Module,
    *,
    what: str,
    run: NetworkMetadata | None = None,
    metadata: Metadata = "check",
    image_size: int | None = None,
    notify: Notify = _log.warning,
) -> None:
    """Load a network from a file with all of its weights, at a path or URL.

    Args:
        what: key of the file in the configuration, e.g. "teacher.checkpoint", for messages.
        run: metadata that the run requires; None: the file's metadata are not checked.
        metadata: `ignore`: report differences in the metadata instead of refusing the file.
        image_size: side of the images in pixels, needed to reorder classes.
        notify: receives one line per choice or omission.

    Raises:
        ValueError: the file is missing, truncated, contains pickled code, or is for another architecture, other classes
            or other preprocessing.
    """
    file = read_file(url, what=what)
    own = network.state_dict()
    found = match_tensors(file.tensors, own, role=what.partition(".")[0])
    of_file = NetworkMetadata.of_file(file.about, run=run, tensors=file.tensors, own=own)
    check = None if run is None else MetadataCheck(file.where, of_file, run, what, metadata, notify)
    problem = _mismatch(own, found)
    if check is not None:
        check.classes()
    if problem:
        other = None if check is None else check.other_architecture
        raise ValueError(
            f"{file.where} does not fit the configured {type(network).__name__}: "
            f"{problem}{_hint(file, found, other, what)}"
        )
    if check is not None:
        check.architecture()
        check.preprocessing()
    fill(network, found, file.where)
    if check is not None:
        check.reverse_channels(network, image_size)
        if metadata == "check":
            check.reorder(network, image_size)
    notify_remarks(found, file.where, notify)


def fill(network: nn.Module, found: MatchedTensors, where: str) -> None:
    """Load the matched tensors; the other tensors of the network stay unchanged.

    Raises:
        ValueError: quantised or complex weights, or values that are not finite.
    """
    own = network.state_dict()
    for name, tensor in found.weights.items():
        is_float = own[name].is_floating_point()
        if is_float and (not tensor.is_floating_point() or tensor.element_size() == 1):
            remedy = "real weights" if tensor.is_complex() else "weights that are not quantised"
            raise ValueError(
                f"{where}: {name} has type {tensor.dtype}, expected {own[name].dtype}; give {remedy}"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(
                f"{where}: {name} has values that are not finite; give weights of a run that did not diverge"
            )
    network.load_state_dict({**own, **found.weights})


def notify_remarks(found: MatchedTensors, where: str, notify: Notify) -> None:
    """Report in one line which tensors of the file were selected and ignored."""
    if found.remarks:
        notify(f"{where}: {'; '.join(found.remarks)}")


def _hint(file: WeightsFile, found: MatchedTensors, other: str | None, what: str) -> str:
    form = form_of(found)
    if form is not None:
        return f"; {form}"
    role = what.partition(".")[0]
    if all(name.startswith(("adapters.", "teacher.")) for name in file.tensors):
        return "; the file has the adapters of a run, not a network: give the run's teacher.safetensors"
    if other is not None:
        keys = ", ".join(f"{role}.{part}" for part in other.split(", "))
        return f"; the file was made for another network: {keys}"
    return f"; check {role}.arch" if found.missing or found.unknown else "; check arch, stem and classes"


def _mismatch(own: Mapping[str, Tensor], found: MatchedTensors) -> str | None:
    parts = [f"{len(found.missing)} missing (first: {found.missing[0]})"] if found.missing else []
    parts += [f"{len(found.unknown)} unknown (first: {found.unknown[0]})"] if found.unknown else []
    if parts:
        return "tensors " + ", ".join(parts)
    for name, tensor in found.weights.items():
        if tensor.shape != own[name].shape:
            return f"{name} has shape {tuple(tensor.shape)}, expected {tuple(own[name].shape)}"
    return None
