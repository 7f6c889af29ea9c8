"""The Triton kernels on a GPU, against PyTorch in float64 on the same inputs; and the choice of tiles."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fourds_dist.ops.norm import batch_norm_act, fused
from tests.ops.norm import cases
from tests.ops.norm.cases import MODES, SHAPES, Case

gpu = pytest.mark.gpu
LARGE = [
    Case(shape=(4, 64, 112, 112), dtype=torch.bfloat16),
    Case("silu", shape=(3, 72, 56, 55), dtype=torch.bfloat16),
    Case("hardswish", shape=(5, 1000, 3, 3)),
    Case("relu6", shape=(2, 33, 200, 201)),
]


def poison(shape: tuple[int, ...]) -> None:
    """Fill the memory that the next results are likely to get with NaN, so that what a kernel leaves out shows."""
    for _ in range(6):
        torch.full(shape, torch.nan, device="cuda")


@gpu
@pytest.mark.parametrize("case", [*MODES, *SHAPES, *LARGE], ids=str)
def test_results_and_gradients_are_pytorchs_in_float64(case: Case) -> None:
    poison(case.shape)
    cases.check(case, "fused", "cuda")
    if case.residual:
        cases.check(replace(case, residual=False), "fused", "cuda")


@gpu
@pytest.mark.parametrize(
    "case", [Case(shape=(8, 64, 56, 56), dtype=torch.bfloat16), Case(shape=(8, 48, 14, 14))]
)
def test_results_repeat_bit_for_bit(case: Case) -> None:
    first, second = (cases.results(case, cases.draw(case, "cuda"), "fused") for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@gpu
def test_a_graph_replays_the_operator() -> None:
    case = Case(shape=(4, 32, 14, 14), momentum=None)
    inputs = cases.draw(case, "cuda")
    x, r = inputs.x.requires_grad_(), inputs.residual
    buffers = inputs.running_mean, inputs.running_var

    def run() -> tuple[torch.Tensor, ...]:
        how = {"residual": r, "activation": "relu", "training": True, "num_batches": inputs.num_batches}
        y = batch_norm_act(x, *buffers, inputs.weight, inputs.bias, **how, momentum=None, backend="fused")
        return y, *torch.autograd.grad(y, x, inputs.gradient)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            expected = [t.detach().clone() for t in run()]
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    for t in captured:
        t.detach().zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True))
    assert inputs.num_batches == 3 + 2 + 1


@gpu
@pytest.mark.slow
def test_more_than_two_to_the_31_elements() -> None:
    C = 64
    x = torch.randn(1, C, 8, 8, device="cuda", dtype=torch.bfloat16).contiguous(
        memory_format=torch.channels_last
    )
    large = x.expand(2**31 // x.numel() + 3, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    assert large.numel() > 2**31
    got = batch_norm_act(large, None, None, training=True, activation="relu", backend="fused")
    expected = batch_norm_act(x, None, None, training=True, activation="relu", backend="fused")
    for part in (got[:1], got[-1:]):
        torch.testing.assert_close(part, expected, rtol=2**-7, atol=1e-3)


@pytest.mark.parametrize(
    ("num_columns", "columns"),
    [
        (1, 8),
        (8, 8),
        (13, 16),
        (16, 16),
        (24, 32),
        (40, 16),
        (64, 64),
        (72, 32),
        (96, 128),
        (144, 64),
        (512, 128),
    ],
)
def test_a_tile_is_at_least_three_quarters_full(num_columns: int, columns: int) -> None:
    assert fused.tile_columns(num_columns) == columns


def test_every_row_belongs_to_a_program_and_every_program_has_rows() -> None:
    for kernel in fused.PLACES:
        for num_rows, num_columns in ((1, 1), (7, 3), (10**6, 64), (12_544, 512)):
            at = fused.tiles(kernel, num_rows, num_columns, torch.device("cpu"))
            assert 1 <= at.grid[0] <= -(-num_rows // at.rows)
            assert at.grid[1] * at.columns >= num_columns
            assert at.rows * at.columns == fused.PLACES[kernel]


def test_why_not() -> None:
    last = torch.zeros(2, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    assert "float64" in str(fused.why_not(last.double()))
    assert "not dense in channels_last" in str(fused.why_not(last.contiguous()))
    assert "not dense in channels_last" in str(fused.why_not(last[:, :2]))
    assert "the map is on cpu" in str(fused.why_not(last))
