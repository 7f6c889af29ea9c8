"""The CUDA kernels' arithmetic without a GPU: compiled as C++ and run on threads, against the half spectrum."""

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fourds_dist.ops import eager, fused, nvrtc
from tests.ops.inputs import draw_maps, relative

HEADER = Path(__file__).parent / "emulation.hpp"
OPERATORS = ("fourier_mix", "pooled_phase", "phase_distance")
SIZES = [7, 14, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3, 5, 6, 8, 16, 28, 32, 56, 64))]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


class Emulated:
    """An operator's two kernels for one size, as functions that take tensors and integers."""

    def __init__(
        self,
        operator: str,
        size: int,
        cells: tuple[int, int],
        folder: Path,
        dtype=torch.float32,
        block_channels: int = 0,
    ) -> None:
        self.blocks, self.block_channels = fused.blocks(operator, size, block_channels), block_channels
        calls = "\n".join(
            f'extern "C" void run_{name}(int num_blocks, int num_threads, void** x, int* n) '
            f"{{ launch({name}, num_blocks, num_threads, {self.parameters(name)}); }}"
            for name in self.blocks
        )
        source = folder / f"{operator}{size}{dtype}.cpp"
        kernels = fused.source(operator, size, dtype, cells, block_channels)
        kernels = kernels.replace("    __shared__ ", "    static ")  # one array for all threads
        source.write_text(f'#include "{HEADER}"\n{kernels}\n{calls}\n')
        library = source.with_suffix(".so")
        command = [
            "g++",
            "-std=c++20",
            "-O1",
            "-shared",
            "-fPIC",
            "-w",
            "-pthread",
            "-o",
            str(library),
            str(source),
        ]
        subprocess.run(command, check=True)
        self.library = ctypes.CDLL(str(library))

    def parameters(self, name: str) -> str:
        """The kernel's arguments, in its order: tensors, then integers, of which the layout is the last."""
        stored, real = "(stored*)", "(float*)"
        kinds = {
            "transpose": [stored, stored],
            "fourier_mix": [stored, stored, real, stored],
            "fourier_mix_backward": [stored, stored, stored, real, stored, stored, real],
            "pooled_phase": [stored, real],
            "pooled_phase_backward": [real, stored, stored],
            "phase_distance": [stored, stored, real],
            "phase_distance_backward": [real, stored, stored, stored],
        }[name]
        num_integers = 4 if name == "fourier_mix_backward" else 2
        return ", ".join(
            [*(f"{kind}x[{i}]" for i, kind in enumerate(kinds)), *(f"n[{i}]" for i in range(num_integers))]
        )

    def __call__(
        self, name: str, like: Tensor, *tensors: Tensor, flags: tuple[int, ...] = (), channels: int = 0
    ) -> None:
        integers = (like.shape[0] * like.shape[1], *flags, channels)
        self.run(name, fused.num_blocks(like, self.block_channels), tensors, integers)

    def run(self, name: str, num_blocks: int, tensors: Sequence[Tensor], integers: Sequence[int]) -> None:
        pointers = (ctypes.c_void_p * len(tensors))(*(x.data_ptr() for x in tensors))
        numbers = (ctypes.c_int * len(integers))(*integers)
        getattr(self.library, f"run_{name}")(num_blocks, self.blocks[name].num_threads, pointers, numbers)


