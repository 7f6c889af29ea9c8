"""Which backend computes an operator: chosen by device, dtype and size, or named by the user.

    reference   the released formulation, full spectrum and autograd; the oracle, on any device
    eager       half spectrum through torch.fft, no trigonometry, hand-derived backward; any device, dtype and size
    fused       one CUDA kernel per pass, transforms in registers; float32, bfloat16 and float16, sizes of `fused.py`

A name comes from the call (`backend=`), else from `use_backend`, else from the environment (`FOURDS_OPS_BACKEND`), else
from the chooser. A backend that cannot serve the call is replaced by `eager` with one warning for each reason.
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

_chosen: str | None = None  # set by use_backend; a plain global, so that torch.compile can guard on it
_environment: str | None = os.environ.get(ENVIRONMENT_VARIABLE) or None
_reported: set[str] = set()


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Run the operators inside the block on backend `name` (None: leave it to the chooser). Not per thread."""
    global _chosen
    before, _chosen = _chosen, None if name is None else known(name)
    try:
        yield
    finally:
        _chosen = before


def requested(backend: str | None) -> str:
    """The backend asked for by the call, the context or the environment; an empty string leaves it to the chooser."""
    name = backend or _chosen or _environment
    return "" if name is None else known(name)


def released(name: str, x_BCHW: Tensor) -> bool:
    """Whether the released formulation takes the call; an empty batch goes to `eager`, as FFT libraries refuse it."""
    return name == "reference" and x_BCHW.numel() > 0


def known(name: str) -> str:
    """Return `name` if it is a backend, or raise ValueError."""
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}: choose one of {', '.join(BACKENDS)}")
    return name


def choose_backend(x_BCHW: Tensor, operator: str = "fourier_mix", cells: tuple[int, int] = (1, 1)) -> str:
    """The backend `operator` picks for maps like `x_BCHW` when nothing names one: `fused` or `eager`."""
    return "eager" if fused.why_not(operator, x_BCHW, cells) else "fused"


def resolve(name: str, operator: str, x_BCHW: Tensor, cells: tuple[int, int] = (1, 1)) -> ModuleType:
    """The module that computes a call for which `name` was requested ("" for the chooser's pick).

    Where speed was to be expected (the kernels were asked for, or the device and dtype are theirs) and cannot be had,
    it says so once.
    """
    if name in ("eager", "reference"):
        return eager
    reason = fused.why_not(operator, x_BCHW, cells)
    if reason is None:
        return fused
    if name == "fused" or (x_BCHW.is_cuda and x_BCHW.dtype != torch.float64):
        warn_once(f"{operator} runs on the eager backend, not on the fused one: {reason}")
    return eager


def warn_once(message: str) -> None:
    """Warn the first time a message comes up in this process."""
    if message not in _reported:
        _reported.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=3)


def without_autocast(x: Tensor) -> torch.autocast:
    """A context in which autocast leaves products in the dtype they are written in."""
    return torch.autocast(x.device.type, enabled=False)
