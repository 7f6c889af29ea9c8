"""The fused backend: one CUDA kernel per forward and backward pass, with spectra on the chip only.

The kernels (`cuda/`) read each input once and write each result once. They support square maps of an even size up to 64
(`cuda/even`: a warp processes maps line by line) and of an odd size up to 7 (`cuda/odd`: one map per lane), in float32
and bfloat16 (float16 is converted to float32). `pooled_phase` needs cells that divide the map. All arithmetic is
float32.

The first call compiles a kernel for its size, dtype and device, which takes some seconds at 56x56.
"""

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from fourds_dist.ops import nvrtc

LARGEST_EVEN, LARGEST_ODD = 64, 7
STORED = {torch.float32: "float", torch.bfloat16: "bfloat16"}
SOURCES = Path(__file__).parent / "cuda"
LANES = 32
PAIR_FROM = 28  # smallest even size with two warps per block in the backward of fourier_mix
TILE, VECTOR = 64, 8  # of the transposition
TRANSPOSITIONS = ("transpose", "transpose_vectors")
ALIGNMENT_BYTES = 16
BLOCK_CHANNELS = {
    "fourier_mix": {14: 16, 28: 16},
    "fourier_mix_backward": {14: 16, 28: 8},
    "pooled_phase": {14: 16, 28: 8},
    "pooled_phase_backward": {14: 16, 28: 8},
    "phase_distance": {14: 16, 28: 16},
    "phase_distance_backward": {14: 16, 28: 8},
}
"""Channels of a block that reads bfloat16 maps in channels_last memory directly, by kernel and size of the maps. Other
maps of even sizes in channels_last memory are transposed before and after."""


def why_not(operator: str, x_BCHW: Tensor, cells: tuple[int, int] = (1, 1)) -> str | None:
    """Return why the kernels of `operator` do not support maps like `x_BCHW`; None if they do."""
    height, width = x_BCHW.shape[-2:]
    if not x_BCHW.is_cuda or torch.version.hip is not None:
        return f"the tensors are on {x_BCHW.device}, the kernels need an NVIDIA device"
    if x_BCHW.dtype == torch.float64:
        return "the kernels compute in float32, the tensors are float64"
    if height != width or height > (LARGEST_ODD if height % 2 else LARGEST_EVEN):
        return (
            f"there is no kernel for {height}x{width} maps, only for square ones of an even size "
            f"up to {LARGEST_EVEN} or an odd size up to {LARGEST_ODD}"
        )
    if height % cells[0] or width % cells[1]:
        return f"{cells[0]}x{cells[1]} cells do not divide a {height}x{width} map"
    return build_error(operator, height, stored_dtype(x_BCHW.dtype), cells, x_BCHW.device.index)


def fourier_mix(h_BCHW: Tensor, a_BCHW: Tensor, mix_2: Tensor) -> Tensor:
    """See `eager.fourier_mix`."""
    h, a = (stored("fourier_mix", x, h_BCHW) for x in (h_BCHW, a_BCHW))
    out = torch.empty_like(h)
    launch("fourier_mix", "fourier_mix", h, h, a, mix_2.float().contiguous(), out)
    return laid_out(out, h_BCHW)


