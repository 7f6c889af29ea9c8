"""Weights into networks and onto disk: what fits is loaded, what does not is refused by name.

A file of weights is read by `weights_file`, its tensors are found by `weights_names`, and what the file says of itself
is held against the run by `weights_about`. Finished weights are written as safetensors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fourds_dist.training.class_order import reorder_classes
from fourds_dist.training.weights_about import (
    PREPROCESSING_KEYS,
    About,
    class_order,
    other_architecture,
    other_classes,
    other_grey_range,
    other_preprocessing,
)
from fourds_dist.training.weights_file import WeightsFile, read_file
from fourds_dist.training.weights_form import form_of
from fourds_dist.training.weights_names import Found, find_tensors

Metadata = Literal["check", "ignore"]
Tell = Callable[[str], None]

_log = logging.getLogger(__name__)


def encode_weights(weights: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    """Tensors as a safetensors file's bytes; tensors that share memory (tied weights) are written for each name."""
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in weights.items():
        own = tensor.detach().cpu().contiguous()
        if own.numel() and own.untyped_storage().data_ptr() in seen:
            own = own.clone()
        seen.add(own.untyped_storage().data_ptr())
        plain[name] = own
    return save_safetensors(plain, metadata)


def check_writable(network: nn.Module, *, what: str) -> None:
    """Refuse a network whose state dict cannot be written as safetensors; nothing is copied.

    Raises:
        ValueError: naming the tensor.
    """
    for name, value in network.state_dict().items():
        if is_lazy(value):
            reason = "has no shape yet: the network's forward pass never reaches it"
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
            "safetensors; "
            f"keep it out of the state dict, or choose another {what}.arch"
        )


def read_weights(url: str, *, what: str) -> dict[str, Tensor]:
    """The tensors of a file by name, as they are there.

    Raises:
        ValueError: missing, truncated, or holding pickled code.
    """
    return read_file(url, what=what).tensors


def load_weights(
    url: str,
    network: nn.Module,
    *,
    what: str,
    run: About | None = None,
    metadata: Metadata = "check",
    image_size: int | None = None,
    tell: Tell = _log.warning,
) -> None:
    """Fill a network from a file that holds all of its weights, at a path or URL.

    Args:
        what: the file's role in the configuration, e.g. "teacher.checkpoint", for messages.
        run: what the run needs the network to be; None: what the file says of itself is not looked at.
        metadata: `ignore`: what the file says is told and not refused.
        image_size: side of the images in pixels; needed where classes may have to be reordered.
        tell: takes a line on whatever was chosen or left out.

    Raises:
        ValueError: missing, truncated, holding pickled code, or made for another architecture, other classes or images
            prepared in another way.
    """
    file = read_file(url, what=what)
    own = network.state_dict()
    found = find_tensors(file.tensors, own, role=what.partition(".")[0])
    about = About.of_file(file.about, run=run, tensors=file.tensors, own=own)
    problem = _mismatch(own, found)
    if run is not None:
        _check_classes(file, about, run, what, metadata, tell)
    if problem:
        raise ValueError(
            f"{file.where} does not fit the configured {type(network).__name__}: "
            f"{problem}{_hint(file, found, about, run, what, problem)}"
        )
    if run is not None:
        _check_architecture(file, about, run, what, metadata, tell)
        _check_preprocessing(file, about, run, what, metadata, tell)
    fill(network, found, file.where)
    if run is not None and metadata == "check":
        put_in_order(network, file, about, run, image_size, tell)
    tell_remarks(found, file.where, tell)


def check_start(
    file: WeightsFile, about: About, run: About, what: str, metadata: Metadata, tell: Tell
) -> None:
    """Hold first weights against the run. They are trained on: other classes are told, as is another size of images.

    Raises:
        ValueError: images normalised in another way, or another network of equal shapes.
    """
    problem = other_classes(about, run)
    if problem is not None:
        tell(f"{file.where} was trained for other classes than the data's: {problem}")
    sizes = other_preprocessing(about, run, keys=("resize_px", "crop_px"))
    if sizes:
        tell(f"{file.where} was trained on images of another size: {', '.join(sizes)}")
    _check_preprocessing(file, about, run, what, metadata, tell, keys=("mean", "std"))


