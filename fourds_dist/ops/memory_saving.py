"""Layers that store less for the backward pass than PyTorch's, with equal results and gradients.

    relu_max_pool     stores one byte per output, the position of the maximum in its window; PyTorch stores the input
                      and eight bytes. max(ReLU(x)) = ReLU(max(x)), so the kernel includes a ReLU before the pool
    relu_             stores one bit per element; PyTorch stores the result
    frozen_conv2d     stores only the weight; PyTorch also stores the input, which only the weight's gradient needs

The first two are CUDA kernels for dense maps in float32 and bfloat16 (pooling: in channels_last memory). Other tensors
use PyTorch's functions, and so does torch.compile, which has similar savings. Numbers below 2^-126 count as zero.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fourds_dist.ops import nvrtc
from fourds_dist.ops.backends import warn_once
from fourds_dist.ops.fused import ALIGNMENT_BYTES, SOURCES, STORED, is_channels_last

NUM_THREADS = 256
NUMBERS_OF_A_BYTE = 8
MAX_PLACES = 255  # positions in a window; the last value of a byte means that the ReLU blocks the gradient
MAX_ELEMENTS = 2**31 - 1


class Window(NamedTuple):
    """Compile-time parameters of a pooling kernel; pairs are (rows, columns)."""

    channels: int
    size: tuple[int, int]
    out_size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    relu: bool
    keeps_places: bool


def relu_max_pool(
    x_BCHW: Float[Tensor, "B C H W"],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    *,
    relu: bool = True,
    ceil_mode: bool = False,
) -> Float[Tensor, "B C U V"]:
    """Apply max_pool2d without dilation, and a ReLU; both commute.

    Args:
        kernel, stride, padding, ceil_mode: as in torch.nn.MaxPool2d, for rows and columns.
        relu: False: no ReLU.
    """
    if _can_pool(x_BCHW, kernel):
        rows, columns = (
            _pooled(x_BCHW.shape[axis + 2], kernel[axis], stride[axis], padding[axis], ceil_mode)
            for axis in (0, 1)
        )
        size = (x_BCHW.shape[2], x_BCHW.shape[3])
        keeps = torch.is_grad_enabled() and x_BCHW.requires_grad
        window = Window(x_BCHW.shape[1], size, (rows, columns), kernel, stride, padding, relu, keeps)
        if _is_built(pool_source(window, x_BCHW.dtype), POOL_KERNELS, x_BCHW):
            return _MaxPool.apply(x_BCHW, window)  # pyright: ignore[reportReturnType]
    pooled = F.max_pool2d(x_BCHW, kernel, stride, padding, ceil_mode=ceil_mode)
    return F.relu(pooled) if relu else pooled


def relu_(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Apply a ReLU in place."""
    if (
        not torch.compiler.is_compiling()
        and torch.is_grad_enabled()
        and x.requires_grad
        and not x._is_view()
        and x.numel() % NUMBERS_OF_A_BYTE == 0
        and _is_dense(x)
        and _is_served(x)
        and _is_built(relu_source(x.dtype), RELU_KERNELS, x)
    ):
        return _Relu.apply(x)  # pyright: ignore[reportReturnType]
    return F.relu_(x)


def frozen_conv2d(
    x_BCHW: Float[Tensor, "B C H W"],
    weight: Float[Tensor, "D _C K L"],
    bias: Float[Tensor, " D"] | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Float[Tensor, "B D _U _V"]:
    """Apply conv2d with frozen weight and bias; autocast applies as to conv2d."""
    learns = weight.requires_grad or (bias is not None and bias.requires_grad)
    needs_grad = torch.is_grad_enabled() and x_BCHW.requires_grad
    if learns or not needs_grad or torch.compiler.is_compiling():
        return F.conv2d(x_BCHW, weight, bias, stride, padding, dilation, groups)
    device = x_BCHW.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x_BCHW, weight = x_BCHW.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    return _FrozenConvolution.apply(x_BCHW, weight, bias, stride, padding, dilation, groups)  # pyright: ignore


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, window: Window) -> Tensor:
        shape = (x.shape[0], window.channels, *window.out_size)
        pooled = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        places = pooled.new_empty(pooled.numel() if window.keeps_places else 1, dtype=torch.uint8)
        count = pooled.numel() * x.element_size() // ALIGNMENT_BYTES
        launch(pool_source(window, x.dtype), POOL_KERNELS, "max_pool", count, x, pooled, places)
        ctx.window, ctx.shape = window, x.shape
        ctx.save_for_backward(places)
        return pooled

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (places,) = ctx.saved_tensors
        g = _aligned(g.contiguous(memory_format=torch.channels_last))
        grad = torch.empty(ctx.shape, dtype=g.dtype, device=g.device, memory_format=torch.channels_last)
        count = grad.numel() * g.element_size() // ALIGNMENT_BYTES
        launch(pool_source(ctx.window, g.dtype), POOL_KERNELS, "max_pool_backward", count, g, places, grad)
        return grad, None


class _Relu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        count = x.numel() // NUMBERS_OF_A_BYTE
        bits = torch.empty(count, dtype=torch.uint8, device=x.device)
        launch(relu_source(x.dtype), RELU_KERNELS, "relu", count, x, bits)
        torch.autograd.graph.increment_version(x)
        ctx.mark_dirty(x)
        ctx.strides = x.stride()
        ctx.save_for_backward(bits)
        return x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (bits,) = ctx.saved_tensors
        if g.stride() != ctx.strides or g.data_ptr() % ALIGNMENT_BYTES:
            g = torch.empty_strided(g.shape, ctx.strides, dtype=g.dtype, device=g.device).copy_(g)
        grad = torch.empty_strided(g.shape, ctx.strides, dtype=g.dtype, device=g.device)
        launch(relu_source(g.dtype), RELU_KERNELS, "relu_backward", bits.numel(), g, bits, grad)
        return grad


