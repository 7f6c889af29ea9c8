"""The fused backend: launches of the Triton kernels in `kernels.py`.

The kernels serve float32 and bfloat16 maps in channels_last memory on NVIDIA devices; maps that are a permuted
(B, H, W, C) tensor are in that memory. Triton compiles a kernel for each number of channels, dtype and activation at
its first call, and keeps the machine code in its cache folder (TRITON_CACHE_DIR) for later processes.
"""

from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fourds_dist.ops.norm.eager import BITS

DTYPES = (torch.float32, torch.bfloat16)
LARGEST_ROWS = 2**30
MOST_PROGRAMS = 1024
"""Programs whose partial results one program of the merging kernels holds."""
MERGED_COLUMNS = 8

PLACES = {"statistics": 4096, "normalise": 2048, "sum_gradients": 2048, "input_gradient": 2048}
"""Elements of a tile. A thread holds 1/128 of them for each map and sum of the kernel, in registers."""
PROGRAMS_PER_PROCESSOR = {"statistics": 4, "normalise": 6, "sum_gradients": 6, "input_gradient": 8}
NUM_WARPS = 4


class Tiles(NamedTuple):
    """Division of a map among programs."""

    rows: int
    columns: int
    grid: tuple[int, int]


def why_not(x_BCHW: Tensor) -> str | None:
    """Return why the kernels do not support a map; None if they do."""
    if x_BCHW.dtype not in DTYPES:
        return f"the map is {x_BCHW.dtype}, the kernels support float32 and bfloat16"
    if x_BCHW.dim() != 4 or not x_BCHW.is_contiguous(memory_format=torch.channels_last):
        return "the map is not dense in channels_last memory"
    if x_BCHW.numel() // x_BCHW.shape[1] > LARGEST_ROWS:
        return f"the map has more than {LARGEST_ROWS} pixels"
    on_nvidia = x_BCHW.is_cuda and torch.version.hip is None
    if not (on_nvidia or is_interpreted()):
        return f"the map is on {x_BCHW.device}, the kernels need an NVIDIA device"
    return None if has_triton() else "Triton is not installed"


@cache
def has_triton() -> bool:
    """Whether Triton can be imported."""
    try:
        import_module("triton")
    except ImportError:
        return False
    return True


@cache
def is_interpreted() -> bool:
    """Whether Triton interprets kernels on the CPU (TRITON_INTERPRET=1)."""
    return has_triton() and bool(import_module("triton").knobs.runtime.interpret)


@cache
def kernels() -> ModuleType:
    """Return the module of the kernels; Triton is imported here, at the first call."""
    return import_module("fourds_dist.ops.norm.kernels")


