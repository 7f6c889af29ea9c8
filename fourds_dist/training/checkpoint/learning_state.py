"""Reading of checkpoints without unpickling, and checks of their format and model.

`train_state` defines the content of a checkpoint, `checkpoint_store` the storage. A checkpoint excludes frozen weights,
which come from the teacher's file (`fourds_dist.models.weights`).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fourds_dist.io.unpickling import torch_load

FORMAT = 2


class CheckpointRefusedError(ValueError):
    """The run cannot resume from its checkpoint; raised on every rank."""


def decode_state(data: bytes, where: str) -> dict[str, Any]:
    """Return the state of a checkpoint from a file's bytes, on the CPU.

    Raises:
        ValueError: the file is truncated, not a checkpoint of this package, of another format, or contains pickled
            code.
    """
    state = torch_load(data, f"checkpoint {where}", where)
    found = state.get("format") if isinstance(state, dict) else None
    if not isinstance(found, int):
        raise CheckpointRefusedError(
            f"checkpoint {where} was not written by fourds_dist; choose another run.name"
        )
    if found != FORMAT:
        remedy = (
            "update fourds_dist"
            if found > FORMAT
            else "resume with the version that started the run, or choose another run.name"
        )
        raise CheckpointRefusedError(
            f"checkpoint {where} has format {found}, {'newer' if found > FORMAT else 'older'} than the format {FORMAT} "
            f"that this version reads; {remedy}"
        )
    return state


def learning_state(task: nn.Module) -> dict[str, Tensor]:
    """Return the trainable parameters and all buffers of `task`, copied to the CPU."""
    frozen = {name for name, p in task.named_parameters() if not p.requires_grad}
    return {k: v.detach().to("cpu", copy=True) for k, v in task.state_dict().items() if k not in frozen}


def load_learning_state(task: nn.Module, state: dict[str, Tensor]) -> None:
    """Load a state of `learning_state`.

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
            return f"{name} has shape {tuple(found[name].shape)}, expected {tuple(tensor.shape)}"
    return None
