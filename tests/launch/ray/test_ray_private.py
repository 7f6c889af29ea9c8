"""Ray still has each private name that `ray_private` uses, under that name and with that meaning."""

from __future__ import annotations

import inspect

import pytest
import ray
from ray._private import worker
from ray.exceptions import RayError
from ray.train.v2._internal import constants
from ray.train.v2._internal.execution.checkpoint import checkpoint_manager
from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker

from fourds_dist.launch.ray import ray_private


def test_the_list_of_checkpoints() -> None:
    assert constants.CHECKPOINT_MANAGER_SNAPSHOT_FILENAME == ray_private.CHECKPOINT_LIST
    assert "checkpoint_results" in checkpoint_manager._CheckpointManagerState.model_fields
    assert "checkpoint_dir_name" in checkpoint_manager._TrainingResultState.model_fields


def test_the_title_of_a_worker() -> None:
    assert RayTrainWorker.__name__ == ray_private.WORKER_TITLE


def test_the_node_of_this_process() -> None:
    assert hasattr(worker, "_global_node")
    assert callable(ray._private.node.Node.is_head)


def test_what_prints_the_lines_of_workers(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(inspect.signature(worker.print_to_stdstream).parameters) == ["data", "ignore_prefix"]
    before = worker.print_to_stdstream
    data = {"ip": "1", "pid": 7, "job": None, "is_err": False, "actor_name": None, "task_name": None}
    with ray_private.without_warning("many processes"):
        for line in ("many processes here", "another line"):
            worker.print_to_stdstream(data | {"lines": [line]}, ignore_prefix=False)
    out = capsys.readouterr().out
    assert "another line" in out
    assert "many processes" not in out
    assert worker.print_to_stdstream is before


def test_exceptions_of_ray_train() -> None:
    for kind in (ray_private.CollectiveTimeoutError, ray_private.WorkerHealthCheckTimeoutError):
        assert issubclass(kind, RayError | Exception)
    assert "_base_exc" in inspect.getsource(ray_private.UserExceptionWithTraceback)
    assert "health_check_failure" in inspect.getsource(ray_private.WorkerHealthCheckFailedError)