def cells_of(size: int) -> tuple[int, int]:
    return (7, 7) if size % 7 == 0 else (size // 2, size) if size % 2 == 0 else (size, 1)


MIX = torch.tensor([0.3, 0.7])


def check_fourier_mix(
    kernels: Emulated, h: Tensor, a: Tensor, g: Tensor, bounds: tuple[float, ...], channels: int = 0
) -> tuple[Tensor | None, ...]:
    """Compare the result and the gradients with float64; return the expected gradients.

    Args:
        bounds: of the relative errors of the result and of the gradients of h, a and the weights.
        channels: of maps in channels_last memory; 0: planes.
    """
    out, grad_h, grad_a = (torch.full_like(h, torch.nan) for _ in range(3))
    sums = torch.full((fused.num_blocks(h, kernels.block_channels), 2), torch.nan)
    kernels("fourier_mix", h, h, a, MIX, out, channels=channels)
    kernels("fourier_mix_backward", h, g, h, a, MIX, grad_h, grad_a, sums, flags=(1, 1), channels=channels)
    exact = [x.double() for x in (g, h, a, MIX)]
    assert relative(out, eager.fourier_mix(*exact[1:])) < bounds[0]
    expected = eager.fourier_mix_backward(*exact, need_h=True, need_a=True, need_mix=True)
    for x, y, bound in zip((grad_h, grad_a, sums.sum(0)), expected, bounds[1:], strict=True):
        assert y is not None
        assert relative(x, y) < bound
    return expected


@pytest.mark.parametrize("size", SIZES)
def test_fourier_mix(size: int, tmp_path: Path) -> None:
    h, a, g = draw_maps((2, 5, size, size), torch.float32, seed=size)
    check_fourier_mix(Emulated("fourier_mix", size, (1, 1), tmp_path), h, a, g, (1e-5, 5e-3, 1e-4, 1e-4))


@pytest.mark.parametrize("size", SIZES)
def test_pooled_phase(size: int, tmp_path: Path) -> None:
    h, _, _ = draw_maps((2, 5, size, size), torch.float32, seed=size)
    cells = cells_of(size)
    kernels = Emulated("pooled_phase", size, cells, tmp_path)
    pooled, grad = torch.full((2, 5, *cells), torch.nan), torch.full_like(h, torch.nan)
    g = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1))
    kernels("pooled_phase", h, h, pooled)
    kernels("pooled_phase_backward", h, g, h, grad)
    assert float((pooled - eager.pooled_phase(h.double(), cells)).abs().max()) < 1e-4
    assert relative(grad, eager.pooled_phase_backward(g.double(), h.double())) < 5e-3


@pytest.mark.parametrize("size", SIZES)
def test_phase_distance(size: int, tmp_path: Path) -> None:
    student, teacher, _ = draw_maps((2, 5, size, size), torch.float32, seed=size)
    teacher[:, 1] = 1.3
    kernels = Emulated("phase_distance", size, (1, 1), tmp_path)
    distance, grad = torch.full((2, 5), torch.nan), torch.full_like(student, torch.nan)
    g = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    kernels("phase_distance", student, student, teacher, distance)
    kernels("phase_distance_backward", student, g, student, teacher, grad)
    assert relative(distance, eager.phase_distance(student.double(), teacher.double())) < 1e-5
    expected = eager.phase_distance_backward(g.double(), student.double(), teacher.double())
    assert relative(grad, expected) < 5e-3
    assert not grad[:, 1].any()


@pytest.mark.parametrize("size", [7])
def test_bfloat16_pixel_by_pixel(size: int, tmp_path: Path) -> None:
    h, a, _ = draw_maps((2, 24, size, size), torch.bfloat16)
    h, a = (x.contiguous(memory_format=torch.channels_last) for x in (h, a))
    out = torch.full_like(h, torch.nan)
    Emulated("fourier_mix", size, (1, 1), tmp_path, torch.bfloat16)(
        "fourier_mix", h, h, a, MIX, out, channels=24
    )
    assert relative(out, eager.fourier_mix(h.double(), a.double(), MIX.double())) < 4e-3


DIRECT = [(14, 16), *(pytest.param(*n, marks=pytest.mark.slow) for n in ((14, 8), (28, 8), (56, 4)))]
"""Sizes of maps, and channels of a block that reads them in channels_last memory."""


def last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("size", "block_channels"), DIRECT)
def test_fourier_mix_of_maps_in_channels_last_memory(size: int, block_channels: int, tmp_path: Path) -> None:
    h, a, g = (last(x) for x in draw_maps((2, 32, size, size), torch.bfloat16, seed=size))
    kernels = Emulated("fourier_mix", size, (1, 1), tmp_path, torch.bfloat16, block_channels)
    expected = check_fourier_mix(kernels, h, a, g, (4e-3, 1e-2, 4e-3, 1e-4), channels=32)
    grad_h, grad_a = (torch.full_like(h, 7.0) for _ in range(2))
    sums = torch.full((fused.num_blocks(h, block_channels), 2), torch.nan)
    kernels("fourier_mix_backward", h, g, h, a, MIX, grad_h, grad_a, sums, flags=(0, 1), channels=32)
    assert bool((grad_h == 7).all())
    assert expected[1] is not None
    assert relative(grad_a, expected[1]) < 4e-3


