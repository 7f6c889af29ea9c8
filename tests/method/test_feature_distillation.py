"""Feature distillation against Eq. 25."""

from __future__ import annotations

import pytest
import torch

from fourds_dist.method.feature_distillation import FeatureDistillation
from fourds_dist.models.feature_hooks import StageInfo


def stage(channels: int, side: int) -> StageInfo:
    return StageInfo("s", "NCHW", channels, (side, side))


def test_the_loss_is_the_relative_squared_error_averaged_over_stages() -> None:
    torch.manual_seed(0)
    loss = FeatureDistillation([stage(3, 4), stage(2, 4)], [stage(5, 2), stage(4, 4)])
    student = [torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 2, 4, 4, requires_grad=True)]
    teacher = [torch.randn(2, 5, 2, 2, requires_grad=True), torch.randn(2, 4, 4, 4, requires_grad=True)]
    found = loss(student, teacher)
    coarse = student[0].unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean((3, 5))
    expected = 0.0
    for regressor, s, t in zip(loss.regressors, (coarse, student[1]), teacher, strict=True):
        weight = regressor.get_parameter("weight")[:, :, 0, 0]
        error = torch.einsum("oc,bchw->bohw", weight, s) - t
        expected = expected + error.pow(2).sum() / t.pow(2).sum() / 2
    torch.testing.assert_close(found, expected)
    found.backward()
    assert all(h.grad is not None for h in student)
    assert all(h.grad is None for h in teacher)
    assert all(p.grad is not None for p in loss.parameters())
    torch.testing.assert_close(loss([10 * h for h in student], [10 * h for h in teacher]), found)


def test_a_teacher_s_map_of_zeros_gives_a_finite_loss() -> None:
    loss = FeatureDistillation([stage(2, 2)], [stage(2, 2)])
    with torch.no_grad():
        loss.regressors[0].get_parameter("weight").copy_(torch.eye(2)[:, :, None, None])
    found = loss([torch.full((1, 2, 2, 2), 1e-4)], [torch.zeros(1, 2, 2, 2)])
    assert found.item() == pytest.approx(1.0)  # 1e-8 over the floor of 1e-8


def test_stages_are_compared_in_pairs() -> None:
    with pytest.raises(ValueError, match="longer"):
        FeatureDistillation([stage(2, 2)], [stage(2, 2), stage(2, 2)])
