"""The budget of broken samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fourds_dist.data import DataError
from fourds_dist.data.stream.quarantine import Quarantine, packed_from_of
from tests.data.stream.test_samples import index_of, split_of


def test_a_budget_of_broken_samples(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    split = split_of(tmp_path / "a set", [5])
    quarantine = Quarantine.of(split, 0.3)  # of 5 samples, rounded up
    for key in ("train-00000.tar/a", "train-00000.tar/b", "train-00000.tar/a"):
        quarantine.add(key, "why")
    assert len(quarantine) == 2
    assert "train-00000.tar/a" in quarantine
    assert caplog.text.count("left out train-00000.tar/a: why") == 1
    with pytest.raises(DataError) as error:
        quarantine.add("train-00000.tar/c", "why not")
    told = str(error.value)
    assert told.startswith(
        f"{split.url} (train): this worker read 3 broken samples; its budget is 2 (data.max_bad"
    )
    assert "\n  train-00000.tar/c: why not\n" in told
    assert f"`python -m fourds_dist.pack verify '{split.url}' --decode`" in told
    assert str(quarantine.error("no image is left")).startswith(
        f"{split.url} (train): no image is left; this worker"
    )
    shared = Quarantine.of(split, 0.3, world_size=2)  # 0.75 of a sample
    shared.add("x", "")
    with pytest.raises(DataError, match="its budget is 1"):
        shared.add("y", "")


def test_the_file_that_a_sample_was_packed_from(tmp_path: Path) -> None:
    split = split_of(tmp_path / "set", [2])
    path, index = Path(split.index_url(0)), index_of(split, 0)
    path.write_bytes(replace(index, sources=np.array(["cat/1.png", "dog/2.png"])).to_bytes())
    assert "dog/2.png" in packed_from_of(split, "train-00000.tar/00001")
    assert packed_from_of(split, "train-00000.tar/gone") == packed_from_of(split, "train-7.tar/00001") == ""
    path.unlink()
    assert packed_from_of(split, "train-00000.tar/00001") == ""