@pytest.mark.parametrize(("size", "block_channels"), DIRECT)
def test_phases_of_maps_in_channels_last_memory(size: int, block_channels: int, tmp_path: Path) -> None:
    student, teacher, _ = draw_maps((2, 32, size, size), torch.bfloat16, seed=size)
    teacher[:, 1] = 1.3
    student, teacher = last(student), last(teacher)
    distance, grad = torch.full((2, 32), torch.nan), torch.full_like(student, torch.nan)
    g = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    kernels = Emulated("phase_distance", size, (1, 1), tmp_path, torch.bfloat16, block_channels)
    kernels("phase_distance", student, student, teacher, distance, channels=32)
    kernels("phase_distance_backward", student, g, student, teacher, grad, channels=32)
    assert relative(distance, eager.phase_distance(student.double(), teacher.double())) < 1e-5
    expected = eager.phase_distance_backward(g.double(), student.double(), teacher.double())
    assert relative(grad, expected) < 1e-2
    assert not grad[:, 1].any()

    cells = cells_of(size)
    kernels = Emulated("pooled_phase", size, cells, tmp_path, torch.bfloat16, block_channels)
    pooled, grad = torch.full((2, 32, *cells), torch.nan), torch.full_like(student, torch.nan)
    g = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1))
    kernels("pooled_phase", student, student, pooled, channels=32)
    kernels("pooled_phase_backward", student, g, student, grad, channels=32)
    assert float((pooled - eager.pooled_phase(student.double(), cells)).abs().max()) < 1e-4
    assert relative(grad, eager.pooled_phase_backward(g.double(), student.double())) < 1e-2


def test_blocks_fit_into_the_shared_memory_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda", 7)
    for num_bytes, expected in ((227 << 10, 16), (99 << 10, 0)):
        monkeypatch.setattr(fused, "shared_bytes", lambda _, num_bytes=num_bytes: num_bytes)
        fused._block_channels.cache_clear()
        assert fused._block_channels("phase_distance", 28, 128, device) == expected
        assert fused._block_channels("phase_distance_backward", 28, 128, device) == 8
        assert fused._block_channels("phase_distance", 28, 120, device) == 0
    fused._block_channels.cache_clear()


@pytest.mark.parametrize("kernel", list(fused.BLOCK_CHANNELS))
def test_blocks_fit_into_the_shared_memory_of_an_h100(kernel: str) -> None:
    operator = kernel.removesuffix("_backward")
    for size, channels in ((14, 0), (28, 0), (56, 0), (64, 0), *fused.BLOCK_CHANNELS[kernel].items()):
        assert fused.blocks(operator, size, channels)[kernel].shared_bytes <= 227 * 1024


@pytest.mark.parametrize("operator", fused.TRANSPOSITIONS)
@pytest.mark.parametrize(("num_rows", "num_columns"), [(64, 64), (8, 136), (136, 72)])
def test_transpositions(operator: str, num_rows: int, num_columns: int, tmp_path: Path) -> None:
    kernels = Emulated(operator, 1, (1, 1), tmp_path, torch.bfloat16)
    x = torch.randn(3, num_rows, num_columns, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    y = torch.full((3, num_columns, num_rows), torch.nan, dtype=torch.bfloat16)
    tiles = -(-num_rows // fused.TILE) * -(-num_columns // fused.TILE)
    kernels.run("transpose", 3 * tiles, (x, y), (num_rows, num_columns))
    assert torch.equal(y, x.mT)


@pytest.mark.parametrize("operator", [*OPERATORS, *fused.TRANSPOSITIONS])
def test_nvrtc_accepts_the_kernels(operator: str) -> None:
    try:
        nvrtc.compiler()
    except RuntimeError as error:
        pytest.skip(str(error))
    for size, dtype, channels in ((7, torch.float32, 0), (28, torch.bfloat16, 0), (14, torch.bfloat16, 16)):
        assert nvrtc.compile_source(fused.source(operator, size, dtype, (7, 7), channels), "sm_80")
