"""The half spectrum against the released formulation, in float64, and its hand-derived gradients."""

import pytest
import torch
from torch import Tensor

from fourds_dist.ops import fourier_mix, phase_distance, pooled_phase
from tests.ops.inputs import draw_maps, relative

SIZES = [(1, 1), (2, 2), (3, 5), (7, 7), (14, 14), (28, 28), (56, 56), (6, 9), (9, 6), (1, 8), (8, 1)]
TOLERANCE = 1e-12


def gradients(result: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    g = torch.randn(result.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return torch.autograd.grad(result, inputs, g.to(result))


@pytest.mark.parametrize("size", SIZES)
def test_fourier_mix_agrees_with_the_released_form(size: tuple[int, int]) -> None:
    h, a, _ = draw_maps((2, 3, *size))
    mix = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    inputs = (h.requires_grad_(), a.requires_grad_(), mix)
    both = [fourier_mix(*inputs, backend=backend) for backend in ("eager", "reference")]
    assert relative(*both) < TOLERANCE
    for x, exact in zip(*(gradients(out, inputs) for out in both), strict=True):
        assert relative(x, exact) < TOLERANCE


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cells", [(1, 1), (7, 7), (2, 3)])
def test_pooled_phase_agrees_with_the_released_form(size: tuple[int, int], cells: tuple[int, int]) -> None:
    h, _, _ = draw_maps((2, 3, *size))
    both = [pooled_phase(h.requires_grad_(), cells, backend=backend) for backend in ("eager", "reference")]
    assert float((both[0] - both[1]).detach().abs().max()) < TOLERANCE
    (x,), (exact,) = (gradients(pooled, (h,)) for pooled in both)
    assert float((x - exact).norm()) <= TOLERANCE * max(
        10.0, float(exact.norm())
    )  # a dead map's slope is 1e10


def test_bins_that_are_real_in_a_sparse_map_point_the_same_way_on_both_sides() -> None:
    h = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    h[0, 0, :, 2] = torch.tensor([2.8, 1.3, 1.4, 1.1])
    h[0, 0, 1, 0] = 1.5
    both = [pooled_phase(h, (2, 2), backend=backend) for backend in ("eager", "reference")]
    assert float((both[0] - both[1]).abs().max()) < TOLERANCE


@pytest.mark.parametrize("size", SIZES)
def test_phase_distance_agrees_with_the_released_form(size: tuple[int, int]) -> None:
    h, a, _ = draw_maps((2, 3, *size))
    both = [phase_distance(h.requires_grad_(), a, backend=backend) for backend in ("eager", "reference")]
    assert relative(*both) < TOLERANCE
    assert relative(*(gradients(d, (h,))[0] for d in both)) < TOLERANCE


def test_phase_distance_is_the_weighted_circular_distance() -> None:
    student, teacher, _ = draw_maps((2, 3, 6, 7), seed=3)
    student[:, 0] = torch.randn(6, 7, dtype=torch.float64)
    S, T = torch.fft.fft2(student), torch.fft.fft2(teacher)
    amplitude = T.abs()
    amplitude[..., 0, 0] = 0.0
    expected = (amplitude * (1 - torch.cos(S.angle() - T.angle()))).sum((-2, -1)) / amplitude.sum((-2, -1))
    assert relative(phase_distance(student, teacher, backend="eager"), expected) < TOLERANCE


def test_phase_distance_ignores_gain_and_offset_and_ends_at_two() -> None:
    _, teacher, _ = draw_maps((2, 3, 14, 14))
    same, opposite = phase_distance(3 * teacher + 5, teacher), phase_distance(-teacher, teacher)
    assert float(same.abs().max()) < 1e-9
    assert float((opposite - 2).abs().max()) < 1e-9


@pytest.mark.parametrize("backend", ["eager", "reference"])
def test_a_constant_or_dead_teacher_asks_for_nothing(backend: str) -> None:
    student, teacher, _ = draw_maps((1, 3, 7, 7))
    teacher[:, 0], teacher[:, 1] = 0.0, 0.1
    distance = phase_distance(student.requires_grad_(), teacher, backend=backend)
    (grad,) = torch.autograd.grad(distance.sum(), student)
    assert not distance[:, :2].any()
    assert not grad[:, :2].any()
    assert distance[0, 2] > 0
    one_pixel = torch.ones(2, 3, 1, 1, requires_grad=True)
    assert not phase_distance(one_pixel, 2 * one_pixel, backend=backend).any()


@pytest.mark.parametrize("size", [(4, 4), (3, 5), (5, 4)])
def test_gradients_by_differences(size: tuple[int, int]) -> None:
    _, h, a = draw_maps((1, 2, *size), seed=5)
    h.requires_grad_()
    a.requires_grad_()
    mix = torch.tensor([0.4, 0.6], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *x: fourier_mix(*x, backend="eager"), (h, a, mix))
    assert torch.autograd.gradcheck(lambda x: pooled_phase(x, (2, 2), backend="eager"), h)
    assert torch.autograd.gradcheck(lambda x: phase_distance(x, a.detach(), backend="eager"), h)


def test_an_impulse_has_flat_amplitude_and_is_moved_whole() -> None:
    h = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    h[..., 2, 3] = 1.0
    mix = torch.tensor([0.25, 0.75], dtype=torch.float64)
    out = fourier_mix(h, 3 * h.roll((1, 1), (-2, -1)), mix, backend="eager")  # |F(a)| = 3 everywhere
    assert relative(out, (0.25 * 3 + 0.75) * h) < 1e-4  # the denormal rule turns bins with Re X = 0 by 1e-5


def test_a_constant_map_keeps_its_mean_alone() -> None:
    h, a = (
        torch.full((1, 1, 6, 6), 2.0, dtype=torch.float64),
        torch.full((1, 1, 6, 6), -4.0, dtype=torch.float64),
    )
    mix = torch.tensor([0.5, 0.5], dtype=torch.float64)
    out = fourier_mix(h, a, mix, backend="eager")
    assert float((out.mean() - 3.0).abs()) < 1e-3  # the denormal rule puts sqrt(EPS) into the empty bins
    assert relative(out, fourier_mix(h, a, mix, backend="reference")) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_maps_are_computed_in_float32(dtype: torch.dtype) -> None:
    h, a, g = draw_maps((2, 3, 7, 8), dtype)
    mix = torch.tensor([0.3, 0.7], requires_grad=True)
    h.requires_grad_()
    a.requires_grad_()
    out = fourier_mix(h, a, mix, backend="eager")
    exact = fourier_mix(h.double(), a.double(), mix.double(), backend="reference")
    assert out.dtype == dtype
    assert relative(out, exact) < {torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}[dtype]
    assert [x.dtype for x in torch.autograd.grad(out, (h, a, mix), g)] == [dtype, dtype, torch.float32]
    assert pooled_phase(h, (2, 2)).dtype == phase_distance(h, a).dtype == torch.float32
