"""What runs inside a Ray Train worker: one rank of one stage."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal, NamedTuple

import ray
import ray.train

from fourds_dist.launch.gauges import Gauges
from fourds_dist.runs.events import Event
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.runs.layout import RAY_CHECKPOINTS, checkpoint_name
from fourds_dist.settings import Settings
from fourds_dist.training.checkpoint import CheckpointRefusedError
from fourds_dist.training.run_folder import RunFolder
from fourds_dist.training.stages import run_stage
from fourds_dist.training.stop import Stopped
from fourds_dist.training.store import FolderStore

PREEMPTION_POLL_S = 5.0
"""Seconds of training between two questions to Ray, each a barrier of some milliseconds."""


class Ending(NamedTuple):
    """How a stage's workers left by themselves. Ray tries again what they raise, and takes what they return."""

    kind: Literal["done", "stopped", "failed"]
    reason: StopReason | None = None
    """Why they stopped."""
    step: int = 0
    """Of the checkpoint with which they stopped."""
    error: str = ""
    """What failed."""

    @property
    def is_preempted(self) -> bool:
        """Whether they left a node that will be taken away, and are to be started again."""
        return self.reason is not None and self.reason.kind == StopKind.PREEMPTED


def train_worker(config: dict[str, Any]) -> Ending:
    """Ray Train's `train_loop_per_worker`.

    Args:
        config: "stage", "settings" (JSON), "board", the driver's `Board` actor, and "environment", variables of the
            driver's that hold here as well.
    """
    os.environ.update(config.get("environment", {}))
    settings = Settings.model_validate_json(config["settings"])
    line = Line(config["board"])
    place = RunFolder(settings.run_url).path(config["stage"])

    def make_store(note: Callable[[str], None]) -> RayStore:
        return RayStore(FolderStore(place, keep=None, patience_s=settings.run.patience_s, note=note))

    try:
        run_stage(
            config["stage"],
            settings,
            make_store,
            line.put,
            Gauges(settings.run.name, config["stage"]),
            stop=line.told_to_stop,
            happened=line.happened,
        )
    except Stopped as stopped:
        return Ending("stopped", stopped.reason, stopped.step)
    except (FloatingPointError, CheckpointRefusedError) as error:  # it would all happen again, on every rank
        return Ending("failed", error=str(error))
    return Ending("done")


def counted(stage: RunFolder) -> list[str]:
    """Names of the checkpoints on Ray Train's list.

    Raises:
        ValueError: a list that a kill tore.
    """
    if not stage.exists(RAY_CHECKPOINTS):
        return []
    try:
        return [
            entry["checkpoint_dir_name"] for entry in stage.read_json(RAY_CHECKPOINTS)["checkpoint_results"]
        ]
    except (UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{stage.path(RAY_CHECKPOINTS)} is torn") from error


class Line:
    """A worker's line to the driver, through the board, and to Ray's notices."""

    def __init__(self, board: Any) -> None:
        self._board = board
        self._answer: ray.ObjectRef | None = None
        self._told: StopReason | None = None
        self._asked_s = 0.0

    def put(self, event: Event) -> None:
        """Send an event; whether the driver wants to stop comes back with it, and is not waited for."""
        self._hear()
        self._answer = self._board.put.remote(event)

    def happened(self) -> list[str]:
        """What befell earlier workers of this run."""
        return ray.get(self._board.take_notes.remote(), timeout=60)

    def told_to_stop(self, run_s: float) -> StopReason | None:
        """What the driver said (rank 0 alone hears it), or Ray's notice that a node will be taken away."""
        self._hear()
        if run_s - self._asked_s >= PREEMPTION_POLL_S:  # all ranks ask, or none
            self._asked_s = run_s
            info = ray.train.get_preemption_info()
            if info is not None:
                self._told = self._told or StopReason(StopKind.PREEMPTED, tuple(info.preempted_ranks))
        return self._told

    def _hear(self) -> None:
        if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
            self._told = ray.get(self._answer) or self._told
            self._answer = None


class RayStore:
    """Checkpoints through `ray.train.report`, which knows of them; written and found as on any folder or URL.

    Ray writes them beside training, by a function of ours, so that they appear whole or not at all, and removes those
    that it has counted. One that was written but not yet counted when the run was killed is found all the same; that
    it goes in its turn is seen to at the next start.
    """

    def __init__(self, folder: FolderStore) -> None:
        self._folder = folder
        self._under_way: Future[None] | None = None

    def save(
        self, state: dict[str, Any] | None, step: int, accuracies: dict[str, float], *, wait: bool = False
    ) -> None:
        """A barrier of all ranks; rank 0 brings the state, and waits until its last one is written."""
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
        self._under_way = written
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
        """Name of the newest whole checkpoint, counted by Ray or not; asked at the start, by rank 0."""
        newest = self._folder.newest()
        if newest is not None:
            self._folder.prune([newest, *counted(RunFolder(self._folder.url))])
        return newest

    def read(self, name: str) -> dict[str, Any]:
        """A checkpoint's state."""
        return self._folder.read(name)

    def close(self) -> None:
        """Wait for what is still being written."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()
