"""Placeholder until the kernels land."""

from torch import Tensor


def why_not(x_BCHW: Tensor) -> str | None:
    """Why maps like `x_BCHW` cannot be served by the kernels, or None where they can."""
    return "the kernels are not built yet"


def broken() -> bool:
    """Whether the kernels failed to build on a device that should run them."""
    return False
