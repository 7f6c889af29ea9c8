"""A Ray Train worker: one rank of one stage."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal, NamedTuple

import ray
import ray.train

from fourds_dist.launch.ray.prometheus import PrometheusGauges
from fourds_dist.launch.ray.ray_private import listed_checkpoints
from fourds_dist.runs.events import Event
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.runs.layout import checkpoint_name
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.stages import run_stage
from fourds_dist.training.checkpoint.checkpoint_store import FolderStore
from fourds_dist.training.checkpoint.learning_state import CheckpointRefusedError
from fourds_dist.training.stop_signals import Stopped

PREEMPTION_POLL_S = 5.0
"""Seconds between two checks for preemption; each check is a barrier of some milliseconds."""


class StageExit(NamedTuple):
    """Return value of a stage's workers. Ray restarts workers that raise an exception, but not workers that return."""

    kind: Literal["done", "stopped", "failed"]
    reason: StopReason | None = None
    """Why the workers stopped."""
    step: int = 0
    """Step of the checkpoint with which the workers stopped."""
    error: str = ""
    """Message of the failure."""

    @property
    def is_preempted(self) -> bool:
        """Whether the workers stopped for a preemption, and must be started again."""
        return self.reason is not None and self.reason.kind == StopKind.PREEMPTED


def train_worker(config: dict[str, Any]) -> StageExit:
    """Ray Train's `train_loop_per_worker`.

    Args:
        config: "stage", "settings" (JSON), "channel" (the driver's `EventChannel` actor) and "environment" (variables
            of the driver to set here).
    """
    os.environ.update(config.get("environment", {}))
    settings = Settings.model_validate_json(config["settings"])
    link = DriverLink(config["channel"])
    url = RunFolder(settings.run_url).path(config["stage"])

    def make_store(note: Callable[[str], None]) -> RayStore:
        return RayStore(FolderStore(url, keep=None, retry_timeout_s=settings.run.retry_timeout_s, note=note))

    try:
        run_stage(
            config["stage"],
            settings,
            make_store,
            link.put,
            PrometheusGauges(settings.run.name, config["stage"]),
            stop=link.stop_reason,
            restart_notes=link.restart_notes,
        )
    except Stopped as stopped:
        return StageExit("stopped", stopped.reason, stopped.step)
    except (FloatingPointError, CheckpointRefusedError) as error:  # a restart would fail again, on every rank
        return StageExit("failed", error=str(error))
    return StageExit("done")


class DriverLink:
    """Connection of a worker to the driver, through the event channel, and to Ray's preemption notices."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._reply: ray.ObjectRef | None = None
        self._reason: StopReason | None = None
        self._asked_s = 0.0

    def put(self, event: Event) -> None:
        """Send an event without waiting; the reply is the driver's stop request."""
        self._receive()
        self._reply = self._channel.put.remote(event)

    def restart_notes(self) -> list[str]:
        """Return the failures of earlier workers of this run, one line each."""
        return ray.get(self._channel.take_notes.remote(), timeout=60)

    def stop_reason(self, run_s: float) -> StopReason | None:
        """Return the driver's stop request, which only rank 0 receives, or Ray's preemption notice; None: neither."""
        self._receive()
        if run_s - self._asked_s >= PREEMPTION_POLL_S:  # the same on all ranks, since it is a barrier
            self._asked_s = run_s
            info = ray.train.get_preemption_info()
            if info is not None:
                self._reason = self._reason or StopReason(StopKind.PREEMPTED, tuple(info.preempted_ranks))
        return self._reason

    def _receive(self) -> None:
        if self._reply is not None and ray.wait([self._reply], timeout=0)[0]:
            self._reason = ray.get(self._reply) or self._reason
            self._reply = None


class RayStore:
    """Checkpoints that are registered with `ray.train.report` and written by a `FolderStore`.

    Ray calls the upload function in a thread, which writes each checkpoint atomically, and removes old checkpoints that
    it has registered. A checkpoint that was written but not registered before a kill is found at the next start, and
    `newest` removes it when it is old.
    """

    def __init__(self, folder: FolderStore) -> None:
        self._folder = folder
        self._pending: Future[None] | None = None

    def save(
        self, state: dict[str, Any] | None, step: int, accuracies: dict[str, float], *, wait: bool = False
    ) -> None:
        """Save a checkpoint; a barrier of all ranks. Rank 0 passes the state, and waits for its previous save first."""
        report = {"step": step, "accuracies": accuracies}
        if state is None:
            ray.train.report(report)
            return
        self.close()
        written: Future[None] = Future()

        def upload(checkpoint: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
            try:
                self._folder.write(state, name)
            except BaseException as error:
                written.set_exception(error)
                raise
            written.set_result(None)
            return checkpoint

        storage: Any = ray.train.get_context().get_storage()
        checkpoint = ray.train.Checkpoint(
            storage.build_checkpoint_path_from_name(checkpoint_name(step)), storage.storage_filesystem
        )
        self._pending = written
        ray.train.report(
            report,
            checkpoint=checkpoint,
            checkpoint_dir_name=checkpoint_name(step),
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=False,
            checkpoint_upload_fn=upload,
        )
        if wait:
            self.close()

    def newest(self) -> str | None:
        """Return the name of the newest complete checkpoint, registered with Ray or not; rank 0 calls this first."""
        newest = self._folder.newest()
        if newest is not None:
            self._folder.prune([newest, *listed_checkpoints(RunFolder(self._folder.url))])
        return newest

    def read(self, name: str) -> dict[str, Any]:
        """Return the state of a checkpoint."""
        return self._folder.read(name)

    def close(self) -> None:
        """Wait until the last checkpoint is written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
