"""All undocumented attributes of DeepSpeed's engine and optimisers that this package uses.

`test_deepspeed_private` checks them for new versions. `zero` is `engine.optimizer` of ZeRO stage 1, 2 or 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn


def partitions(
    zero: Any, stage: int, groups: Sequence[dict[str, Any]]
) -> list[tuple[Tensor, dict[str, Any]]]:
    """Return this rank's flat float32 weights, each with its parameter group.

    Args:
        groups: parameter groups of the optimiser that DeepSpeed wraps.
    """
    if stage < 3:
        return list(zip(zero.single_partition_of_fp32_groups, groups, strict=True))
    flat = zero.fp32_partitioned_groups_flat
    return [(p, groups[zero.sub_group_to_group_id[i]]) for i, p in enumerate(flat)]


def link_optimizer_state(zero: Any) -> None:
    """Make state from before the first step visible to `safe_get_full_optimizer_state`. Stages 1 and 2."""
    zero._lazy_init_hp_params_optimizer_state()


def free_for_capture(zero: Any, parameters: Iterable[nn.Parameter]) -> None:
    """Remove the hooks and views of stage 1 that prevent the capture of a step as a CUDA graph."""
    # These hooks count gradients, slowly, and start a reduction, which a graph cannot include.
    for hook in zero._grad_acc_hooks:
        hook.remove()
    # Views of the parameters bind the nodes that accumulate gradients to the current stream.
    for p in parameters:
        fragment = getattr(p, "_hp_mapping", None)
        if fragment is not None:
            fragment.lp_fragment = fragment.lp_fragment.detach()


def prepare_buckets(zero: Any) -> None:
    """Allocate the buckets of stage 1 before a backward pass, for the hooks that `free_for_capture` has removed."""
    zero.setup_buckets()


def reduce_gradients(engine: Any) -> None:
    """Reduce the gradients to the partitions that each rank updates. Stage 1."""
    engine.set_gradient_accumulation_boundary(True)
    engine.optimizer.set_gradient_accumulation_boundary(True)
    engine.optimizer.setup_buckets()
    engine.optimizer.reduce_gradients()


def whole_shape(p: nn.Parameter) -> tuple[int, ...]:
    """Return the shape of a parameter before the partitioning by stage 3."""
    return tuple(getattr(p, "ds_shape", p.shape))


def skipped_step(zero: Any) -> bool:
    """Whether the last step was skipped because of gradients that are not finite."""
    return bool(getattr(zero, "overflow", False))