def fill(network: nn.Module, found: Found, where: str) -> None:
    """Load the tensors that were found; the network's own stay where there are none.

    Raises:
        ValueError: integers where floating-point weights are needed, or values that are not finite.
    """
    own = network.state_dict()
    for name, tensor in found.weights.items():
        is_float = own[name].is_floating_point()
        if is_float and (not tensor.is_floating_point() or tensor.element_size() == 1):
            remedy = "real ones" if tensor.is_complex() else "weights that are not quantised"
            raise ValueError(
                f"{where}: {name} is {tensor.dtype} where {own[name].dtype} is needed; give {remedy}"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(
                f"{where}: {name} holds values that are not finite; give weights of a run that did not diverge"
            )
    network.load_state_dict({**own, **found.weights})


def tell_remarks(found: Found, where: str, tell: Tell) -> None:
    """Tell in one line what was chosen in the file and what was left out."""
    if found.remarks:
        tell(f"{where}: {'; '.join(found.remarks)}")


def put_in_order(
    network: nn.Module, file: WeightsFile, about: About, run: About, image_size: int | None, tell: Tell
) -> None:
    """Give the network the order of the run's classes, where the file names the same ones in another order.

    Raises:
        ValueError: the network's last layer cannot be told from others.
    """
    order = class_order(about, run)
    if order is None or order == sorted(order):
        return
    assert image_size is not None
    try:
        names = reorder_classes(network, order, image_size)
    except ValueError as error:
        raise ValueError(
            f"{file.where} has the classes of the data in another order ({_first(about)}), and they cannot be "
            "reordered "
            f"({error}); pack the data with that order (fourds pack ... --classes FILE, a name a line)"
        ) from None
    tell(
        f"{file.where}: its classes are in another order than the data's; {', '.join(names)} reordered by the "
        "class names"
    )


def _check_classes(
    file: WeightsFile, about: About, run: About, what: str, metadata: Metadata, tell: Tell
) -> None:
    problem = other_classes(about, run)
    if problem is None:
        order = class_order(about, run)
        if metadata == "ignore" and order is not None and order != sorted(order):
            tell(
                f"{file.where}: its classes are in another order ({_first(about)}), which {_key(what)} ignores"
            )
        return
    if metadata == "ignore":
        tell(
            f"{file.where}: its classes have other names than the data's ({problem}), which {_key(what)} ignores"
        )
        return
    raise ValueError(
        f"{file.where} was trained for other classes than the data's: {problem}. Pack the data with its class "
        "names, give "
        f"weights for these classes, or set {_key(what)} if the classes are the same, one by one and in this order"
    )


def _check_architecture(
    file: WeightsFile, about: About, run: About, what: str, metadata: Metadata, tell: Tell
) -> None:
    """The tensors fit. Networks of one's own move and are renamed; others of equal shapes may compute other things."""
    problem = other_architecture(about, run)
    if problem is None:
        return
    text = f"{file.where} is of another network by its metadata, {problem}, though all its tensors fit arch={run.arch}"
    if metadata == "ignore" or ":" in f"{about.arch}{run.arch}":
        tell(text)
        return
    raise ValueError(
        f"{text}; set {what.partition('.')[0]}.arch to it, or {_key(what)} to take them as they are"
    )


def _check_preprocessing(
    file: WeightsFile,
    about: About,
    run: About,
    what: str,
    metadata: Metadata,
    tell: Tell,
    keys: Iterable[str] = PREPROCESSING_KEYS,
) -> None:
    differs = other_preprocessing(about, run, keys)
    if (grey := other_grey_range(about, run)) is not None:
        text, is_far = grey
        if is_far:
            differs.append(text)
        else:
            tell(f"{file.where} was trained on images read by another grey range: {text}")
    if not differs:
        return
    text = f"{file.where} was trained on images prepared in another way: {', '.join(differs)}"
    if metadata == "ignore":
        tell(f"{text}; {_key(what)} ignores this")
        return
    raise ValueError(
        f"{text}. Set these keys to the file's values, or {_key(what)} to take the weights all the same"
    )


def _hint(file: WeightsFile, found: Found, about: About, run: About | None, what: str, problem: str) -> str:
    form = form_of(found)
    if form is not None:
        return f"; {form}"
    other = None if run is None else other_architecture(about, run)
    role = what.partition(".")[0]
    if all(name.startswith(("adapters.", "teacher.")) for name in file.tensors):
        return "; it holds the adapters of a run, not a network: give the run's teacher.safetensors"
    if other is not None:
        keys = ", ".join(f"{role}.{part}" for part in other.split(", "))
        return f"; it was made for another network: {keys}"
    return "; check arch, stem and classes" if " is needed" in problem else f"; check {role}.arch"


def _mismatch(own: Mapping[str, Tensor], found: Found) -> str | None:
    parts = [f"{len(found.missing)} missing (first: {found.missing[0]})"] if found.missing else []
    parts += [f"{len(found.unknown)} unknown (first: {found.unknown[0]})"] if found.unknown else []
    if parts:
        return "tensors " + ", ".join(parts)
    for name, tensor in found.weights.items():
        if tensor.shape != own[name].shape:
            return f"{name} is {tuple(tensor.shape)} where {tuple(own[name].shape)} is needed"
    return None


def _first(about: About) -> str:
    names = about.classes or ()
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _key(what: str) -> str:
    return f"{what.partition('.')[0]}.metadata=ignore"