def fourier_mix_backward(
    g_BCHW: Tensor, h_BCHW: Tensor, a_BCHW: Tensor, mix_2: Tensor, need_h: bool, need_a: bool, need_mix: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """See `eager.fourier_mix_backward`. The gradient of the weights is the sum of one partial sum per block."""
    h, a, g = (stored("fourier_mix_backward", x, h_BCHW) for x in (h_BCHW, a_BCHW, g_BCHW))
    grad_h = torch.empty_like(h) if need_h else None
    grad_a = torch.empty_like(a) if need_a else None
    partial_sums = torch.empty(
        num_blocks(h, block_channels("fourier_mix_backward", h)), 2, dtype=torch.float32, device=h.device
    )
    launch(
        *("fourier_mix", "fourier_mix_backward", h),
        *(g, h, a, mix_2.float().contiguous()),
        *(h if grad_h is None else grad_h, a if grad_a is None else grad_a, partial_sums),
        flags=(need_h, need_a),
    )
    return (
        None if grad_h is None else laid_out(grad_h, h_BCHW),
        None if grad_a is None else laid_out(grad_a, a_BCHW),
        partial_sums.sum(0) if need_mix else None,
    )


def pooled_phase(h_BCHW: Tensor, output_size: tuple[int, int]) -> Tensor:
    """See `eager.pooled_phase`."""
    h = stored("pooled_phase", h_BCHW, h_BCHW)
    pooled = torch.empty(*h.shape[:2], *output_size, dtype=torch.float32, device=h.device)
    launch("pooled_phase", "pooled_phase", h, h, pooled, cells=output_size)
    return pooled


def pooled_phase_backward(g_BCUV: Tensor, h_BCHW: Tensor) -> Tensor:
    """See `eager.pooled_phase_backward`."""
    h, g = stored("pooled_phase_backward", h_BCHW, h_BCHW), g_BCUV.float().contiguous()
    grad_h = torch.empty_like(h)
    launch("pooled_phase", "pooled_phase_backward", h, g, h, grad_h, cells=(g.shape[2], g.shape[3]))
    return laid_out(grad_h, h_BCHW)


def phase_distance(h_student_BCHW: Tensor, h_teacher_BCHW: Tensor) -> Tensor:
    """See `eager.phase_distance`."""
    student, teacher = (stored("phase_distance", x, h_student_BCHW) for x in (h_student_BCHW, h_teacher_BCHW))
    distance = torch.empty(student.shape[:2], dtype=torch.float32, device=student.device)
    launch("phase_distance", "phase_distance", student, student, teacher, distance)
    return distance


def phase_distance_backward(g_BC: Tensor, h_student_BCHW: Tensor, h_teacher_BCHW: Tensor) -> Tensor:
    """See `eager.phase_distance_backward`."""
    student, teacher = (
        stored("phase_distance_backward", x, h_student_BCHW) for x in (h_student_BCHW, h_teacher_BCHW)
    )
    grad_student = torch.empty_like(student)
    g = g_BC.float().contiguous()
    launch("phase_distance", "phase_distance_backward", student, g, student, teacher, grad_student)
    return laid_out(grad_student, h_student_BCHW)


def stored_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which the kernels read and write maps of `dtype`."""
    return dtype if dtype in STORED else torch.float32


def block_channels(kernel: str, x_BCHW: Tensor) -> int:
    """Return the channels of a block, for a kernel that reads maps like `x_BCHW` from channels_last memory; 0: the maps
    are in planes, and a block has those of one warp."""
    if x_BCHW.dtype != torch.bfloat16 or not is_channels_last(x_BCHW):
        return 0
    return _block_channels(kernel, x_BCHW.shape[-1], x_BCHW.shape[1], x_BCHW.device)


@lru_cache(maxsize=1024)
def _block_channels(kernel: str, size: int, num_channels: int, device: torch.device) -> int:
    channels = BLOCK_CHANNELS[kernel].get(size, 0)
    if not channels or num_channels % channels:
        return 0
    block = blocks(kernel.removesuffix("_backward"), size, channels)[kernel]
    return channels if block.shared_bytes <= shared_bytes(device) else 0


def shared_bytes(device: torch.device) -> int:
    """Return the largest shared memory of a block on a GPU, in bytes."""
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin


def stored(kernel: str, x_BCHW: Tensor, like_BCHW: Tensor) -> Tensor:
    """Return `x_BCHW` in the form that a kernel for maps like `like_BCHW` reads: dtype, dense, aligned address.

    Kernels for odd sizes, and those of BLOCK_CHANNELS, also read channels_last maps; for others those maps are
    transposed to planes.
    """
    x = x_BCHW.to(stored_dtype(like_BCHW.dtype))
    if block_channels(kernel, like_BCHW) or (x.shape[-1] % 2 and is_channels_last(like_BCHW)):
        return _aligned(x.contiguous(memory_format=torch.channels_last))
    if is_channels_last(x) and x.shape[1] % 2 == 0:
        planes = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        return transposed(x, planes, x.shape[2] * x.shape[3], x.shape[1])
    return _aligned(x.contiguous())


def _aligned(x: Tensor) -> Tensor:
    return x if x.data_ptr() % ALIGNMENT_BYTES == 0 else x.clone()


def laid_out(x_BCHW: Tensor, like_BCHW: Tensor) -> Tensor:
    """Return a kernel's result in the memory format of `like_BCHW`, if a transposition is possible."""
    if not is_channels_last(like_BCHW) or is_channels_last(x_BCHW) or x_BCHW.shape[1] % 2:
        return x_BCHW
    pixels = torch.empty_like(x_BCHW, memory_format=torch.channels_last)
    return transposed(x_BCHW, pixels, x_BCHW.shape[1], x_BCHW.shape[2] * x_BCHW.shape[3])


def is_channels_last(x_BCHW: Tensor) -> bool:
    """Whether the maps are in channels_last memory and not contiguous too."""
    return not x_BCHW.is_contiguous() and x_BCHW.is_contiguous(memory_format=torch.channels_last)


def transposed(x_BCHW: Tensor, into_BCHW: Tensor, num_rows: int, num_columns: int) -> Tensor:
    """Write to `into_BCHW` the transposes of the num_rows x num_columns matrices, one per image, of `x_BCHW`."""
    tiles = -(-num_rows // TILE) * -(-num_columns // TILE)
    has_vectors = x_BCHW.dtype == torch.bfloat16 and num_rows % VECTOR == num_columns % VECTOR == 0
    is_aligned = all(x.data_ptr() % ALIGNMENT_BYTES == 0 for x in (x_BCHW, into_BCHW))
    operator = "transpose_vectors" if has_vectors and is_aligned else "transpose"
    with torch.cuda.device(x_BCHW.device):
        kernel = build(operator, "transpose", 1, x_BCHW.dtype, (1, 1), x_BCHW.device.index)
        kernel(x_BCHW.shape[0] * tiles, x_BCHW, into_BCHW, num_rows, num_columns)
    return into_BCHW


def maps_per_warp(size: int) -> int:
    """Return the number of maps per warp: one per lane (odd sizes), or one per size / 2 lanes (even sizes)."""
    return LANES if size % 2 else LANES // (size // 2)


def num_blocks(x_BCHW: Tensor, channels: int) -> int:
    """Return the number of blocks for all maps; the warps of a block share its maps.

    Args:
        channels: see `block_channels`.
    """
    num_maps = x_BCHW.shape[0] * x_BCHW.shape[1]
    return -(-num_maps // (channels or maps_per_warp(x_BCHW.shape[-1])))


def launch(
    operator: str,
    name: str,
    like_BCHW: Tensor,
    *tensors: Tensor,
    flags: tuple[bool, ...] = (),
    cells: tuple[int, int] = (1, 1),
) -> None:
    """Launch kernel `name` of `operator` for the maps of `like_BCHW`, unless the batch is empty."""
    if like_BCHW.numel() == 0:
        return
    num_maps, size = like_BCHW.shape[0] * like_BCHW.shape[1], like_BCHW.shape[-1]
    channels, is_last = block_channels(name, like_BCHW), is_channels_last(like_BCHW)
    with torch.cuda.device(like_BCHW.device):
        kernel = build(operator, name, size, like_BCHW.dtype, cells, like_BCHW.device.index, channels)
        layout = like_BCHW.shape[1] * is_last
        kernel(num_blocks(like_BCHW, channels), *tensors, num_maps, *(int(flag) for flag in flags), layout)


@lru_cache(maxsize=256)
def build(
    operator: str,
    name: str,
    size: int,
    dtype: torch.dtype,
    cells: tuple[int, int],
    device_index: int,
    channels: int = 0,
) -> nvrtc.Kernel:
    """Return kernel `name` of `operator` for one size, dtype, device and number of channels (`block_channels`).

    The other kernel of the source is not loaded: with these channels its block may not fit into shared memory.
    """
    block = blocks(operator, size, channels)[name]
    with torch.cuda.device(device_index):
        return nvrtc.load(source(operator, size, dtype, cells, channels), {name: block})[name]


@lru_cache(maxsize=256)
def build_error(
    operator: str, size: int, dtype: torch.dtype, cells: tuple[int, int], device_index: int
) -> str | None:
    """Return the error of `build`, or None."""
    try:
        for name in blocks(operator, size):
            build(operator, name, size, dtype, cells, device_index)
    except RuntimeError as error:
        return str(error)
    return None


def source(operator: str, size: int, dtype: torch.dtype, cells: tuple[int, int], channels: int = 0) -> str:
    """Return the CUDA source of an operator's kernels for one size: constants, then the files in the order of use."""
    if operator in TRANSPOSITIONS:
        files = [f"{operator}.cu"]
    elif size % 2:
        files = ["dft.cuh", "bins.cuh", "odd/maps.cuh", f"odd/{operator}.cu"]
    else:
        files = ["dft.cuh", "bins.cuh", "even/lines.cuh", f"even/{operator}.cu"]
    return "\n".join(
        [
            f"constexpr int N = {size}, U = {cells[0]}, V = {cells[1]};",
            f"constexpr int SPECTRUM_SCALE = {1 if size % 2 else 2}, PAIR_FROM = {PAIR_FROM};",
            f"constexpr int CHANNELS = {channels};",
            (SOURCES / "storage.cuh").read_text(encoding="utf-8"),
            f"typedef {STORED[dtype]} stored;",
            *((SOURCES / name).read_text(encoding="utf-8") for name in files),
        ]
    )


def blocks(operator: str, size: int, channels: int = 0) -> dict[str, nvrtc.Block]:
    """Return the blocks of the kernels, with shared memory for the maps of their warps and intermediate results.

    Args:
        channels: see `block_channels`.
    """
    if operator in TRANSPOSITIONS:
        return {"transpose": nvrtc.Block(256)}
    row = 4 * LANES
    if size % 2:
        plane = row * size * size
        planes = {"fourier_mix": (2, 2), "pooled_phase": (1, 2), "phase_distance": (2, 2)}[operator]
        extra = (0, 0)
    else:
        plane = 16 * maps_per_warp(size) * (size // 2) * (size // 2 | 1)
        planes = {"fourier_mix": (1, 3), "pooled_phase": (1, 1), "phase_distance": (2, 2)}[operator]
        amplitudes = plane // 2 + 8 * maps_per_warp(size) * size  # of a; row 0 of its spectrum
        extra = {"fourier_mix": (amplitudes, 0), "phase_distance": (row, row)}.get(operator, (0, 0))
    forward, backward = (
        max(2 * row, count * plane + more) for count, more in zip(planes, extra, strict=True)
    )
    num_warps = 2 if operator == "fourier_mix" and size % 2 == 0 and size >= PAIR_FROM else 1
    groups = channels // maps_per_warp(size) if channels else 1
    return {
        operator: nvrtc.Block(LANES * groups, forward * groups),
        f"{operator}_backward": nvrtc.Block(LANES * num_warps * groups, backward * groups),
    }
