"""The fused kernels on a GPU, against the half spectrum in float64 on the same inputs."""

import pytest
import torch
from torch import Tensor

from fourds_dist.ops import choose_backend, fourier_mix, phase_distance, pooled_phase
from tests.ops.inputs import cosine, draw_maps, relative

pytestmark = pytest.mark.gpu

SIZES = [1, 2, 3, 5, 7, 8, 14, 16, 28, 32, 56, 64]
MIX = [0.3, 0.7]


def poison(shape: tuple[int, ...]) -> None:
    """Fill the memory the next results are likely to get with NaN, so that what a kernel leaves out shows."""
    for _ in range(4):
        torch.full(shape, torch.nan, device="cuda")


def mix_and_gradients(h: Tensor, a: Tensor, g: Tensor, backend: str) -> list[Tensor]:
    h, a = h.detach().requires_grad_(), a.detach().requires_grad_()
    mix = torch.tensor(MIX, device=h.device, requires_grad=True)
    poison(tuple(h.shape))
    out = fourier_mix(h, a, mix, backend=backend)
    poison(tuple(h.shape))
    return [out.detach(), *torch.autograd.grad(out, (h, a, mix), g.to(out.dtype))]


@pytest.mark.parametrize("size", SIZES)
def test_fourier_mix_agrees_with_float64(size: int) -> None:
    h, a, g = draw_maps((3, 43, size, size), torch.float32, "cuda", seed=size)
    fused = mix_and_gradients(h, a, g, "fused")
    exact = mix_and_gradients(h.double(), a.double(), g.double(), "eager")
    assert relative(fused[0], exact[0]) < 1e-5
    assert relative(fused[2], exact[2]) < 1e-4
    assert relative(fused[3], exact[3]) < 1e-4
    assert relative(fused[1], exact[1]) < 5e-3
    assert cosine(fused[1], exact[1]) > 1 - 1e-5


def pooled_and_gradient(h: Tensor, cells: int, backend: str) -> list[Tensor]:
    h = h.detach().requires_grad_()
    poison(tuple(h.shape))
    pooled = pooled_phase(h, (cells, cells), backend=backend)
    g = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    poison(tuple(h.shape))
    return [pooled.detach(), *torch.autograd.grad(pooled, h, g.to(pooled))]


@pytest.mark.parametrize(
    ("size", "cells"), [(7, 7), (14, 7), (28, 7), (56, 7), (56, 14), (8, 4), (64, 8), (2, 1)]
)
def test_pooled_phase_agrees_with_float64(size: int, cells: int) -> None:
    h, _, _ = draw_maps((3, 43, size, size), torch.float32, "cuda", seed=size)
    fused = pooled_and_gradient(h, cells, "fused")
    exact = pooled_and_gradient(h.double(), cells, "eager")
    # a bin within rounding of the cut may fall on its other side: 2 pi / cell^2 in one cell
    assert relative(fused[0], exact[0]) < 1e-3
    assert relative(fused[1], exact[1]) < 5e-3
    assert size == 2 or cosine(fused[1], exact[1]) > 1 - 1e-5


