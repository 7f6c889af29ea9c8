"""A user-defined term of the student's loss (Eq. 22): the function named by `method.extra_loss`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from fourds_dist.config.entry_point import entry_point

KEY = "method.extra_loss"
ARGUMENTS = ("student_logits", "teacher_logits", "student_maps", "teacher_maps", "labels")


class ExtraLoss:
    """Call the user's function and check its result.

    Args:
        name: `package.module:function`.

    Raises:
        ValueError: the function does not exist, or does not take ARGUMENTS by name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._function = entry_point(name, what=f"{KEY}: function", takes="logits, maps and labels")
        _check_arguments(self._function, name)

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


def _check_arguments(function: Callable[..., Any], name: str) -> None:
    signature = None
    with suppress(ValueError, TypeError):  # a function of an extension module may have no signature
        signature = inspect.signature(function)
    if signature is None:
        return
    try:
        signature.bind(**dict.fromkeys(ARGUMENTS))
    except TypeError as error:
        raise ValueError(
            f"{KEY}: {name}{signature} is called with {', '.join(ARGUMENTS)} by name ({error}); add `**others` for "
            "those that the function does not use, and defaults for its own"
        ) from None
