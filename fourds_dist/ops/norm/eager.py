"""The eager backend: the operators and their hand-derived gradients in PyTorch, for any device, dtype and layout.

Symbols: m and v for a channel's mean and variance, s = 1 / sqrt(v + eps), n = (x - m) s, z = n weight + bias +
residual, y = act(z), g for the gradient of y, h = g act'(z) for that of z, N for the number of a channel's values:

    gradient of the residual    h
    gradient of bias, weight    H = sum h,  K = sum h n
    gradient of x               s weight (h - H / N - n K / N)     m and v are those of the batch
                                s weight h                         m and v are constants

ReLU and ReLU6 after a residual sum store one bit per value, which says whether the gradient passes: bit c % 8 of byte
c // 8 of a pixel is that of channel c. Other activations compute z again.
"""

import torch
from torch import Tensor

from fourds_dist.ops.norm.reference import ACTIVATIONS
from fourds_dist.ops.spectrum import working_dtype

BITS = 8


def batch_statistics(x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the biased variance of each channel, in float32 or float64."""
    var, mean = torch.var_mean(x_BCHW.to(working_dtype(x_BCHW.dtype)), dim=(0, 2, 3), correction=0)
    return mean, var


def update_running_statistics(
    running_mean: Tensor,
    running_var: Tensor,
    mean: Tensor,
    var: Tensor,
    factor: float | Tensor,
    count: int,
) -> None:
    """Move running statistics in place: (1 - factor) old + factor new, with the unbiased variance."""
    for running, new in ((running_mean, mean), (running_var, var * (count / (count - 1)))):
        running.mul_(1 - factor).add_(new * factor)


def norm_act(
    x_BCHW: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: str,
    keep_bits: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return y in the dtype of x, and the bits if `keep_bits`."""
    z, _ = _before_activation(x_BCHW, mean, var, weight, bias, residual, eps)
    y = ACTIVATIONS[activation](z).to(x_BCHW.dtype)
    return y, _packed(_passes(z, activation)) if keep_bits else None


def norm_act_backward(
    g_BCHW: Tensor,
    x_BCHW: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    bits: Tensor | None,
    eps: float,
    activation: str,
    of_batch: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, the residual, the weight and the bias.

    Args:
        residual: None if there was none or if the bits stand for it.
        of_batch: whether mean and variance are those of x.
    """
    z, n = _before_activation(x_BCHW, mean, var, weight, bias, residual, eps)
    g = g_BCHW.to(z.dtype)
    if bits is not None:
        h = torch.where(_unpacked(bits, g), g, 0.0)
    elif activation in ("relu", "relu6"):
        h = torch.where(_passes(z, activation), g, 0.0)
    else:
        h = g * _slope(z, activation)
    grad_bias, grad_weight = h.sum((0, 2, 3)), (h * n).sum((0, 2, 3))
    grad_x = h
    if of_batch:
        count = x_BCHW.numel() // x_BCHW.shape[1]
        grad_x = h - _per_channel(grad_bias / count) - n * _per_channel(grad_weight / count)
    scale = torch.rsqrt(var + eps)
    scale = scale if weight is None else scale * weight.to(scale.dtype)
    return grad_x * _per_channel(scale), h, grad_weight, grad_bias


def _before_activation(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Return z and n."""
    dtype = working_dtype(x.dtype)
    mean, var = mean.to(dtype), var.to(dtype)
    n = (x.to(dtype) - _per_channel(mean)) * _per_channel(torch.rsqrt(var + eps))
    z = n if weight is None else n * _per_channel(weight.to(dtype))
    z = z if bias is None else z + _per_channel(bias.to(dtype))
    return (z if residual is None else z + residual.to(dtype)), n


def _per_channel(v_C: Tensor) -> Tensor:
    return v_C[:, None, None]


def _passes(z: Tensor, activation: str) -> Tensor:
    """Whether ReLU or ReLU6 pass the gradient; NaN passes."""
    blocked = z <= 0
    return ~(blocked | (z >= 6) if activation == "relu6" else blocked)


def _slope(z: Tensor, activation: str) -> Tensor:
    """Return act'(z)."""
    if activation == "hardswish":
        return torch.where(z < -3, 0.0, torch.where(z <= 3, z / 3 + 0.5, 1.0))
    if activation == "silu":
        s = torch.sigmoid(z)
        return s * (1 + z * (1 - s))
    return torch.ones_like(z)


def _packed(mask_BCHW: Tensor) -> Tensor:
    """Return the bits of a mask, one row of bytes per pixel: (B H W, ceil(C / 8))."""
    channels = mask_BCHW.shape[1]
    rows = mask_BCHW.permute(0, 2, 3, 1).reshape(-1, channels)
    rows = torch.nn.functional.pad(rows.to(torch.uint8), (0, -channels % BITS))
    places = torch.arange(BITS, device=rows.device, dtype=torch.uint8)
    return (rows.view(len(rows), -1, BITS) << places).sum(-1, dtype=torch.uint8)


def _unpacked(bits: Tensor, like_BCHW: Tensor) -> Tensor:
    """Return the mask of `_packed`."""
    B, C, H, W = like_BCHW.shape
    places = torch.arange(BITS, device=bits.device, dtype=torch.uint8)
    rows = (bits[:, :, None] >> places) & 1
    return rows.view(len(bits), -1)[:, :C].view(B, H, W, C).permute(0, 3, 1, 2).bool()
