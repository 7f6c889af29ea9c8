"""Steps whose numbers are no longer finite: found on the device, told at logging steps, skipped within a budget.

Without a budget the loss is watched (of a batch in parts, the last part's), and the run stops at the next logging step.
With `step.max_bad_steps` the gradients are, which all ranks share: on all of them the same steps leave weights,
optimisers and BatchNorm statistics as they were. A loss tells of weights one step late, so each checkpoint is looked at
before it is written: none holds weights that are not finite. In all cases the images are written down.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from fourds_dist.data import Batch
from fourds_dist.method.distiller import Output
from fourds_dist.runs.layout import bad_batch_name
from fourds_dist.training.world import World

_NEVER = 2**62


class Guard:
    """Watches every step of one task.

    Args:
        num_skipped: steps that the run has skipped before.
        budget: how many it may skip in all.
        window_steps: steps between two calls of `check`, at most.
        write: writes a value as JSON under a name in the run's folder; rank 0's is used.
    """

    def __init__(
        self,
        task: nn.Module,
        world: World,
        *,
        num_skipped: int,
        budget: int,
        window_steps: int,
        write: Callable[[str, Any], None],
    ) -> None:
        self.num_skipped = num_skipped
        self._task, self._world, self._budget, self._write = task, world, budget, write
        self._seen: deque[tuple[int, list[str]]] = deque(maxlen=window_steps + 1)
        self._first = torch.tensor(_NEVER, device=world.device)
        self._num_bad = torch.zeros((), dtype=torch.int64, device=world.device)
        self._buffers = [b for b in task.buffers() if b.is_floating_point()] if budget else []
        self._good = [b.clone() for b in self._buffers]

    @torch.no_grad()
    def look(self, step: int, batch: Batch, output: Output) -> Tensor | None:
        """Look at a step's loss and gradients before they are used; nothing here waits for the device.

        Returns:
            Whether the step is to be left out, a scalar on the device, the same on all ranks; None without a budget.
        """
        self._seen.append((step, batch.keys))
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
        """Take the buffers as they are now for good: they were changed between two steps."""
        for buffer, good in zip(self._buffers, self._good, strict=True):
            good.copy_(buffer)

    def check(self) -> str | None:
        """What happened since the last call, in one line; None: nothing. Every rank calls it together.

        Raises:
            FloatingPointError: no budget, or none left.
        """
        first = int(self._world.least(self._first))
        if first == _NEVER:
            return None
        num_bad = int(self._num_bad)
        self._first.fill_(_NEVER)
        self._num_bad.zero_()
        file = self._write_down(first)
        if not self._budget:
            raise _error(f"the loss is not finite at step {first}", file)
        self.num_skipped += num_bad
        text = (
            f"skipped {num_bad} step{'s' if num_bad > 1 else ''} from step {first} on, whose gradients were not finite "
            f"({self.num_skipped} of step.max_bad_steps={self._budget}); images named in {file}"
        )
        if self.num_skipped > self._budget:
            raise FloatingPointError(
                f"{text}. That is more than allowed; lower optim.lr or set optim.max_grad_norm"
            )
        return text

    def check_state(self, step: int, state: dict[str, Any] | None) -> None:
        """Refuse a checkpoint whose learnt weights are not finite. Every rank calls it together, rank 0 with the state.

        Raises:
            FloatingPointError: on all ranks alike.
        """
        weights = {} if state is None else state["weights"]
        names = [name for name, p in self._task.named_parameters() if p.requires_grad and name in weights]
        is_bad = any(not torch.isfinite(weights[name]).all() for name in names)
        if any(self._world.gather(is_bad)):
            self.refuse(step, f"step {step} left weights that are not finite, and no checkpoint")

    def refuse(self, step: int, what: str) -> NoReturn:
        """Stop the run at the step looked at last, whose images are written down. Every rank calls it together.

        Raises:
            FloatingPointError: always.
        """
        raise _error(what, self._write_down(step))

    def _write_down(self, first: int) -> str:
        """Name the images of the first bad step, and of the one before it, whose update may have been the cause."""
        mine = {step: keys for step, keys in self._seen if step in (first - 1, first)}
        by_rank = self._world.gather(mine)
        name = bad_batch_name(first)
        if self._world.is_main:
            steps = sorted({step for rank in by_rank for step in rank})
            keys = {str(step): [rank.get(step, []) for rank in by_rank] for step in steps}
            self._write(name, {"first_bad_step": first, "keys_by_step_and_rank": keys})
        return name


def _error(what: str, file: str) -> FloatingPointError:
    return FloatingPointError(
        f"{what}; its images are named in {file}. Give the same command with a lower optim.lr of this stage, with its "
        "optim.max_grad_norm, or with step.max_bad_steps, by which the run skips some such steps; it goes on from the "
        "newest checkpoint. Where that is spoilt already, give another run.name too"
    )