def disparity_and_gradient(student: Tensor, teacher: Tensor, backend: str) -> list[Tensor]:
    student = student.detach().requires_grad_()
    poison(tuple(student.shape))
    distance = phase_distance(student, teacher, backend=backend)
    g = torch.randn(distance.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    poison(tuple(student.shape))
    return [distance.detach(), *torch.autograd.grad(distance, student, g.to(distance))]


@pytest.mark.parametrize("size", SIZES)
def test_phase_distance_agrees_with_float64(size: int) -> None:
    student, teacher, _ = draw_maps((3, 43, size, size), torch.float32, "cuda", seed=size)
    teacher[:, 1], teacher[:, 2] = 0.0, 1.3
    fused = disparity_and_gradient(student, teacher, "fused")
    exact = disparity_and_gradient(student.double(), teacher.double(), "eager")
    assert relative(fused[0], exact[0]) < 1e-5
    assert relative(fused[1], exact[1]) < 5e-3
    assert not fused[0][:, 1:3].any()
    assert not fused[1][:, 1:3].any()


@pytest.mark.parametrize("size", [7, 14, 28, 56])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("num_channels", [40, 48])  # 16 divides 48
def test_bfloat16_maps_in_either_layout(size: int, layout: torch.memory_format, num_channels: int) -> None:
    h, a, g = draw_maps((3, num_channels, size, size), torch.bfloat16, "cuda", seed=size)
    h, a, g = (x.contiguous(memory_format=layout) for x in (h, a, g))
    fused = mix_and_gradients(h, a, g, "fused")
    exact = mix_and_gradients(h.double(), a.double(), g.double(), "eager")
    assert fused[0].is_contiguous(memory_format=layout)
    assert fused[1].is_contiguous(memory_format=layout)
    for i, bound in enumerate((4e-3, 1e-2, 4e-3, 1e-3)):
        assert relative(fused[i], exact[i]) < bound
    assert (
        relative(pooled_and_gradient(h, 7, "fused")[0], pooled_and_gradient(h.double(), 7, "eager")[0]) < 1e-3
    )
    pairs = zip(
        disparity_and_gradient(h, a, "fused"),
        disparity_and_gradient(h.double(), a.double(), "eager"),
        strict=True,
    )
    assert max(relative(x, y) for x, y in pairs) < 1e-2


@pytest.mark.parametrize("size", [7, 14, 28, 56])
def test_channels_last_and_half_precision_inputs_of_float32(size: int) -> None:
    h, a, g = draw_maps((2, 72, size, size), torch.float32, "cuda", seed=size)
    plain = mix_and_gradients(h, a, g, "fused")
    last = mix_and_gradients(
        *(x.contiguous(memory_format=torch.channels_last) for x in (h, a, g)), backend="fused"
    )
    for x, y in zip(plain[:3], last[:3], strict=True):
        assert relative(x, y) < 1e-6
    half = mix_and_gradients(h.half(), a.half(), g.half(), "fused")
    assert half[0].dtype == torch.float16
    assert relative(half[0], plain[0]) < 5e-3


@pytest.mark.parametrize("size", [7, 14, 56])
def test_results_repeat_bit_for_bit(size: int) -> None:
    h, a, g = draw_maps((5, 37, size, size), torch.float32, "cuda", seed=size)
    first, second = mix_and_gradients(h, a, g, "fused"), mix_and_gradients(h, a, g, "fused")
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # opcheck's own
@pytest.mark.parametrize("size", [7, 14])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_registration_passes_opcheck(size: int, layout: torch.memory_format) -> None:
    maps = draw_maps((2, 4, size, size), torch.float32, "cuda")[:2]
    h, a = (x.contiguous(memory_format=layout).requires_grad_() for x in maps)
    mix = torch.tensor(MIX, device="cuda", requires_grad=True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    ops = torch.ops.fourds
    torch.library.opcheck(ops.fourier_mix.default, (h, a, mix, "fused"), test_utils=checks)
    torch.library.opcheck(ops.pooled_phase.default, (h, 7, 7, "fused"), test_utils=checks)
    torch.library.opcheck(ops.phase_distance.default, (h, a.detach(), "fused"), test_utils=checks)


def test_autocast_leaves_the_arithmetic_alone() -> None:
    h, a, g = draw_maps((2, 8, 14, 14), torch.float32, "cuda")
    plain = mix_and_gradients(h, a, g, "fused")
    with torch.autocast("cuda", torch.bfloat16):
        under = mix_and_gradients(h, a, g, "fused")
        pooled = pooled_phase(h, (3, 3), backend="eager")
    assert all(torch.equal(x, y) for x, y in zip(plain, under, strict=True))
    assert torch.equal(pooled, pooled_phase(h, (3, 3), backend="eager"))


@pytest.mark.parametrize("size", [7, 28])
def test_captured_in_a_cuda_graph(size: int) -> None:
    h, a, g = draw_maps((4, 16, size, size), torch.float32, "cuda", seed=size)
    mix_and_gradients(h, a, g, "fused")
    h.requires_grad_()
    a.requires_grad_()
    mix = torch.tensor(MIX, device="cuda", requires_grad=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = fourier_mix(h, a, mix, backend="fused")
        grads = torch.autograd.grad(out, (h, a, mix), g)
    other_h, other_a, other_g = draw_maps((4, 16, size, size), torch.float32, "cuda", seed=99)
    with torch.no_grad():
        for x, other in ((h, other_h), (a, other_a), (g, other_g)):
            x.copy_(other)
    graph.replay()
    expected = mix_and_gradients(other_h, other_a, other_g, "fused")
    assert all(torch.equal(x, y) for x, y in zip((out, *grads), expected, strict=True))


def test_compiled_without_a_graph_break() -> None:
    h, a, g = draw_maps((2, 8, 14, 14), torch.float32, "cuda")
    mix = torch.tensor(MIX, device="cuda")

    def step(h: Tensor, a: Tensor) -> Tensor:
        return (
            (fourier_mix(h * 2, a, mix) * g).sum()
            + pooled_phase(h, (7, 7)).sum()
            + phase_distance(h, a).mean()
        )

    compiled = torch.compile(step, fullgraph=True)
    results = []
    for call in (step, compiled):
        x = h.clone().requires_grad_()
        y = call(x, a)
        results.append((y.detach(), *torch.autograd.grad(y, x)))
    assert all(relative(x, y) < 1e-5 for x, y in zip(*results, strict=True))


@pytest.mark.parametrize("size", [7, 14, 56])
def test_unrequested_gradients_change_nothing(size: int) -> None:
    h, a, g = draw_maps((2, 5, size, size), torch.float32, "cuda")
    mix = torch.tensor(MIX, device="cuda", requires_grad=True)
    _, grad_h, grad_a, grad_mix = mix_and_gradients(h, a, g, "fused")
    a_only = a.clone().requires_grad_()
    got_a, got_mix = torch.autograd.grad(fourier_mix(h, a_only, mix, backend="fused"), (a_only, mix), g)
    assert torch.equal(got_a, grad_a)
    assert torch.equal(got_mix, grad_mix)
    h_only = h.clone().requires_grad_()
    (got_h,) = torch.autograd.grad(fourier_mix(h_only, a, mix.detach(), backend="fused"), h_only, g)
    assert torch.equal(got_h, grad_h)


@pytest.mark.parametrize("size", [7, 28])
def test_nan_and_infinity_stay_in_their_own_map(size: int) -> None:
    h, a, _ = draw_maps((2, 8, size, size), torch.float32, "cuda")
    h[0, 3, 1, 2], a[1, 4, 0, 0] = torch.nan, torch.inf
    mix = torch.tensor(MIX, device="cuda")
    bad = ~fourier_mix(h, a, mix, backend="fused").isfinite().all((-2, -1)).cpu()
    assert bad.nonzero().tolist() == [[0, 3], [1, 4]]
    assert pooled_phase(h, (1, 1), backend="fused").isnan().flatten(2).any(-1).nonzero().tolist() == [[0, 3]]
    assert phase_distance(h, a, backend="fused").isnan().nonzero().tolist() == [[0, 3], [1, 4]]


def test_views_that_start_anywhere_and_empty_batches() -> None:
    h, a, g = draw_maps((2, 6, 14, 15), torch.float32, "cuda")
    views = [x[..., 1:] for x in (h, a, g)]
    copies = [x.contiguous() for x in views]
    for x, y in zip(
        mix_and_gradients(*views, backend="fused"), mix_and_gradients(*copies, backend="fused"), strict=True
    ):
        assert torch.equal(x, y)
    odd = torch.randn(1 + 3 * 49, device="cuda")[1:].view(1, 3, 7, 7)
    assert (
        relative(
            pooled_phase(odd, (7, 7), backend="fused"), pooled_phase(odd.double(), (7, 7), backend="eager")
        )
        < 1e-5
    )
    empty = mix_and_gradients(h[:0, :, :, 1:], a[:0, :, :, 1:], g[:0, :, :, 1:], "fused")
    assert empty[0].shape == (0, 6, 14, 14)
    assert not empty[3].any()


def test_the_chooser_takes_the_kernels_where_they_serve() -> None:
    assert choose_backend(torch.empty(1, 1, 56, 56, device="cuda")) == "fused"
    assert choose_backend(torch.empty(1, 1, 56, 56, device="cuda", dtype=torch.float64)) == "eager"
    x = torch.randn(1, 1, 9, 9, device="cuda")
    with pytest.warns(RuntimeWarning, match="no kernel for 9x9"):
        pooled_phase(x, (3, 3))
    pooled_phase(x, (3, 3))
