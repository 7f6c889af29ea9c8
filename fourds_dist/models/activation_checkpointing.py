"""Activation checkpointing: blocks of the networks store only their inputs and run again in the backward pass.

A block is a module with submodules, in a list of modules: a residual block, a transformer layer, an adapter. In the
teacher, this has an effect above the first adapter only; layers below need no gradients and store nothing anyway.
Results and gradients stay the same: dropout repeats its mask, and BatchNorm updates its running statistics once per
batch. A block whose input is changed in place cannot run again; PyTorch raises an error in the backward pass.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fourds_dist.models.running_statistics import preserved_running_statistics

LISTS = (nn.Sequential, nn.ModuleList)


def checkpoint_blocks(task: nn.Module) -> int:
    """Make the blocks of `task` run again in the backward pass instead of storing activations; return their number.

    Only the classes of modules change; parameters, names and hooks stay. A block with a submodule that has a forward
    hook is skipped, as the hook would run twice; its submodules may be blocks.

    The first pass of a block determines whether the block draws random numbers (dropout). In a CUDA graph only blocks
    without random numbers can run again, as a graph cannot restore the state of the generator.
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
            draws = getattr(self, "draws_random_numbers", None)
            if _is_capturing():
                if draws is not False:
                    raise RuntimeError(
                        f"{kind.__name__} draws random numbers; step.activation_checkpointing needs a step without a "
                        "CUDA graph for this block"
                    )
                return checkpoint(forward, *args, preserve_rng_state=False, **options)
            before = _random_state()
            # To store and restore the generators takes longer than to queue the block.
            result = checkpoint(forward, *args, preserve_rng_state=draws is not False, **options)
            draws_now = _random_state() != before
            if draws is False and draws_now:
                raise RuntimeError(
                    f"{kind.__name__} drew random numbers, but none in its first pass; "
                    "step.activation_checkpointing needs blocks that draw random numbers in every step or in none"
                )
            self.draws_random_numbers = bool(draws or draws_now)
            return result

    Recomputing.__name__ = Recomputing.__qualname__ = f"Recomputing{kind.__name__}"
    return Recomputing


def _is_capturing() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _random_state() -> tuple[bytes, int]:
    """Return the state of the CPU's generator and the offset of the current GPU's, without synchronisation."""
    on_cpu = torch.get_rng_state().numpy().tobytes()
    if not torch.cuda.is_available():
        return on_cpu, 0
    return on_cpu, torch.cuda.default_generators[torch.cuda.current_device()].get_offset()


def _passes(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Return the contexts of the first and of the second pass."""
    return nullcontext(), preserved_running_statistics(block)
