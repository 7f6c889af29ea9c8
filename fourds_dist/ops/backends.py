"""Selection of the backend of an operator, by the user or by device, dtype and size.

    reference   the released formulation, full spectrum and autograd, which tests compare with; any device
    eager       half spectrum by torch.fft, no trigonometry, hand-derived backward; any device, dtype and size
    fused       one CUDA kernel per pass, transforms in registers; float32, bfloat16 and float16, sizes of `fused.py`

The order of precedence is the call (`backend=`), `use_backend`, the environment (`FOURDS_OPS_BACKEND`), and
`choose_backend`. `eager` replaces a backend that does not support the call, with one warning per reason.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor

from fourds_dist.ops import eager, fused

BACKENDS = ("reference", "eager", "fused")
ENVIRONMENT_VARIABLE = "FOURDS_OPS_BACKEND"

_chosen: str | None = None  # set by use_backend; a plain global, as torch.compile guards on globals
_environment: str | None = os.environ.get(ENVIRONMENT_VARIABLE) or None
_reported: set[str] = set()


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Run the operators inside the block, in all threads, on backend `name` (None: the default)."""
    global _chosen
    before, _chosen = _chosen, None if name is None else known(name)
    try:
        yield
    finally:
        _chosen = before


def requested(backend: str | None) -> str:
    """Return the backend requested by the call, the context or the environment; an empty string if none."""
    name = backend or _chosen or _environment
    return "" if name is None else known(name)


def released(name: str, x_BCHW: Tensor) -> bool:
    """Whether `reference` computes the call; `eager` computes empty batches, which FFT libraries refuse."""
    return name == "reference" and x_BCHW.numel() > 0


def known(name: str) -> str:
    """Return `name` if it is a backend, or raise ValueError."""
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}: choose one of {', '.join(BACKENDS)}")
    return name


def choose_backend(x_BCHW: Tensor, operator: str = "fourier_mix", cells: tuple[int, int] = (1, 1)) -> str:
    """Return the default backend of `operator` for maps like `x_BCHW`: `fused` or `eager`."""
    return "eager" if fused.why_not(operator, x_BCHW, cells) else "fused"


def resolve(name: str, operator: str, x_BCHW: Tensor, cells: tuple[int, int] = (1, 1)) -> ModuleType:
    """Return the module that computes a call with the requested backend `name` ("": the default).

    This warns once per reason if the kernels are unavailable although requested, or on a GPU.
    """
    if name in ("eager", "reference"):
        return eager
    reason = fused.why_not(operator, x_BCHW, cells)
    if reason is None:
        return fused
    if name == "fused" or (x_BCHW.is_cuda and x_BCHW.dtype != torch.float64):
        warn_once(f"{operator} runs on the eager backend instead of the fused one: {reason}")
    return eager


def warn_once(message: str) -> None:
    """Emit a warning the first time that the message occurs in this process."""
    if message not in _reported:
        _reported.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=3)


def without_autocast(x: Tensor) -> torch.autocast:
    """Return a context without autocast."""
    return torch.autocast(x.device.type, enabled=False)
