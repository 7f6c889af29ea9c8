"""What is told of failures, in one line, and what is done about a torn list of checkpoints."""

from __future__ import annotations

import json
import pickle
import traceback
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray.exceptions
from ray.train import ControllerError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

from fourds_dist.data import DataError
from fourds_dist.launch import ray_train
from fourds_dist.launch.board import reason_of, told
from fourds_dist.launch.ray_train import LaunchError, _drop_torn_snapshot, run_stage_on_ray
from fourds_dist.launch.settings import LaunchConfig
from fourds_dist.settings import Settings
from fourds_dist.training.patience import patiently
from fourds_dist.training.run_folder import RunFolder

EVERY_CAUSE = """Worker exit detail: Worker unexpectedly exits with a connection error code 2. Some causes: (1) it
was killed by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker crashed.
Node ID: 5b05. Prevent node deaths by resource contention, out of memory for one"""


class ActorDiedError(Exception):
    """As Ray's."""


class OutOfMemoryError(Exception):
    """As Ray's."""


@pytest.mark.parametrize(
    ("errors", "line"),
    [
        (
            {1: ActorDiedError(f"The actor died unexpectedly. {EVERY_CAUSE}")},
            "worker 1 was killed",
        ),
        (
            {0: ActorDiedError("The actor died because its node has died.")},
            "worker 0 was killed with its node",
        ),
        (
            {0: OutOfMemoryError("Task was killed due to the node running low on memory")},
            "worker 0 ran out of memory",
        ),
        ({1: RuntimeError(f"A worker health check failed. {EVERY_CAUSE}")}, "worker 1 was killed"),
        (
            {0: RuntimeError("gloo: Connection closed by peer"), 1: ActorDiedError("the actor died")},
            "worker 1 was killed",
        ),
        (
            {1: RuntimeError("[/gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer")},
            "worker 1 lost another one, which went without a word",
        ),
        (
            {0: RuntimeError("Traceback\n  x\nTimed out waiting 900000ms for recv")},
            "worker 0 waited too long for the others (Timed out waiting 900000ms for recv)",
        ),
        (
            {0: ValueError("a\nb is wrong"), 2: ValueError("c")},
            "worker 0 failed: b is wrong; worker 2 failed: c",
        ),
    ],
)
def test_failures_are_told_in_one_line(errors: dict[int, Exception], line: str) -> None:
    assert told(errors) == line


@pytest.mark.parametrize("torn", ["", '{"checkpoint_results": [{"checkp', "{}", "gone"])
def test_a_torn_list_of_checkpoints_is_dropped(tmp_path: Path, torn: str) -> None:
    whole = {"checkpoint_results": [{"checkpoint_dir_name": "checkpoint-00000005", "metrics": {}}]}
    snapshot = tmp_path / "checkpoint_manager_snapshot.json"
    snapshot.write_text(json.dumps(whole))
    held = tmp_path / "checkpoint-00000005"
    held.mkdir()
    (held / "state.pt").touch()
    stage = RunFolder(str(tmp_path))
    _drop_torn_snapshot(stage)
    assert snapshot.exists()
    if torn == "gone":
        (held / "state.pt").unlink()
    else:
        snapshot.write_text(torn)
    _drop_torn_snapshot(stage)
    assert not snapshot.exists()
    _drop_torn_snapshot(stage)


def test_workers_are_a_number_or_a_range() -> None:
    fixed, elastic = LaunchConfig(workers=3), LaunchConfig.model_validate_json('{"workers": [2, 4]}')
    assert (fixed.min_workers, fixed.max_workers) == (3, 3)
    assert (elastic.min_workers, elastic.max_workers) == (2, 4)
    with pytest.raises(ValueError, match=r"\[4, 2\] should be \[min, max\]"):
        LaunchConfig.model_validate_json('{"workers": [4, 2]}')


def test_deepspeed_has_its_own_key_for_what_gradients_travel_in() -> None:
    assert LaunchConfig(all_reduce="bfloat16").strategy == "ddp"
    with pytest.raises(ValueError, match=r"all_reduce is for strategy=ddp; see communication_data_type"):
        LaunchConfig(all_reduce="bfloat16", strategy="deepspeed")


def test_storage_and_data_that_fail_are_no_lost_peers() -> None:
    """As Ray hands them over, with their traceback, and as they are."""

    def away() -> None:
        raise ConnectionResetError("Connection reset by peer")

    with pytest.raises(OSError, match="tried for") as caught:
        patiently(away, "checkpoint s3://a/state.pt could not be written", patience_s=0, note=lambda _: None)
    for error in (caught.value, _wrapped(caught.value)):
        reason = reason_of(error)
        assert reason.startswith("failed: ")
        assert (
            "checkpoint s3://a/state.pt could not be written, tried for 0 s (ConnectionResetError" in reason
        )
    late = DataError("s3://b/0.tar: tried for 60 s (ConnectTimeoutError: Connect timeout on endpoint URL)")
    for error in (late, _wrapped(late)):
        assert reason_of(error).startswith("failed: ")
        assert "s3://b/0.tar" in reason_of(error)


def _wrapped(error: Exception) -> Exception:
    return UserExceptionWithTraceback(error, "".join(traceback.format_exception(error)))


def test_a_cluster_that_goes_away_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost:
        def __init__(self, *_: object, **__: object) -> None: ...

        def fit(self) -> None:
            raise ray.exceptions.ActorUnavailableError("Socket closed", None)

    monkeypatch.setattr(ray_train, "TorchTrainer", Lost)
    monkeypatch.setattr(ray_train, "watched_board", lambda _: nullcontext())
    settings = Settings.model_validate({"run": {"dir": str(tmp_path)}, "launch": {"use_gpu": False}})
    with pytest.raises(
        LaunchError, match=r"source stage: the cluster is out of reach \(.*Socket closed.*same command"
    ):
        run_stage_on_ray("source", settings, print)


class Away:
    """A trainer under whose controller the store is away for its first fits."""

    num_away, fits = 1, 0

    def __init__(self, *_: object, **__: object) -> None: ...

    def fit(self) -> object:
        type(self).fits += 1
        if self.fits > self.num_away:
            return SimpleNamespace(return_value=("done",))
        error = ControllerError(OSError(5, "Input/output error"))
        raise pickle.loads(pickle.dumps(error))  # as it comes from the controller


@pytest.mark.parametrize(("num_away", "max_failures"), [(1, 1), (4, -1), (2, 1)])
def test_a_store_that_is_away_under_ray_s_controller_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_away: int, max_failures: int
) -> None:
    notes: list[str] = []
    board = SimpleNamespace(note=SimpleNamespace(remote=notes.append))
    monkeypatch.setattr(Away, "num_away", num_away)
    monkeypatch.setattr(Away, "fits", 0)
    monkeypatch.setattr(ray_train, "TorchTrainer", Away)
    monkeypatch.setattr(ray_train, "watched_board", lambda _: nullcontext(board))
    launch = {"use_gpu": False, "max_failures": max_failures}
    settings = Settings.model_validate({"run": {"dir": str(tmp_path)}, "launch": launch})
    with (
        pytest.raises(LaunchError, match=r"source stage failed: storage failed under Ray's con.*Input/output")
        if 0 <= max_failures < num_away
        else nullcontext()
    ):
        run_stage_on_ray("source", settings, print)
    assert len(notes) == Away.fits - 1
    assert set(notes) == {"storage failed under Ray's controller (OSError: [Errno 5] Input/output error)"}
