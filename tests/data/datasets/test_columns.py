"""Labels from columns of truth values, and splits from columns such as is_train."""

from __future__ import annotations

import pytest

from fourds_dist.data.datasets.columns import FLAGS, one_hot, split_by_flags, truth


@pytest.mark.parametrize(
    ("cells", "value"),
    [
        ((1, 1.0, "1", "1.0", True, " TRUE ", "Yes", "t", "Y"), True),
        ((0, 0.0, "0", "0.0", False, "false", " No", "F", "n", "", " ", None), False),
        ((2, 0.5, "maybe", "train", "-1", float("nan")), None),
    ],
)
def test_truth_values(cells: tuple[object, ...], value: bool | None) -> None:
    assert [truth(cell) for cell in cells] == [value] * len(cells)


def test_one_column_for_each_class() -> None:
    header = ["cat", "image", " dog ", ""]
    rows = [
        ["1", "a.png", "0", "x"],
        ["false", "b.png", "yes"],
        ["1.0", "c.png"],
    ]  # a short row lacks false cells
    assert one_hot(header, rows, 1) == ["cat", "dog", "cat"]
    assert one_hot(["cat", "image"], [["1", "a.png"]], 1) is None
    assert one_hot(header, [], 1) is None
    assert one_hot(header, [*rows, ["3", "d.png", "0"]], 1) is None
    for row, num in ((["1", "d.png", "1"], 2), (["0", "d.png", ""], 0)):
        with pytest.raises(
            ValueError, match=rf"and {num} of these are true in row 4 below the header; .*add a column"
        ):
            one_hot(header, [*rows, row], 1)


def test_splits_by_flags() -> None:
    assert split_by_flags([]) is None
    for name, (if_true, if_false) in FLAGS.items():
        assert (split_by_flags([(name, "1")]), split_by_flags([(name, "no")])) == (if_true, if_false)
    assert split_by_flags([("istrain", "0"), ("isval", "0"), ("istest", "0")]) == "test"
    assert split_by_flags([("istrain", "0"), ("isval", "1")]) == "val"
    assert split_by_flags([("istrain", "1"), ("istraining", "1")]) == "train"
    with pytest.raises(ValueError, match="columns of splits are true for both test and val"):
        split_by_flags([("isval", "1"), ("istest", "1")])
    with pytest.raises(ValueError, match="'maybe' in the column isval is neither true nor false"):
        split_by_flags([("istrain", "1"), ("isval", "maybe")])
