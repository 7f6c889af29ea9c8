"""A user-defined term of the student's loss (Eq. 22): the function named by `method.extra_loss`."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from fourds_dist.config.entry_point import entry_point

KEY = "method.extra_loss"


class ExtraLoss:
    """Call the user's function and check its result.

    Args:
        name: `package.module:function`.

    Raises:
        ValueError: the function does not exist.
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
        """Return the loss of one batch; the teacher's logits and maps are detached.

        Raises:
            ValueError: the result is not a tensor of shape ().
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
