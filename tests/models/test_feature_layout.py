"""Layouts of feature maps: there and back."""

from __future__ import annotations

import pytest
import torch

from fourds_dist.models.feature_layout import Layout, from_map, grid_side, layout_of, to_map


@pytest.mark.parametrize(
    ("layout", "shape", "prefix"),
    [
        ("NCHW", (2, 5, 4, 4), 0),
        ("NHWC", (2, 4, 4, 5), 0),
        ("tokens", (2, 17, 5), 1),
        ("tokens", (2, 16, 5), 0),
    ],
)
def test_there_and_back(layout: Layout, shape: tuple[int, ...], prefix: int) -> None:
    output = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    h = to_map(output, layout)
    assert h.shape == (2, 5, 4, 4)
    assert torch.equal(from_map(h, layout, output), output)
    changed = from_map(2 * h, layout, output)
    if layout == "tokens":
        assert torch.equal(changed[:, :prefix], output[:, :prefix])
    assert torch.equal(changed.flatten(1)[:, prefix * 5 :], 2 * output.flatten(1)[:, prefix * 5 :])


def test_a_map_s_rows_and_columns_are_the_grid_s() -> None:
    tokens = torch.arange(10.0)[None, :, None]  # a class token, then 3 x 3 patches
    assert to_map(tokens, "tokens")[0, 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    channels_last = torch.arange(18.0).view(1, 3, 3, 2)
    assert to_map(channels_last, "NHWC")[0, 1].tolist() == [[1, 3, 5], [7, 9, 11], [13, 15, 17]]


def test_the_layout_is_inferred_from_the_shapes() -> None:
    assert layout_of([(1, 64, 16, 16), (1, 128, 8, 8)]) == "NCHW"
    assert layout_of([(1, 16, 16, 64), (1, 8, 8, 128)]) == "NHWC"
    assert layout_of([(1, 17, 64)]) == "tokens"
    # As many channels as rows: the other stage decides.
    assert layout_of([(1, 96, 96, 96), (1, 48, 48, 192)]) == "NHWC"
    assert layout_of([(1, 64, 64, 64), (1, 128, 32, 32)]) == "NCHW"
    for shapes in ([(1, 3, 4, 5)], [(1, 64, 8, 8), (1, 17, 64)], [(1, 4, 4, 9), (1, 9, 4, 4)], [(1, 10)]):
        with pytest.raises(ValueError, match="not square feature maps"):
            layout_of(shapes)


def test_the_number_of_prefix_tokens_is_the_network_s() -> None:
    assert grid_side(25) == 5
    assert grid_side(25, 9) == 4  # a class token and eight registers before 16 patches
    assert grid_side(17, 1) == 4
    assert grid_side(16, 1) == 4  # the stage gives patches alone
    tokens = torch.arange(25.0)[None, :, None]
    assert to_map(tokens, "tokens", 4)[0, 0].flatten().tolist() == list(range(9, 25))
