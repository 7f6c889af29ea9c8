"""Conversion between the outputs of a network's stages and feature maps (B, C, H, W).

    NCHW      convolutional networks
    NHWC      Swin
    tokens    ViT: (B, P + H * W, C), a square grid row by row after P prefix tokens (class, registers), which are not
              part of the map and stay unchanged

All conversions are views, except `from_map` for tokens. A map from NHWC or tokens has channels-last memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

Layout = Literal["NCHW", "NHWC", "tokens"]


def first_tensor(output: object) -> Tensor | None:
    """Return a module's output, or the first element if the output is a tuple or list; None if that is no tensor."""
    if isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def with_first_tensor(output: Any, tensor: Tensor) -> Any:
    """Return a module's output with another first tensor."""
    if isinstance(output, Tensor):
        return tensor
    rest = (tensor, *output[1:])
    return type(output)(*rest) if hasattr(output, "_fields") else type(output)(rest)


def layout_of(shapes: Sequence[Sequence[int]]) -> Layout:
    """Return the common layout of stages, inferred from the shapes of their outputs for a square image.

    The two equal sides of a 4-D output are adjacent. If the number of channels equals the side, the other stages
    decide; the fallback is NCHW.

    Raises:
        ValueError: shapes of non-square feature maps, or of different layouts.
    """
    if all(len(shape) == 3 for shape in shapes):
        return "tokens"
    if all(len(shape) == 4 for shape in shapes):
        if all(shape[2] == shape[3] for shape in shapes):
            return "NCHW"
        if all(shape[1] == shape[2] for shape in shapes):
            return "NHWC"
    raise ValueError(
        f"outputs of shapes {[tuple(s) for s in shapes]} are not square feature maps of one layout"
    )


def layouts_of(shapes: Sequence[Sequence[int]]) -> tuple[Layout, ...]:
    """Return the layout of each stage of a network; hybrids have maps in early stages and tokens in late ones.

    Raises:
        ValueError: shapes of non-square feature maps, or 4-D outputs of different layouts.
    """
    four_dimensional = [shape for shape in shapes if len(shape) == 4]
    common = layout_of(four_dimensional) if four_dimensional else "tokens"
    return tuple(common if len(shape) == 4 else "tokens" for shape in shapes)


def grid_side(num_tokens: int, num_prefix_tokens: int | None = None) -> int:
    """Return the side of the square grid in `num_tokens` tokens.

    Args:
        num_prefix_tokens: number of prefix tokens by the network's attribute (timm has one). If None, or if the
            remaining tokens are not a square grid, the largest square is the grid and the other tokens are prefix
            tokens.
    """
    if num_prefix_tokens is not None and num_prefix_tokens < num_tokens:
        side = math.isqrt(num_tokens - num_prefix_tokens)
        if side**2 == num_tokens - num_prefix_tokens:
            return side
    return math.isqrt(num_tokens)


def to_map(output: Tensor, layout: Layout, side: int | None = None) -> Float[Tensor, "B C H W"]:
    """Return a stage's output as a map.

    Args:
        side: side of the token grid; None: the side of the largest square grid.
    """
    if layout == "NCHW":
        return output
    if layout == "NHWC":
        return output.permute(0, 3, 1, 2)
    side = grid_side(output.shape[1]) if side is None else side
    return output[:, -(side**2) :].unflatten(1, (side, side)).permute(0, 3, 1, 2)


def from_map(map_BCHW: Float[Tensor, "B C H W"], layout: Layout, output: Tensor) -> Tensor:
    """Return the map in the layout of the stage's output.

    Args:
        output: output of the stage, whose prefix tokens are copied.
    """
    if layout == "NCHW":
        return map_BCHW
    if layout == "NHWC":
        return map_BCHW.permute(0, 2, 3, 1)
    tokens = map_BCHW.flatten(2).transpose(1, 2)
    return torch.cat([output[:, : output.shape[1] - tokens.shape[1]], tokens], dim=1)
