"""Checks of the operators' arguments, before any launch.

The messages name the tensor, the problem and the remedy. Values are not checked, as this would synchronise with the
device: NaN and infinity propagate to the output of their image and channel.
"""

import torch
from torch import Tensor

LARGEST_NUMEL = 2**31 - 1


def check_map(name: str, x: Tensor) -> None:
    """Raise ValueError unless `x` is a real floating-point (B, C, H, W) tensor with H, W >= 1 and numel < 2^31."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(x).__name__}")  # noqa: TRY004
    if x.is_complex():
        raise ValueError(
            f"{name} is complex ({x.dtype}): pass the real feature map, as the operator includes the transform"
        )
    if not x.is_floating_point():
        raise ValueError(f"{name} holds integers ({x.dtype}): convert it with {name}.float()")
    if x.dim() != 4:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}: expected four axes (batch, channels, height, width)"
        )
    if x.shape[2] < 1 or x.shape[3] < 1:
        raise ValueError(f"{name} has shape {tuple(x.shape)}: height and width must be at least 1")
    if x.numel() > LARGEST_NUMEL:
        raise ValueError(
            f"{name} has {x.numel()} elements, more than 2^31 - 1: split the batch into smaller calls"
        )


def check_pair(name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    """Raise ValueError unless both are maps of one shape on one device."""
    check_map(name, x)
    check_map(other_name, other)
    if x.shape != other.shape:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)} and {other_name} {tuple(other.shape)}: they must be equal; "
            "project the channels or resize the map first"
        )
    if x.device != other.device:
        raise ValueError(f"{name} is on {x.device} and {other_name} on {other.device}: move one of them")


def check_mix(mix_2: Tensor, h: Tensor) -> None:
    """Raise ValueError unless `mix_2` holds the two real weights (of a, of h) on the device of `h`."""
    if not isinstance(mix_2, Tensor) or mix_2.shape != (2,) or not mix_2.is_floating_point():
        shown = f"{mix_2.dtype} of shape {tuple(mix_2.shape)}" if isinstance(mix_2, Tensor) else repr(mix_2)
        raise ValueError(f"mix_2 must be a real tensor of two weights (of a, of h), got {shown}")
    if mix_2.device != h.device:
        raise ValueError(f"mix_2 is on {mix_2.device} and h_BCHW on {h.device}: move one of them")


def check_output_size(output_size: tuple[int, int]) -> tuple[int, int]:
    """Return `output_size` as two integers of at least 1, or raise ValueError."""
    if len(output_size) != 2 or any(int(n) != n or n < 1 for n in output_size):
        raise ValueError(f"output_size must be two integers of at least 1, got {output_size!r}")
    return int(output_size[0]), int(output_size[1])


def common_dtype(x: Tensor, y: Tensor) -> torch.dtype:
    """Return the wider dtype of two maps, so that a mixed pair under autocast loses no precision."""
    return torch.promote_types(x.dtype, y.dtype)
