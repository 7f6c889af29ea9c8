"""Feature maps as (B, C, H, W), in whatever form a network's stages give them; `from_map` is the way back.

    NCHW      convolutional networks
    NHWC      Swin
    tokens    ViT: (B, P + H * W, C), a square grid row by row behind P prefix tokens (class, registers), which stand
              aside and come back as they were

All conversions but that of a token's way back are views: a map from NHWC or tokens is in channels-last memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Layout = Literal["NCHW", "NHWC", "tokens"]


def layout_of(shapes: Sequence[Sequence[int]]) -> Layout:
    """The layout that a network's stages share, told from their outputs' shapes for a square image.

    A 4-D output has its two equal sides together; where channels happen to be as many as the sides are long, another
    stage of the network decides, and NCHW if none does.

    Raises:
        ValueError: shapes that are no square feature maps, or not all of one layout.
    """
    if all(len(shape) == 3 for shape in shapes):
        return "tokens"
    if all(len(shape) == 4 for shape in shapes):
        if all(shape[2] == shape[3] for shape in shapes):
            return "NCHW"
        if all(shape[1] == shape[2] for shape in shapes):
            return "NHWC"
    raise ValueError(
        f"outputs of shapes {[tuple(s) for s in shapes]} are no square feature maps of one layout"
    )


def grid_side(num_tokens: int, num_prefix_tokens: int | None = None) -> int:
    """Side of the square grid among `num_tokens`.

    Args:
        num_prefix_tokens: as many as the network says it has (timm's networks do). None, or where the rest is no
            square: the largest square counts, and the rest, fewer than the next ring, are prefix tokens.
    """
    if num_prefix_tokens is not None and num_prefix_tokens < num_tokens:
        side = math.isqrt(num_tokens - num_prefix_tokens)
        if side**2 == num_tokens - num_prefix_tokens:
            return side
    return math.isqrt(num_tokens)


def to_map(output: Tensor, layout: Layout, side: int | None = None) -> Float[Tensor, "B C H W"]:
    """A stage's output as a map.

    Args:
        side: of the grid, for tokens; None: that of the largest square grid.
    """
    if layout == "NCHW":
        return output
    if layout == "NHWC":
        return output.permute(0, 3, 1, 2)
    side = grid_side(output.shape[1]) if side is None else side
    return output[:, -(side**2) :].unflatten(1, (side, side)).permute(0, 3, 1, 2)


def from_map(map_BCHW: Float[Tensor, "B C H W"], layout: Layout, output: Tensor) -> Tensor:
    """The map in the form of the stage's output.

    Args:
        output: what the stage gave; its prefix tokens are kept.
    """
    if layout == "NCHW":
        return map_BCHW
    if layout == "NHWC":
        return map_BCHW.permute(0, 2, 3, 1)
    tokens = map_BCHW.flatten(2).transpose(1, 2)
    return torch.cat([output[:, : output.shape[1] - tokens.shape[1]], tokens], dim=1)
