"""Checkpoints as files: read without unpickling, and refused by name where they do not fit.

What a checkpoint holds is `snapshot`'s matter, where it lies `store`'s. Frozen weights are left out: they come from the
teacher's own file, which `weights` reads.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fourds_dist.training.unpickling import torch_load

FORMAT = 2


class CheckpointRefusedError(ValueError):
    """A run's checkpoint that this run cannot go on from; on every rank alike."""


def decode_state(data: bytes, where: str) -> dict[str, Any]:
    """A checkpoint's state from a file's bytes, on the CPU.

    Raises:
        ValueError: truncated, not one of ours, of another format, or holding pickled code.
    """
    state = torch_load(data, f"checkpoint {where}", where)
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
