"""Which networks normalise over the batch, and BatchNorm's running statistics, unchanged during a forward pass in
training mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def has_batch_norm(*modules: nn.Module) -> bool:
    """Return whether the modules normalise over the images of a batch. LayerNorm and GroupNorm do not."""
    return any(isinstance(part, _BatchNorm) for module in modules for part in module.modules())


@contextmanager
def preserved_running_statistics(*modules: nn.Module) -> Iterator[None]:
    """Let BatchNorm normalise by the batch as before, but update copies of its buffers, without a wait for the device.

    The copies are needed because batch normalisation has no training mode without an update of given statistics, and
    without given statistics a block that runs again in the backward pass would store other tensors than before.
    """
    norms = [
        part
        for module in modules
        for part in module.modules()
        if isinstance(part, _BatchNorm) and part.training
    ]
    saved = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        norm._buffers.update({k: b.clone() for k, b in norm._buffers.items() if b is not None})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, saved, strict=True):
            norm._buffers.update(buffers)
