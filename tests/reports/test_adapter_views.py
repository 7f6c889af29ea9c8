"""Measurements of the adapters' effect on feature maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fourds_dist.reports.adapter_views import NUM_IMAGES, _profile, _stage_view, inspect_adapters
from fourds_dist.reports.analysis import PredictionAnalysis
from fourds_dist.runs.layout import RunFile
from tests.training.tiny import SIDE, tiny_four_ds, tiny_network


def test_adapters_keep_the_phase_and_change_the_amplitude(reported: Path) -> None:
    analysis, _ = PredictionAnalysis.from_bytes((reported / RunFile.EXAMINATION).read_bytes())
    assert len(analysis.adapters) == 4
    assert all(stage.phase_kept > 0.999 for stage in analysis.adapters)
    assert any(np.abs(stage.gain).max() > 0.05 for stage in analysis.adapters)
    assert analysis.example.shape == (3, 16, 16)


@pytest.mark.parametrize(("factor", "gain", "phase"), [(1.0, 0.0, 1.0), (4.0, 2.0, 1.0), (-0.5, -1.0, -1.0)])
def test_a_scaled_map_has_one_gain_and_its_sign_is_the_phase(
    factor: float, gain: float, phase: float
) -> None:
    maps = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    view = _stage_view(maps, factor * maps)
    np.testing.assert_allclose(view.gain, np.full((6, 8), gain), atol=1e-3)
    assert view.phase_kept == pytest.approx(phase, abs=1e-5)
    np.testing.assert_allclose(view.before, maps[0].abs().mean(0), rtol=1e-6)
    np.testing.assert_allclose(view.after, abs(factor) * view.before, rtol=1e-6)
    np.testing.assert_allclose(view.profile[1], gain, atol=1e-3)


def test_a_change_of_the_mean_alone_is_a_gain_in_the_middle() -> None:
    maps = 1 + torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    view = _stage_view(maps, maps + maps.mean((2, 3), keepdim=True))
    assert view.gain[4, 4] == pytest.approx(1.0, abs=1e-3)
    others = view.gain.copy()
    others[4, 4] = 0
    assert np.abs(others).max() < 1e-2


def test_the_profile_is_the_mean_over_rings_of_one_frequency() -> None:
    v, u = np.meshgrid(np.arange(8) - 4, np.arange(8) - 4, indexing="ij")
    frequency, mean = _profile(np.round(np.hypot(v, u)))
    np.testing.assert_allclose(frequency, [0, 0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(mean, [0, 1, 2, 3, 4])
    np.testing.assert_allclose(_profile(np.array([[3.0]])), [[0.0], [3.0]])


def test_the_input_and_the_output_of_every_adapter_are_measured() -> None:
    task = tiny_four_ds(dropout=0.0).eval()
    images = torch.randn(NUM_IMAGES + 1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    views = inspect_adapters(task, images)
    assert [view.before.shape for view in views] == [(SIDE, SIDE), (SIDE // 2, SIDE // 2)]
    teacher = tiny_network(8).eval()
    teacher.load_state_dict(task.teacher.state_dict())
    with torch.inference_mode():
        before = teacher[0](images[:NUM_IMAGES])
        after = task.adapters[0](before)
    np.testing.assert_allclose(views[0].before, before[0].abs().mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(views[0].after, after[0].abs().mean(0), rtol=1e-4, atol=1e-6)
    assert all(view.phase_kept > 0.999 for view in views)
    assert all(not adapter._forward_hooks for adapter in task.adapters)
