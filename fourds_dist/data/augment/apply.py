"""The draws of a batch applied to its images, on their device: flip, operations, erasing, mixing.

The result has the shapes and types of the batch, so a step captured as a CUDA graph reads it like any other batch. The
work is queued without a wait for the device.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from fourds_dist.data.augment.draws import Draws, Round
from fourds_dist.data.augment.mixing import Mix
from fourds_dist.data.augment.operations import operate


@torch.no_grad()
def apply(
    draws: Draws, images: UInt8[Tensor, "B 3 H W"], flip: Bool[Tensor, " B"], *, fill: tuple[float, ...]
) -> UInt8[Tensor, "B 3 H W"]:
    """Return the images after their augmentation.

    Args:
        flip: which images are mirrored.
        fill: colour of erased rectangles by channel, in [0, 1].
    """
    images = torch.where(flip[:, None, None, None], images.flip(-1), images)
    for round_ in draws.rounds:
        _run(round_, images)
    if draws.erased is not None:
        _erase(images, draws.erased, [round(255 * value) for value in fill])
    if draws.partners is not None and draws.mix is not None:
        images = _mix(images, draws.partners, draws.mix)
    return images


def _run(round_: Round, images: Tensor) -> None:
    """Apply one operation to each image, in place."""
    begin = 0
    for operation, count in round_.groups:
        chosen = slice(begin, begin + count)
        indices = round_.indices[chosen]
        images.index_copy_(0, indices, operate(operation, images[indices], round_.parameters[chosen]))
        begin += count


def _erase(images: Tensor, erased: Tensor, colour: list[int]) -> None:
    """Fill one rectangle of each image, in place."""
    top, left, height, width = (x[:, None] for x in erased.unbind(1))
    rows = torch.arange(images.shape[-2], device=images.device)
    columns = torch.arange(images.shape[-1], device=images.device)
    in_rows, in_columns = (rows >= top) & (rows < top + height), (columns >= left) & (columns < left + width)
    mask = in_rows[:, :, None] & in_columns[:, None, :]
    for channel, value in enumerate(colour):
        images[:, channel].masked_fill_(mask, value)


def _mix(images: Tensor, partners: Tensor, mix: Mix) -> Tensor:
    """Return the images mixed with their partners, rounded to whole levels."""
    if mix.share == 1:
        return images
    if mix.box is None:
        # A number on the host, so the product is in float32 on every device.
        return (images * mix.share + images[partners] * (1 - mix.share)).round_().to(torch.uint8)
    top, bottom, left, right = mix.box
    result = images.clone()
    result[..., top:bottom, left:right] = images[partners, :, top:bottom, left:right]
    return result
