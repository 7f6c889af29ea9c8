"""The Triton kernels in Triton's interpreter; test_kernels.py runs this file in a process with TRITON_INTERPRET=1."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fourds_dist.ops.norm import batch_norm_act, fused
from tests.ops.norm import cases
from tests.ops.norm.cases import FEW_MODES, SHAPES, Case


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give two programs several tiles each."""
    assert fused.is_interpreted()
    for kernel in fused.PLACES:
        monkeypatch.setitem(fused.PLACES, kernel, 512)
        monkeypatch.setitem(fused.PROGRAMS_PER_PROCESSOR, kernel, 1)
    monkeypatch.setattr(fused, "tile_columns", lambda n, inner=fused.tile_columns: min(inner(n), 32))


@pytest.mark.parametrize("case", FEW_MODES, ids=str)
def test_modes(case: Case) -> None:
    cases.check(case, "fused")


@pytest.mark.parametrize("case", [case for case in SHAPES if case.dtype == torch.float32], ids=str)
def test_shapes(case: Case) -> None:
    cases.check(case, "fused")


@pytest.mark.slow
@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_tiles_as_on_a_gpu(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    cases.check(replace(case, residual=False), "fused")


@pytest.mark.parametrize("momentum", [None, 0.0, 1.0])
def test_momentum(momentum: float | None) -> None:
    cases.check(Case(momentum=momentum), "fused")


@pytest.mark.parametrize("learns", [True, False])
def test_bfloat16_weights_and_statistics(learns: bool) -> None:
    """As for networks that are stored in bfloat16."""
    case = Case(learns=learns, dtype=torch.bfloat16)
    inputs = cases.draw(case)
    for name in ("weight", "bias", "running_mean", "running_var"):
        setattr(inputs, name, getattr(inputs, name).bfloat16())
    got, exact = (cases.results(case, inputs, *how) for how in (("fused",), ("reference", torch.float64)))
    for name in got:
        assert cases.relative(got[name], exact[name]) < 5e-3, name


@pytest.mark.parametrize("ratio", [1e3, 1e5])
def test_variance_beside_a_large_mean(ratio: float) -> None:
    x = (torch.randn(4, 5, 20, 20, generator=torch.Generator().manual_seed(0)) + ratio).contiguous(
        memory_format=torch.channels_last
    )
    mean, var = fused.batch_statistics(x, None, None, None, 0.1)
    exact_var, exact_mean = torch.var_mean(x.double(), dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(mean.double(), exact_mean, rtol=3e-7, atol=0)
    torch.testing.assert_close(var.double(), exact_var, rtol=1e-5, atol=0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", ["relu", "relu6", "hardswish", "silu"])
def test_nan_and_infinity_pass_as_in_pytorch(training: bool, activation: str) -> None:
    case = Case(activation, training=training, shape=(2, 5, 4, 4))
    inputs = cases.draw(case)
    inputs.x[0, 1:4, 2, 3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    with np.errstate(all="ignore"):
        got = cases.results(case, inputs, "fused")
    exact = cases.results(case, inputs, "reference", torch.float64)
    for name in ("y", "running mean", "running variance"):
        torch.testing.assert_close(
            got[name].double(), exact[name].double(), equal_nan=True, rtol=1e-4, atol=1e-5
        )
    assert got["gradient of x"][:, [0, 4]].isfinite().all()
    assert not (training and got["gradient of x"][:, 1:4].isfinite().any())


def test_views_and_unaligned_addresses() -> None:
    """A permuted (B, H, W, C) tensor is in channels_last memory; a part of a batch may begin anywhere."""
    nhwc = torch.randn(4, 5, 6, 7)
    view = nhwc.permute(0, 3, 1, 2)
    assert fused.why_not(view) is None
    assert fused.why_not(view[1:]) is None
    for x in (view, view[1:]):
        got = batch_norm_act(x, None, None, training=True, activation="relu", backend="fused")
        exact = batch_norm_act(x.double(), None, None, training=True, activation="relu", backend="reference")
        torch.testing.assert_close(got, exact.float(), rtol=1e-5, atol=1e-6)


def test_a_gradient_in_other_memory() -> None:
    """Such as that of a mean, which is one number for all pixels."""
    x = torch.randn(2, 5, 4, 4).contiguous(memory_format=torch.channels_last)
    grads = []
    for backend in ("fused", "reference"):
        leaf = x.clone().requires_grad_()
        y = batch_norm_act(leaf, None, None, training=True, activation="silu", backend=backend)
        grads.append(torch.autograd.grad(y.mean((2, 3)).square().sum(), leaf)[0])
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)


def test_results_repeat_bit_for_bit() -> None:
    case = Case(shape=(3, 20, 9, 8))
    first, second = (cases.results(case, cases.draw(case), "fused") for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