class _FrozenConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> Tensor:
        ctx.settings, ctx.shape = settings, x.shape
        ctx.memory_format = torch.channels_last if is_channels_last(x) else torch.contiguous_format
        ctx.save_for_backward(weight)
        return F.conv2d(x, weight, bias, *settings)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple:  # pyright: ignore[reportIncompatibleMethodOverride]
        (weight,) = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.settings
        # Only the shape and memory format of like_x are used.
        like_x = torch.empty(ctx.shape, dtype=g.dtype, device=g.device, memory_format=ctx.memory_format)
        grad, _, _ = torch.ops.aten.convolution_backward(
            g, like_x, weight, None, stride, padding, dilation, False, (0, 0), groups, (True, False, False)
        )
        return grad, *(None,) * 6


def _can_pool(x_BCHW: Tensor, kernel: tuple[int, int]) -> bool:
    return (
        not torch.compiler.is_compiling()
        and x_BCHW.dim() == 4
        and is_channels_last(x_BCHW)
        and x_BCHW.shape[1] * x_BCHW.element_size() % ALIGNMENT_BYTES == 0
        and kernel[0] * kernel[1] <= MAX_PLACES
        and _is_served(x_BCHW)
    )


def _is_served(x: Tensor) -> bool:
    return (
        on_nvidia(x)
        and x.dtype in STORED
        and 0 < x.numel() <= MAX_ELEMENTS
        and x.data_ptr() % ALIGNMENT_BYTES == 0
    )


def on_nvidia(x: Tensor) -> bool:
    """Whether kernels can be compiled for the tensor's device."""
    return x.is_cuda and torch.version.hip is None


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or (x.dim() == 4 and is_channels_last(x))


def _aligned(x: Tensor) -> Tensor:
    return x if x.data_ptr() % ALIGNMENT_BYTES == 0 else x.clone()


def _pooled(size: int, kernel: int, stride: int, padding: int, ceil_mode: bool) -> int:
    """Return the output size along an axis, without a last window that starts beyond the map and its left padding."""
    room = size + 2 * padding - kernel
    num = (-(-room // stride) if ceil_mode else room // stride) + 1
    return num - 1 if ceil_mode and (num - 1) * stride >= size + padding else num


POOL_KERNELS, RELU_KERNELS = ("max_pool", "max_pool_backward"), ("relu", "relu_backward")


@lru_cache(maxsize=256)
def pool_source(window: Window, dtype: torch.dtype, num_threads: int = NUM_THREADS) -> str:
    """Return the CUDA source of the pooling kernels for one window."""
    constants = {"CHANNELS": window.channels}
    constants |= dict(zip(("HEIGHT", "WIDTH"), window.size, strict=True))
    constants |= dict(zip(("OUT_HEIGHT", "OUT_WIDTH"), window.out_size, strict=True))
    for name, pair in (("KERNEL", window.kernel), ("STRIDE", window.stride), ("PADDING", window.padding)):
        constants |= {f"{name}_ROWS": pair[0], f"{name}_COLUMNS": pair[1]}
    constants |= {"RELU": int(window.relu), "KEEPS_PLACES": int(window.keeps_places)}
    return _source("max_pool.cu", dtype, num_threads, constants)


@lru_cache(maxsize=8)
def relu_source(dtype: torch.dtype, num_threads: int = NUM_THREADS) -> str:
    """Return the CUDA source of the ReLU kernels."""
    return _source("relu.cu", dtype, num_threads, {})


def _source(file: str, dtype: torch.dtype, num_threads: int, constants: dict[str, int]) -> str:
    return "\n".join(
        [
            *(f"constexpr int {name} = {value};" for name, value in constants.items()),
            f"constexpr int THREADS = {num_threads};",
            (SOURCES / "storage.cuh").read_text(encoding="utf-8"),
            f"typedef {STORED[dtype]} stored;",
            *((SOURCES / name).read_text(encoding="utf-8") for name in ("words.cuh", file)),
        ]
    )


def launch(source: str, names: tuple[str, ...], name: str, count: int, *tensors: Tensor) -> None:
    """Launch a kernel of the source with `count` threads."""
    device = tensors[0].device
    with torch.cuda.device(device):
        _build(source, names, device.index)[name](-(-count // NUM_THREADS), *tensors, count)


@lru_cache(maxsize=256)
def _build(source: str, names: tuple[str, ...], device_index: int) -> dict[str, nvrtc.Kernel]:
    with torch.cuda.device(device_index):
        return nvrtc.load(source, {name: nvrtc.Block(NUM_THREADS, shared_percent=0) for name in names})


def _is_built(source: str, names: tuple[str, ...], like: Tensor) -> bool:
    error = build_error(source, names, like.device.index)
    if error:
        warn_once(f"{names[0]} runs without memory saving, by PyTorch: {error}")
    return error is None


@lru_cache(maxsize=256)
def build_error(source: str, names: tuple[str, ...], device_index: int) -> str | None:
    """Return the error of the kernels' build, or None."""
    try:
        _build(source, names, device_index)
    except RuntimeError as error:
        return str(error)
    return None
