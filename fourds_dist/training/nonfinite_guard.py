"""Detection of losses, gradients and weights that are not finite: steps are skipped within a budget, or the run stops.

Without a budget the guard checks the loss (with gradient accumulation, that of the last part), and the run stops at the
next logging step. With `step.max_nonfinite_steps` it checks the gradients, which are equal on all ranks: all ranks skip
the same steps and leave weights, optimisers and BatchNorm statistics unchanged. A loss shows bad weights one step late,
so the weights are checked before every checkpoint. The guard always writes the names of the images to a file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from fourds_dist.data import Batch
from fourds_dist.method.output import Output
from fourds_dist.method.task import Task
from fourds_dist.runs.layout import bad_batch_name
from fourds_dist.training.distributed.world import World

_NEVER = 2**62


class NonfiniteGuard:
    """Check every step of one task.

    Args:
        num_skipped: steps that the run has already skipped.
        budget: maximum number of skipped steps.
        window_steps: maximum number of steps between two calls of `check`.
        write: writes a value as JSON under a name to the run's folder; called on rank 0 only.
    """

    def __init__(
        self,
        task: Task,
        world: World,
        *,
        num_skipped: int,
        budget: int,
        window_steps: int,
        write: Callable[[str, Any], None],
    ) -> None:
        self.num_skipped = num_skipped
        self._task, self._world, self._budget, self._write = task, world, budget, write
        self._recent: deque[tuple[int, list[str]]] = deque(maxlen=window_steps + 1)
        self._first = torch.tensor(_NEVER, device=world.device)
        self._num_bad = torch.zeros((), dtype=torch.int64, device=world.device)
        self._buffers = [b for b in task.buffers() if b.is_floating_point()] if budget else []
        self._good = [b.clone() for b in self._buffers]

    @torch.no_grad()
    def look(self, step: int, batch: Batch, output: Output) -> Tensor | None:
        """Check a step's loss or gradients before the update, without a wait for the device.

        Returns:
            Whether to skip the step, a scalar on the device, equal on all ranks; None without a budget.
        """
        self._recent.append((step, batch.keys))
        bad = ~torch.isfinite(output.loss)
        if self._budget:
            grads = [p.grad for p in self._task.parameters() if p.grad is not None]
            bad = ~torch.isfinite(nn.utils.get_total_norm(grads))
            for buffer, good in zip(self._buffers, self._good, strict=True):
                buffer.copy_(torch.where(bad, good, buffer))
                good.copy_(buffer)
        self._first = torch.where(bad & (self._first == _NEVER), step, self._first)
        self._num_bad += bad
        return bad if self._budget else None

    def keep_buffers(self) -> None:
        """Accept the current buffers, which changed between two steps."""
        for buffer, good in zip(self._buffers, self._good, strict=True):
            good.copy_(buffer)

    def check(self) -> str | None:
        """Return a line about the steps skipped since the last call; None if there are none. A collective call.

        Raises:
            FloatingPointError: there is no budget, or the budget is exceeded.
        """
        first = int(self._world.all_reduce_min(self._first))
        if first == _NEVER:
            return None
        num_bad = int(self._num_bad)
        self._first.fill_(_NEVER)
        self._num_bad.zero_()
        file = self._write_keys(first)
        if not self._budget:
            raise _error(f"the loss is not finite at step {first}", file)
        self.num_skipped += num_bad
        text = (
            f"skipped {num_bad} step{'s' if num_bad > 1 else ''} from step {first} on, whose gradients were not finite "
            f"({self.num_skipped} of step.max_nonfinite_steps={self._budget}); {file} names the images"
        )
        if self.num_skipped > self._budget:
            raise FloatingPointError(f"{text}. That is more than allowed. {_what_to_do(larger=True)}")
        return text

    def check_state(self, step: int, state: dict[str, Any] | None) -> None:
        """Check that the trainable weights of a checkpoint are finite. A collective call, with the state on rank 0.

        Raises:
            FloatingPointError: weights are not finite; on all ranks.
        """
        weights = {} if state is None else state["weights"]
        names = [name for name, p in self._task.named_parameters() if p.requires_grad and name in weights]
        is_bad = any(not torch.isfinite(weights[name]).all() for name in names)
        if any(self._world.gather(is_bad)):
            self.refuse(step, f"step {step} left weights that are not finite, and no checkpoint was written")

    def refuse(self, step: int, what: str) -> NoReturn:
        """Write the names of the images of the last step and stop the run. A collective call.

        Raises:
            FloatingPointError: always.
        """
        raise _error(what, self._write_keys(step))

    def _write_keys(self, first: int) -> str:
        """Write the names of the images of the first bad step and of the step before, whose update may be the cause."""
        recent = {step: keys for step, keys in self._recent if step in (first - 1, first)}
        by_rank = self._world.gather(recent)
        name = bad_batch_name(first)
        if self._world.is_main:
            steps = sorted({step for rank in by_rank for step in rank})
            keys = {str(step): [rank.get(step, []) for rank in by_rank] for step in steps}
            self._write(name, {"first_bad_step": first, "keys_by_step_and_rank": keys})
        return name


def _error(what: str, file: str) -> FloatingPointError:
    return FloatingPointError(f"{what}; {file} names its images. {_what_to_do()}")


def _what_to_do(*, larger: bool = False) -> str:
    return (
        "Give the same command with a lower optim.lr of this stage, with its optim.max_grad_norm, or with "
        f"{'a larger ' if larger else ''}step.max_nonfinite_steps to skip such steps; the run resumes from the newest "
        "checkpoint. If that checkpoint diverges too, also give another run.name"
    )
