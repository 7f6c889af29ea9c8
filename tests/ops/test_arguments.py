"""Checks of the operators' arguments: bad ones are refused with a remedy, good ones pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fourds_dist.ops import fourier_mix, phase_distance, pooled_phase
from fourds_dist.ops.arguments import (
    LARGEST_NUMEL,
    check_map,
    check_mix,
    check_output_size,
    check_pair,
    common_dtype,
)
from tests.ops.test_operators import mix_weights


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (0, 3, 1, 1), (2, 0, 1, 1)])
def test_real_maps_pass(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = torch.zeros(shape, dtype=dtype)
    check_map("x", x)
    check_pair("x", x, "y", x.double())
    check_mix(mix_weights(), x)


def test_the_largest_map_has_2_to_31_minus_1_elements() -> None:
    check_map("x", torch.zeros(1).expand(1, 1, 1, LARGEST_NUMEL))
    with pytest.raises(ValueError, match=r"^x has 2147483648 elements, more than 2\^31 - 1: split the batch"):
        check_map("x", torch.zeros(1).expand(1, 1, 1, LARGEST_NUMEL + 1))


def test_output_sizes_become_integers() -> None:
    size = check_output_size((7.0, 3))  # type: ignore[arg-type]
    assert size == (7, 3)
    assert [type(n) for n in size] == [int, int]


@pytest.mark.parametrize(
    ("first", "second", "wider"),
    [
        (torch.bfloat16, torch.float32, torch.float32),
        (torch.bfloat16, torch.float16, torch.float32),
        (torch.float16, torch.float16, torch.float16),
        (torch.float32, torch.float64, torch.float64),
    ],
)
def test_the_common_dtype_loses_no_precision(
    first: torch.dtype, second: torch.dtype, wider: torch.dtype
) -> None:
    x, y = torch.zeros(1, dtype=first), torch.zeros(1, dtype=second)
    assert common_dtype(x, y) == common_dtype(y, x) == wider


BIG = torch.zeros(1).expand(2**11, 2**10, 2**5, 2**5)


@pytest.mark.parametrize(
    ("h", "a", "message"),
    [
        (torch.zeros(1, 1, 4, 4, dtype=torch.complex64), None, "h_BCHW is complex"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.int32), None, r"h_BCHW holds integers.*\.float\(\)"),
        (torch.zeros(4, 4), None, "h_BCHW has shape.*four axes"),
        (torch.zeros(1, 1, 4, 0), None, "height and width must be at least 1"),
        (torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4), "must be equal"),
        (torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4, device="meta"), "move one of them"),
        (BIG, BIG, "split the batch"),
        ([[1.0]], None, "must be a tensor"),
    ],
)
def test_bad_maps_are_refused_with_a_remedy(h: Tensor, a: Tensor | None, message: str) -> None:
    other = h if a is None else a
    with pytest.raises(ValueError, match=message):
        fourier_mix(h, other, mix_weights())
    with pytest.raises(ValueError, match=message.replace("h_BCHW", "h_student_BCHW")):
        phase_distance(h, other)
    if a is None:
        with pytest.raises(ValueError, match=message):
            pooled_phase(h, (1, 1))


@pytest.mark.parametrize(
    "mix", [torch.zeros(3), torch.zeros(2, dtype=torch.int64), [0.5, 0.5], torch.zeros(2, device="meta")]
)
def test_bad_weights_are_refused(mix: Tensor) -> None:
    h = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match="mix_2"):
        fourier_mix(h, h, mix)


@pytest.mark.parametrize("size", [(0, 1), (7,), (2.5, 2), (1, 2, 3)])
def test_bad_output_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="output_size"):
        pooled_phase(torch.zeros(1, 1, 4, 4), size)
