"""Checks of a file's metadata: what is refused, what is reported, and what is adapted."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fourds_dist.models.weights.metadata_check import MetadataCheck
from tests.models.weights.test_loading import RUN, State, loaded, ours, saved


def check(told: list[str], *, metadata: Any = "check", **changes: Any) -> MetadataCheck:
    """The check of a file whose metadata differ from the run's by `changes`."""
    return MetadataCheck(
        "student.start: w.pt", replace(RUN, **changes), RUN, "student.start", metadata, told.append
    )


def test_equal_metadata_pass_without_a_word() -> None:
    told: list[str] = []
    same = check(told)
    same.start()
    same.classes()
    same.architecture()
    same.preprocessing()
    same.reorder(nn.Identity(), None)
    assert told == []


def test_first_weights_may_be_of_other_classes_and_sizes_but_of_no_other_normalisation() -> None:
    told: list[str] = []
    check(told, classes=("ant", "elk"), preprocessing={**RUN.preprocessing, "crop_px": 28}).start()
    assert told == [
        "student.start: w.pt was trained for other classes than the data's: the file has 2 classes, the data have 4; "
        "the file lacks 'bee', 'cat', 'dog'; the data lack 'elk'",
        "student.start: w.pt was trained on images of another size: data.crop_px is 28 in the file and 32 in the run",
    ]
    with pytest.raises(ValueError, match=r"student\.std is .*student\.metadata=ignore"):
        check(told, preprocessing={"std": (1.0, 1.0, 1.0)}).start()


def test_an_architecture_by_an_entry_point_is_only_reported() -> None:
    told: list[str] = []
    with pytest.raises(ValueError, match=r"arch=y, but all its tensors fit arch=x; set student\.arch to"):
        check(told, arch="y").architecture()
    check(told, arch="my.networks:y").architecture()
    assert told == [
        "student.start: w.pt has metadata of another network, arch=my.networks:y, but all its tensors fit arch=x"
    ]


def test_classes_that_cannot_be_reordered_are_refused_with_a_remedy() -> None:
    told: list[str] = []
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(3 * 32 * 32, 4, bias=False), nn.Sigmoid(), nn.Linear(4, 4)
    )
    nn.init.ones_(network[3].weight)  # pyright: ignore
    network[3].register_forward_hook(lambda *_: torch.arange(8.0).view(2, 4))
    reversed_order = check(told, classes=("dog", "cat", "bee", "ant"))
    with pytest.raises(
        ValueError, match=r"order \(dog, cat, bee, ant\), and they cannot be reordered .*--classes FILE"
    ):
        reversed_order.reorder(network, 32)
    reversed_order.classes()  # another order is no refusal
    assert told == []
    check(told, classes=("dog", "cat", "bee", "ant"), metadata="ignore").classes()
    assert "the classes are in another order (dog, cat, bee, ant), ignored by student.metadata" in told[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"classes": "ant\nbee\ncat\nhund"},
            r"the file lacks 'dog'; the data lack 'hund'\. .* teacher\.metadata=ignore",
        ),
        (
            {"classes": "ant\nbee\ncat\ndog\nelk"},
            r"the file has 5 classes, the data have 4; the data lack 'elk'",
        ),
        (
            {"preprocessing": '{"mean": [0.4, 0.5, 0.5]}'},
            r"teacher\.mean is \[0.4, 0.5, 0.5\] in the file and \[0.5, 0.5",
        ),
        (
            {"preprocessing": '{"crop_px": 28}'},
            r"data\.crop_px is 28 in the file and 32 in the run.* teacher\.metadata",
        ),
        ({"arch": "y"}, r"has metadata of another network, arch=y, .* set teacher\.arch"),
    ],
)
def test_contradicting_metadata_is_refused_unless_ignored(
    tmp_path: Path, state: State, changes: dict[str, str], message: str
) -> None:
    file = ours(state, tmp_path / "w.safetensors", **changes)
    with pytest.raises(ValueError, match=message):
        loaded(file, RUN)
    _, told = loaded(file, RUN, metadata="ignore")
    assert len(told) == 1


SCANS = replace(RUN, grey_ranges=((0.0, 4095.0), (0.0, 65535.0)), has_source=True)


def with_range(state: State, path: Path, grey_range: object) -> Path:
    return ours(state, path, preprocessing=json.dumps({"grey_range": grey_range}))


@pytest.mark.parametrize("grey_range", [[0, 4095], [0, 65535], [0.0, 4095.0], None, "wide", [4095, 0], [0]])
def test_a_grey_range_of_one_of_the_domains_or_none_is_no_difference(
    tmp_path: Path, state: State, grey_range: object
) -> None:
    file = with_range(state, tmp_path / "w.safetensors", grey_range)
    for run in (SCANS, RUN):
        assert loaded(file, run)[1] == []


def test_another_grey_range_is_refused_unless_ignored(tmp_path: Path, state: State) -> None:
    file = with_range(state, tmp_path / "w.safetensors", [0, 1020])
    named = r"data\.grey_range is \[0, 1020\] in the file and \[0, 4095\] and \[0, 65535\] in the run"
    with pytest.raises(ValueError, match=rf"{named}\. Set these keys .* teacher\.metadata=ignore"):
        loaded(file, SCANS)
    (told,) = loaded(file, SCANS, metadata="ignore")[1]
    assert re.search(f"{named}; ignored by teacher.metadata=ignore", told)
    (told,) = loaded(file, replace(SCANS, has_source=False))[
        1
    ]  # made for a source that the run does not read
    assert re.search(f"with another grey range: {named}", told)
    assert loaded(file, replace(SCANS, grey_ranges=((0.0, 1020.0),)))[1] == []


def test_a_range_that_was_measured_on_other_images_differs_a_little(tmp_path: Path, state: State) -> None:
    (told,) = loaded(with_range(state, tmp_path / "w.safetensors", [0, 4080]), SCANS)[1]
    assert "data.grey_range is [0, 4080] in the file and [0, 4095] and [0, 65535] in the run" in told


def test_other_trainers_means_are_compared_too(tmp_path: Path, state: State) -> None:
    same = argparse.Namespace(mean=[127.5] * 3, std=np.array([63.75] * 3))
    _, told = loaded(saved(tmp_path / "same.pt", {"state_dict": state, "args": same}), RUN)
    assert told == []
    with pytest.raises(ValueError, match=r"teacher\.std is \[1, 1, 1\] in the file and \[0.25"):
        loaded(saved(tmp_path / "w.pt", {"state_dict": state, "mean": (0.5,) * 3, "std": torch.ones(3)}), RUN)