def batch_statistics(
    x_BCHW: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches: Tensor | None,
    momentum: float | None,
) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance; update the running statistics and the number of batches in place."""
    num_rows, C = _matrix(x_BCHW)
    at = tiles("statistics", num_rows, C, x_BCHW.device)
    means, squares = (x_BCHW.new_empty(at.grid[0], C, dtype=torch.float32) for _ in range(2))
    mean, var = (x_BCHW.new_empty(C, dtype=torch.float32) for _ in range(2))
    is_cumulative = False
    if momentum is None and num_batches is not None:
        is_cumulative = True
        num_batches.add_(1)
    _launch("statistics", at.grid, x_BCHW, x_BCHW, means, squares, num_rows, C, at.rows, at.columns)
    _launch(
        "merge_statistics",
        (-(-C // MERGED_COLUMNS),),
        x_BCHW,
        *(x_BCHW, means, squares, mean, var, running_mean, running_var, num_batches, momentum or 0.0),
        *(num_rows, at.grid[0], C, at.rows, power_of_two(at.grid[0]), MERGED_COLUMNS, is_cumulative),
    )
    return mean, var


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
    """See `eager.norm_act`."""
    num_rows, C = _matrix(x_BCHW)
    at = tiles("normalise", num_rows, C, x_BCHW.device)
    y = _empty(x_BCHW)
    bits = x_BCHW.new_empty(num_rows, -(-C // BITS), dtype=torch.uint8) if keep_bits else None
    channel = (mean, var, weight, bias, eps, num_rows, C, at.rows, at.columns, activation)
    _launch("normalise", at.grid, x_BCHW, x_BCHW, _dense(residual), y, bits, *channel)
    return y, bits


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
    need_x: bool,
    need_residual: bool,
    need_affine: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Return the needed gradients of x, the residual, the weight and the bias; see `eager.norm_act_backward`.

    The first of two passes writes the gradient of the residual, h, which the second one reads instead of g.
    """
    num_rows, C = _matrix(x_BCHW)
    g, residual = _dense(g_BCHW.to(x_BCHW.dtype)), _dense(residual)
    assert g is not None
    channel = (mean, var, weight, bias)
    h = _empty(x_BCHW) if need_residual else None
    grad_weight = grad_bias = None
    if need_affine or (of_batch and need_x):
        at = tiles("sum_gradients", num_rows, C, x_BCHW.device)
        sums = [x_BCHW.new_empty(at.grid[0], C, dtype=torch.float32) for _ in range(2)]
        grad_weight, grad_bias = (x_BCHW.new_empty(C, dtype=torch.float32) for _ in range(2))
        shape = (num_rows, C, at.rows, at.columns, activation)
        _launch("sum_gradients", at.grid, x_BCHW, g, x_BCHW, residual, bits, h, *sums, *channel, eps, *shape)
        _launch(
            "merge_gradients",
            (-(-C // MERGED_COLUMNS),),
            x_BCHW,
            *(*sums, grad_weight, grad_bias, var, eps),
            *(at.grid[0], C, power_of_two(at.grid[0]), MERGED_COLUMNS),
        )
        if h is not None:
            g, residual, bits, activation = h, None, None, "none"
    grad_x = _empty(x_BCHW) if need_x else None
    writes_h = h is not None and g is not h
    if need_x or writes_h:
        at = tiles("input_gradient", num_rows, C, x_BCHW.device)
        _launch(
            "input_gradient",
            at.grid,
            x_BCHW,
            *(g, x_BCHW, residual, bits, grad_x, h if writes_h else None, *channel, grad_weight, grad_bias),
            *(eps, num_rows, C, at.rows, at.columns, activation, of_batch),
        )
    return grad_x, h, grad_weight, grad_bias


def tiles(kernel: str, num_rows: int, num_columns: int, device: torch.device) -> Tiles:
    """Return the tiles and the grid, (programs over rows, blocks of columns), of a kernel."""
    columns = tile_columns(num_columns)
    rows = PLACES[kernel] // columns
    blocks = -(-num_columns // columns)
    programs = max(1, PROGRAMS_PER_PROCESSOR[kernel] * num_processors(device) // blocks)
    return Tiles(rows, columns, (min(-(-num_rows // rows), programs, MOST_PROGRAMS), blocks))


def tile_columns(num_columns: int) -> int:
    """Return the largest power of two from 8 to 128 of whose multiples num_columns fills at least three quarters."""
    fitting = (n for n in (128, 64, 32, 16) if 4 * num_columns >= 3 * n * -(-num_columns // n))
    return next(fitting, 8)


@cache
def num_processors(device: torch.device) -> int:
    """Return the number of streaming multiprocessors; 2 for the interpreter."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def power_of_two(n: int) -> int:
    """Return the smallest power of two that is at least n."""
    return 1 << (n - 1).bit_length()


def _matrix(x: Tensor) -> tuple[int, int]:
    """Return the numbers of rows and columns of a map in channels_last memory."""
    return x.numel() // x.shape[1], x.shape[1]


def _dense(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous(memory_format=torch.channels_last)


def _empty(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


def _launch(name: str, grid: tuple[int, ...], like: Tensor, *arguments: Any) -> None:
    kernel = getattr(kernels(), name)
    if not like.is_cuda:
        kernel[grid](*arguments)
        return
    with torch.cuda.device(like.device):
        kernel[grid](*arguments, num_warps=NUM_WARPS, enable_fp_fusion=True)
