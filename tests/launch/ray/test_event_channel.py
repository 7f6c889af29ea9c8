"""The driver's reaction to a truncated list of checkpoints, a lost cluster and a lost store."""

from __future__ import annotations

import json
import pickle
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray.exceptions
from ray.train import ControllerError

from fourds_dist.launch.ray import train as ray_train
from fourds_dist.launch.ray.train import LaunchError, _remove_invalid_list, run_stage_on_ray
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.settings import Settings


@pytest.mark.parametrize("torn", ["", '{"checkpoint_results": [{"checkp', "{}", "gone"])
def test_a_truncated_list_of_checkpoints_is_dropped(tmp_path: Path, torn: str) -> None:
    whole = {"checkpoint_results": [{"checkpoint_dir_name": "checkpoint-00000005", "metrics": {}}]}
    snapshot = tmp_path / "checkpoint_manager_snapshot.json"
    snapshot.write_text(json.dumps(whole))
    held = tmp_path / "checkpoint-00000005"
    held.mkdir()
    (held / "state.pt").touch()
    stage = RunFolder(str(tmp_path))
    _remove_invalid_list(stage)
    assert snapshot.exists()
    if torn == "gone":
        (held / "state.pt").unlink()
    else:
        snapshot.write_text(torn)
    _remove_invalid_list(stage)
    assert not snapshot.exists()
    _remove_invalid_list(stage)


def test_a_lost_cluster_is_reported_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost:
        def __init__(self, *_: object, **__: object) -> None: ...

        def fit(self) -> None:
            raise ray.exceptions.ActorUnavailableError("Socket closed", None)

    monkeypatch.setattr(ray_train, "TorchTrainer", Lost)
    monkeypatch.setattr(ray_train, "open_event_channel", lambda _: nullcontext())
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
    channel = SimpleNamespace(note=SimpleNamespace(remote=notes.append))
    monkeypatch.setattr(Away, "num_away", num_away)
    monkeypatch.setattr(Away, "fits", 0)
    monkeypatch.setattr(ray_train, "TorchTrainer", Away)
    monkeypatch.setattr(ray_train, "open_event_channel", lambda _: nullcontext(channel))
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
