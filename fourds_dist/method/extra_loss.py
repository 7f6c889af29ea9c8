"""A loss of the user's own in the student's loss (Eq. 22): a function that `method.extra_loss` names."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from fourds_dist.method.entry_point import entry_point

KEY = "method.extra_loss"


class ExtraLoss:
    """Calls the function, and checks what it returns.

    Args:
        name: `package.module:function`.

    Raises:
        ValueError: no such function.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._function = entry_point(name, what=f"{KEY}: function", takes="logits, maps and labels")

    def __call__(
        self,
        logits_S: Float[Tensor, "B K"],
        logits_T: Float[Tensor, "B K"],
        maps_S: Sequence[Float[Tensor, "B _C _H _W"]],
        maps_T: Sequence[Float[Tensor, "B _C _H _W"]],
        labels: Int[Tensor, " B"],
    ) -> Float[Tensor, ""]:
        """The loss of one batch; what comes from the teacher is detached.

        Raises:
            ValueError: the function returned anything but one number as a tensor.
        """
        loss = self._function(
            student_logits=logits_S,
            teacher_logits=logits_T.detach(),
            student_maps=list(maps_S),
            teacher_maps=[h.detach() for h in maps_T],
            labels=labels,
        )
        if not isinstance(loss, Tensor) or loss.ndim > 0:
            given = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)[:80]
            raise ValueError(f"{KEY}: {self._name} returned {given}; return one number, a tensor of shape ()")
        return loss
