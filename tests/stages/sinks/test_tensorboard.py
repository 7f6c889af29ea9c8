"""Event files, read back as TensorBoard reads them: records of protocol buffers."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorboardX")
from tensorboardX.proto.event_pb2 import Event as Record

from fourds_dist.io.storage import locate
from fourds_dist.runs.events import EpochEnded, Note, StageEnded, StepLogged, TimeShares, Validation
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.sinks.tensorboard import starter

EPOCH = EpochEnded(
    step=4, stage="source", time=4.0, epoch=1, loss=2.5, images_per_s=32.0,
    validation={"teacher": Validation(0.5, 1.5)}, num_evaluated=4, is_best=True, left_s=3.0,
)  # fmt: skip


def step(number: int) -> StepLogged:
    return StepLogged(
        step=number, stage="source", time=float(number), epoch=0.5, loss=number / 2, losses={}, images_per_s=32.0,
        shares=TimeShares(0.25), learning_rates={"teacher": 0.1},
    )  # fmt: skip


def records(url: str) -> Iterator[Any]:
    """The records of all event files of a folder, in the order of their files."""
    fs, path = locate(url)
    for file in sorted(fs.ls(path, detail=False)):
        data, begin = fs.cat_file(file), 0
        while begin < len(data):
            (size,) = struct.unpack("<Q", data[begin : begin + 8])
            yield Record.FromString(data[begin + 12 : begin + 12 + size])
            begin += size + 16


def scalars(url: str) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value) of each scalar."""
    found: dict[str, list[tuple[int, float]]] = {}
    for record in records(url):
        for value in record.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, []).append((record.step, value.simple_value))
    return found


@pytest.mark.parametrize("place", ["disk", "store"])
def test_events_are_read_back(place: str, tmp_path: Path) -> None:
    url = str(tmp_path / "run") if place == "disk" else f"memory://tensorboard-{tmp_path.name}/run"
    sink = starter(RunFolder(url), "source", "run: {}")()
    for event in (step(2), step(4), EPOCH, Note(step=4, stage="source", text="slow disk")):
        sink(event)
    assert scalars(f"{url}/tensorboard/source")["loss"] == [(2, 1.0), (4, 2.0), (4, 2.5)]  # before it ends
    sink(StageEnded(step=4, stage="source", peak_memory_bytes=None))
    found = scalars(f"{url}/tensorboard/source")
    assert found["lr/teacher"] == [(2, pytest.approx(0.1)), (4, pytest.approx(0.1))]
    assert found["val/teacher"] == [(4, 0.5)]
    assert {record.wall_time for record in records(f"{url}/tensorboard/source")} >= {2.0, 4.0}
    texts = [value.tensor.string_val[0].decode() for record in records(f"{url}/tensorboard/source")
             for value in record.summary.value if value.tensor.string_val]  # fmt: skip
    assert texts == ["```yaml\nrun: {}\n```", "slow disk"]


def test_a_resumed_stage_replaces_the_steps_that_run_again(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    killed, resumed = (starter(folder, "source", "")() for _ in range(2))
    killed(step(4))
    resumed(EPOCH)
    assert any(
        record.session_log.status == record.session_log.START and record.step == 5
        for record in records(str(tmp_path / "tensorboard" / "source"))
    )
    for sink in (killed, resumed):
        sink(StageEnded(step=4, stage="source", peak_memory_bytes=None))
