"""The backend of an operator: named by the call, the context or the environment, or chosen by the maps."""

from __future__ import annotations

import os
import warnings

import pytest
import torch

from fourds_dist.ops import (
    BACKENDS,
    backends,
    choose_backend,
    eager,
    fourier_mix,
    phase_distance,
    use_backend,
)
from tests.ops.inputs import draw_maps
from tests.ops.test_operators import mix_weights


def test_unknown_names_are_refused_and_leave_the_choice() -> None:
    with pytest.raises(ValueError, match=r"^unknown backend 'cuda': choose one of reference, eager, fused$"):
        backends.known("cuda")
    before = backends.requested(None)
    with pytest.raises(ValueError, match="unknown backend"), use_backend("cuda"):
        pass
    with pytest.raises(ZeroDivisionError), use_backend("reference"):
        raise ZeroDivisionError
    assert backends.requested(None) == before
    with use_backend("reference"), use_backend(None):
        assert backends.requested(None) == (os.environ.get(backends.ENVIRONMENT_VARIABLE) or "")


def test_empty_batches_are_computed_by_eager() -> None:
    assert backends.released("reference", torch.zeros(1, 1, 2, 2))
    assert not backends.released("reference", torch.zeros(0, 1, 2, 2))
    assert not backends.released("eager", torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize("name", ["", "eager", "reference"])
def test_maps_on_a_cpu_are_computed_by_eager_without_a_warning(name: str) -> None:
    x = torch.zeros(1, 1, 7, 7)
    assert choose_backend(x, "pooled_phase", (7, 7)) == "eager"
    assert backends.resolve(name, "fourier_mix", x) is eager


def test_a_warning_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_reported", set())
    with pytest.warns(RuntimeWarning, match="^slow$"):
        backends.warn_once("slow")
    backends.warn_once("slow")  # warnings are errors in the tests
    with pytest.warns(RuntimeWarning, match="^slower$"):
        backends.warn_once("slower")


def test_autocast_is_off_in_its_context() -> None:
    x = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with backends.without_autocast(x):
            assert (x @ x).dtype == torch.float32


def test_a_backend_is_named_by_call_context_or_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BACKENDS == ("reference", "eager", "fused")
    assert backends.requested(None) == ""
    monkeypatch.setattr(backends, "_environment", "eager")
    assert backends.requested(None) == "eager"
    with use_backend("reference"):
        assert backends.requested(None) == "reference"
        with use_backend("fused"):
            assert backends.requested("eager") == "eager"
            assert backends.requested(None) == "fused"
        assert backends.requested(None) == "reference"
    assert backends.requested(None) == "eager"
    with pytest.raises(ValueError, match="choose one of reference, eager, fused"):
        fourier_mix(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), mix_weights(), backend="cudnn")


def test_kernels_asked_for_on_a_cpu_fall_back_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_reported", set())
    h, a, _ = draw_maps((1, 1, 7, 7), torch.float32)
    assert choose_backend(h) == "eager"
    with pytest.warns(RuntimeWarning, match="eager backend.*on cpu"):
        first = phase_distance(h, a, backend="fused")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = phase_distance(h, a, backend="fused")
        third = phase_distance(h, a)
    assert torch.equal(first, second)
    assert torch.equal(first, third)
