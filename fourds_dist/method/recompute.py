"""Activation checkpointing: blocks of the networks keep their inputs alone, and run again in the backward pass.

A block is a module with parts, in a list of such modules: a residual block, a transformer layer, an adapter. Inside the
teacher that holds from the first adapter upwards; what lies below needs no gradients and keeps nothing anyway. Results
and gradients stay the same: dropout repeats its choice, and BatchNorm counts a batch in its running statistics once. A
block whose input something changes in place cannot run again; PyTorch refuses it in the backward pass.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

LISTS = (nn.Sequential, nn.ModuleList)


def recompute_blocks(task: nn.Module) -> int:
    """Let the blocks of `task` run again in the backward pass instead of keeping what they computed; gives how many.

    Classes of modules change, nothing else: parameters, names and hooks stay. Blocks with a part that somebody listens
    to are left as they are, for that part would be heard twice; their own parts may be blocks.

    Inside a CUDA graph only blocks without random numbers (dropout) can run again: a graph cannot put back the
    generator's state. Whether a block draws any is seen in the passes before the capture.
    """
    blocks = list(_blocks(task, in_list=False))
    for block in blocks:
        block.__class__ = _recomputing(type(block))
    return len(blocks)


def _blocks(module: nn.Module, *, in_list: bool) -> Iterator[nn.Module]:
    is_list = isinstance(module, LISTS)
    parts = list(module.modules())[1:]
    if in_list and not is_list and parts and not any(part._forward_hooks for part in parts):
        yield module
        return
    for child in module.children():
        yield from _blocks(child, in_list=is_list)


@functools.cache
def _recomputing(kind: type[nn.Module]) -> type[nn.Module]:
    class Recomputing(kind):
        def forward(self, *args: Any, **options: Any) -> Any:
            forward = super().forward
            if not torch.is_grad_enabled():
                return forward(*args, **options)
            options |= {"use_reentrant": False, "context_fn": functools.partial(_passes, self)}
            if _is_capturing():
                if getattr(self, "draws_random_numbers", True):
                    raise RuntimeError(
                        f"{kind.__name__} draws random numbers: step.activation_checkpointing runs it without a graph"
                    )
                return checkpoint(forward, *args, preserve_rng_state=False, **options)
            before = _random_offset()
            result = checkpoint(forward, *args, **options)
            self.draws_random_numbers = _random_offset() != before
            return result

    Recomputing.__name__ = Recomputing.__qualname__ = f"Recomputing{kind.__name__}"
    return Recomputing


def _is_capturing() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _random_offset() -> int:
    """How many random numbers the current GPU's generator has given; asking waits for nothing."""
    if not torch.cuda.is_available():
        return 0
    return torch.cuda.default_generators[torch.cuda.current_device()].get_offset()


def _passes(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """What surrounds the first pass, and the second."""
    return nullcontext(), _running_statistics_stay(block)


@contextmanager
def _running_statistics_stay(block: nn.Module) -> Iterator[None]:
    """BatchNorm updates copies."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm) and module.training]
    held = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        norm._buffers.update({k: b.clone() for k, b in norm._buffers.items() if b is not None})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, held, strict=True):
            norm._buffers.update(buffers)
