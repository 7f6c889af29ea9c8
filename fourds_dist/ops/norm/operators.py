"""The public function `batch_norm_act` and the registered operators behind it.

    batch_statistics    mean and variance of each channel; updates the running statistics in place
    norm_act            normalisation, residual sum and activation; differentiable

`norm_act` takes mean and variance as inputs without gradient. Its backward pass adds the part of the gradient that
reaches x through them if they are those of the batch. The kernels read a map twice in the forward pass in training
(statistics, result), once otherwise, and twice in the backward pass (sums, gradient of x), once if neither the
statistics nor weight and bias depend on the gradient.

Autograd keeps x, the weight, the bias, and two numbers per channel, the mean and the variance. PyTorch keeps x, the
weight, two numbers per channel and the result of ReLU, ReLU6 (or the input of Hardswish, SiLU). After a residual sum,
ReLU and ReLU6 also keep one bit per value, Hardswish and SiLU the residual. A second derivative is refused.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fourds_dist.ops.backends import requested, warn_once, without_autocast
from fourds_dist.ops.norm import eager, fused, reference
from fourds_dist.ops.norm.eager import BITS
from fourds_dist.ops.operators import as_map, empty_map
from fourds_dist.ops.spectrum import working_dtype

BITS_SUFFICE = ("relu", "relu6")
NEEDS_RESIDUAL = ("hardswish", "silu")


def batch_norm_act(
    x_BCHW: Float[Tensor, "B C H W"],
    running_mean: Float[Tensor, " C"] | None,
    running_var: Float[Tensor, " C"] | None,
    weight: Float[Tensor, " C"] | None = None,
    bias: Float[Tensor, " C"] | None = None,
    *,
    residual: Tensor | None = None,
    activation: str = "none",
    training: bool = False,
    momentum: float | None = 0.1,
    num_batches: Tensor | None = None,
    eps: float = 1e-5,
    backend: str | None = None,
) -> Float[Tensor, "B C H W"]:
    """Return act(batch_norm(x) + residual), with the semantics of torch.nn.BatchNorm2d.

    Statistics are computed and stored in float32, in float64 for float64 maps.

    Args:
        running_mean, running_var: statistics that normalise outside training, and that training updates in place; None:
            no update.
        residual: summand of the shape of x; None: no sum.
        activation: a name of `ACTIVATIONS`.
        training: whether to normalise by the statistics of x, over batch, height and width.
        momentum: weight of the batch in the running statistics; None: their mean over all batches.
        num_batches: number of batches so far, which training increments in place; None: not counted.
        backend: `fused` (Triton kernels), `eager`, or `reference` (PyTorch's functions). Default: the kernels for maps
            in channels_last memory on an NVIDIA device in float32 or bfloat16, else PyTorch's functions.

    >>> x = torch.randn(4, 8, 7, 7) + 5
    >>> y = batch_norm_act(x, None, None, activation="relu", training=True)
    >>> bool(y.min() == 0), round(y.square().mean().item(), 1)
    (True, 0.5)

    Raises:
        ValueError: an unknown activation, no running statistics outside training, or one value per channel in training.
    """
    if activation not in reference.ACTIVATIONS:
        raise ValueError(
            f"unknown activation {activation!r}: choose one of {', '.join(reference.ACTIVATIONS)}"
        )
    if not training and (running_mean is None or running_var is None):
        raise ValueError(
            "batch_norm_act without training needs running_mean and running_var: pass both, or training=True"
        )
    if training and x_BCHW.numel() == x_BCHW.shape[1]:
        raise ValueError(
            f"batch_norm_act: x_BCHW of shape {tuple(x_BCHW.shape)} has one value per channel, whose variance is "
            "undefined: use a larger batch or larger maps, or training=False"
        )
    chosen = _backend(requested(backend), x_BCHW, residual)
    if chosen == "reference":
        return reference.batch_norm_act(
            *(x_BCHW, running_mean, running_var, weight, bias),
            residual=residual,
            activation=activation,
            training=training,
            momentum=momentum,
            num_batches=num_batches,
            eps=eps,
        )
    mean, var = running_mean, running_var
    if training:
        with torch.no_grad():
            mean, var = _batch_statistics(
                x_BCHW.detach(), running_mean, running_var, num_batches, momentum, chosen
            )
    assert mean is not None
    assert var is not None
    inputs = [t for t in (x_BCHW, weight, bias, residual) if t is not None]
    has_backward = torch.is_grad_enabled() and any(t.requires_grad for t in inputs)
    keeps_bits = has_backward and residual is not None and activation in BITS_SUFFICE
    return _norm_act(
        x_BCHW, mean, var, weight, bias, residual, eps, activation, training, keeps_bits, chosen
    )[0]


def _backend(name: str, x: Tensor, residual: Tensor | None) -> str:
    """Return the backend of a call; `reference` replaces one that does not support the call."""
    if name == "reference" or x.numel() == 0:
        return "reference"
    if residual is not None and (residual.shape != x.shape or residual.dtype != x.dtype):
        return "reference"  # PyTorch's rules of broadcasting and promotion
    if name == "eager":
        return "eager"
    reason = fused.why_not(x)
    if reason is None:
        return "fused"
    if name == "fused":
        warn_once(f"batch_norm_act runs by PyTorch's functions instead of the fused backend: {reason}")
    return "reference"


@torch.library.custom_op(
    "fourds::batch_statistics", mutates_args=("running_mean", "running_var", "num_batches")
)
def _batch_statistics(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches: Tensor | None,
    momentum: float | None,
    backend: str,
) -> tuple[Tensor, Tensor]:
    with without_autocast(x):
        if backend == "fused":
            return fused.batch_statistics(x, running_mean, running_var, num_batches, momentum)
        mean, var = eager.batch_statistics(x)
        if num_batches is not None:
            num_batches.add_(1)
        if running_mean is not None and running_var is not None:
            factor = momentum if momentum is not None else 0.0 if num_batches is None else 1.0 / num_batches
            eager.update_running_statistics(
                running_mean, running_var, mean, var, factor, x.numel() // x.shape[1]
            )
        return mean, var


@_batch_statistics.register_fake
def _(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches: Tensor | None,
    momentum: float | None,
    backend: str,
) -> tuple[Tensor, Tensor]:
    mean = x.new_empty(x.shape[1], dtype=working_dtype(x.dtype))
    return mean, torch.empty_like(mean)


@torch.library.custom_op("fourds::norm_act", mutates_args=())
def _norm_act(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: str,
    of_batch: bool,
    keeps_bits: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    with without_autocast(x):
        norm_act = fused.norm_act if backend == "fused" else eager.norm_act
        y, bits = norm_act(x, mean, var, weight, bias, residual, eps, activation, keeps_bits)
        return as_map(y, x), x.new_empty(0, dtype=torch.uint8) if bits is None else bits


@_norm_act.register_fake
def _(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: str,
    of_batch: bool,
    keeps_bits: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    B, C, H, W = x.shape
    shape = (B * H * W, (C + BITS - 1) // BITS) if keeps_bits else (0,)
    return empty_map(x), x.new_empty(shape, dtype=torch.uint8)


@torch.library.custom_op("fourds::norm_act_backward", mutates_args=())
def _norm_act_backward(
    g: Tensor,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    bits: Tensor | None,
    eps: float,
    activation: str,
    of_batch: bool,
    need_x: bool,
    need_residual: bool,
    need_affine: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    with without_autocast(x):
        known = (g, x, mean, var, weight, bias, residual, bits, eps, activation, of_batch)
        if backend == "fused":
            grads = fused.norm_act_backward(*known, need_x, need_residual, need_affine)
        else:
            grads = eager.norm_act_backward(*known)
    maps = [
        as_map(t, x) if needed and t is not None else g.new_empty(0)
        for t, needed in zip(grads[:2], (need_x, need_residual), strict=True)
    ]
    per_channel = [t if need_affine and t is not None else mean.new_empty(0) for t in grads[2:]]
    return maps[0], maps[1], per_channel[0], per_channel[1]


@_norm_act_backward.register_fake
def _(
    g: Tensor,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    bits: Tensor | None,
    eps: float,
    activation: str,
    of_batch: bool,
    need_x: bool,
    need_residual: bool,
    need_affine: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_x, grad_residual = (empty_map(x) if needed else g.new_empty(0) for needed in (need_x, need_residual))
    dtype = working_dtype(x.dtype)
    channels = x.shape[1] if need_affine else 0
    per_channel = (mean.new_empty(channels, dtype=dtype), mean.new_empty(channels, dtype=dtype))
    return grad_x, grad_residual, *per_channel


def _save(ctx, inputs, output) -> None:
    x, mean, var, weight, bias, residual, ctx.eps, ctx.activation, ctx.of_batch, keeps_bits, ctx.backend = (
        inputs
    )
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(
        *(x, mean, var, weight, bias),
        residual if ctx.activation in NEEDS_RESIDUAL else None,
        output[1] if keeps_bits else None,
    )


def _differentiate(ctx, g: Tensor, _):
    needs_x, _, _, needs_weight, needs_bias, needs_residual = ctx.needs_input_grad[:6]
    saved = ctx.saved_tensors  # read once: activation checkpointing allows no more
    weight, bias = saved[3:5]
    is_sum = ctx.activation == "none"  # then the gradient of the residual is g
    grad_x, grad_residual, grad_weight, grad_bias = _norm_act_backward(
        g,
        *saved,
        ctx.eps,
        ctx.activation,
        ctx.of_batch,
        needs_x,
        needs_residual and not is_sum,
        needs_weight or needs_bias,
        ctx.backend,
    )
    return (
        grad_x if needs_x else None,
        None,
        None,
        grad_weight.to(weight.dtype) if needs_weight else None,
        grad_bias.to(bias.dtype) if needs_bias else None,
        (g if is_sum else grad_residual) if needs_residual else None,
        *(None,) * 5,
    )


_norm_act.register_autograd(_differentiate, setup_context=_save)
