"""The phase losses against Eq. 8 to 12, computed with the full spectrum."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fourds_dist.method.fusion_gate import FusionGate
from fourds_dist.method.phase_loss import (
    circular_phase_loss,
    fused_phases,
    shrink,
    smaller,
    squared_phase_loss,
)


def maps(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]


def pooled(h: Tensor, size: tuple[int, int]) -> Tensor:
    return F.adaptive_avg_pool2d(torch.fft.fft2(h).angle(), size)


def weighted_distance(s: Tensor, t: Tensor) -> Tensor:
    S, T = torch.fft.fft2(s), torch.fft.fft2(t)
    weight = T.abs()
    weight[..., 0, 0] = 0.0
    return ((weight * (1 - torch.cos(S.angle() - T.angle()))).sum((-2, -1)) / weight.sum((-2, -1))).mean()


def test_the_phases_of_all_stages_are_pooled_and_concatenated() -> None:
    stages = maps((2, 3, 9, 7), (2, 5, 3, 3))
    phases = fused_phases(stages, (3, 3))
    assert phases.shape == (2, 8, 3, 3)
    expected = torch.cat([pooled(h, (3, 3)) for h in stages], dim=1)
    torch.testing.assert_close(phases, expected, rtol=0, atol=1e-3)  # Eq. 1 moves bins with small real parts


def test_the_squared_loss_is_the_gated_error_at_the_size_of_the_smaller_last_stage() -> None:
    student = [h.requires_grad_() for h in maps((2, 4, 8, 8), (2, 12, 3, 3))]
    teacher = [h.requires_grad_() for h in maps((2, 4, 9, 9), (2, 12, 5, 5), seed=1)]
    torch.manual_seed(0)
    gate = FusionGate(16, reduction=4).double()
    loss = squared_phase_loss(student, teacher, gate)
    phase_s, phase_t = (torch.cat([pooled(h, (3, 3)) for h in stages], 1) for stages in (student, teacher))
    expected = (gate(phase_t) * (phase_s - phase_t)).pow(2).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=0)
    loss.backward()
    assert all(h.grad is not None and h.grad.any() for h in student)
    assert all(p.grad is not None and p.grad.any() for p in gate.parameters())
    assert all(h.grad is None for h in teacher)


def test_the_circular_loss_is_the_mean_over_stages_and_has_no_gradient_to_the_teacher() -> None:
    student, teacher = maps((2, 4, 8, 8), (2, 6, 5, 5)), maps((2, 4, 4, 4), (2, 6, 5, 5), seed=1)
    for h in (*student, *teacher):
        h.requires_grad_()
    loss = circular_phase_loss(student, teacher)
    halved = F.avg_pool2d(student[0], 2)
    expected = (weighted_distance(halved, teacher[0]) + weighted_distance(student[1], teacher[1])) / 2
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-6, atol=0)
    loss.backward()
    assert all(h.grad is not None and h.grad.any() for h in student)
    assert all(h.grad is None for h in teacher)


@pytest.mark.parametrize(("factor", "loss"), [(3.0, 0.0), (-1.0, 2.0)])
def test_the_circular_loss_is_between_0_and_2(factor: float, loss: float) -> None:
    stages = maps((2, 4, 6, 6), (2, 8, 3, 3))
    found = circular_phase_loss([factor * h for h in stages], stages).item()
    assert found == pytest.approx(loss, abs=1e-6)


def test_every_stage_of_one_network_needs_one_of_the_other() -> None:
    stages = maps((2, 4, 6, 6), (2, 8, 3, 3))
    with pytest.raises(ValueError, match="argument 2 is longer"):
        circular_phase_loss(stages[:1], stages)


def test_maps_are_averaged_down_to_the_coarser_resolution() -> None:
    tall, wide = maps((1, 2, 6, 4), (1, 3, 2, 8))
    assert smaller(tall, wide) == (2, 4)
    cells = shrink(tall, (2, 4))
    torch.testing.assert_close(cells, tall.view(1, 2, 2, 3, 4).mean(3))
    assert shrink(tall, (6, 4)) is tall
