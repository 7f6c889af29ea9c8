"""A run's stages as Ray Train runs: in the running cluster where there is one, else in a local one.

Each stage is one `TorchTrainer.fit()`, stored under the run's folder by the stage's name; a run that is started again
under the same name goes on from its newest checkpoint.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any

from fourds_dist.launch.ray_cluster import LaunchError, await_workers, cluster, worker_resources  # isort: skip  (sets Ray's environment first)

import fsspec
import pyarrow.fs
import ray
import ray.exceptions
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from fourds_dist.command import interrupt_at_sigterm
from fourds_dist.launch.board import watched_board
from fourds_dist.launch.worker import Ending, counted, train_worker
from fourds_dist.launch.worker_failures import Witness, describe_exceptions
from fourds_dist.runs.events import Sink
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.runs.layout import CHECKPOINT_STATE, DONE, RAY_CHECKPOINTS, StageName
from fourds_dist.settings import Settings
from fourds_dist.storage import is_driver_s
from fourds_dist.training.patience import patiently, short
from fourds_dist.training.preflight import check_device
from fourds_dist.training.progress import ProgressView
from fourds_dist.training.run_folder import RunFolder
from fourds_dist.training.stages import stages_to_run
from fourds_dist.training.stop import Stopped
from fourds_dist.training.tracking import OBEYED


class HopelessError(LaunchError):
    """A stage that would fail again in the same way: its loss is no number, its checkpoint is another run's."""


def run_on_ray(settings: Settings) -> None:
    """Run the stages that the run's folder does not hold finished yet.

    Raises:
        LaunchError: resources that do not come within launch.wait_s, or a stage that failed.
        Stopped: by SIGTERM or Ctrl-C, with a checkpoint.
    """
    folder = RunFolder(settings.run_url)
    left: list[StageName] = [stage for stage in stages_to_run(settings) if not folder.exists(DONE[stage])]
    if not left:
        return
    with cluster(settings) as is_ours:
        await_workers(settings.launch, wait_s=0 if is_ours else settings.launch.wait_s)
        for stage in left:
            view = ProgressView()
            try:
                run_stage_on_ray(stage, settings, view)
            finally:
                view.close()


def run_stage_on_ray(
    stage: StageName,
    settings: Settings,
    show: Sink,
    meanwhile: Callable[[], StopReason | None] = lambda: None,
) -> None:
    """One stage in the cluster that this process has joined, to its end.

    Args:
        show: takes the events as they come, in a thread of its own.
        meanwhile: called twice a second, in this thread; gives why the workers are to leave, if they are. They also
            leave where it raises anything.

    Raises:
        HopelessError: a stage that would fail again in the same way.
        LaunchError: a stage that failed more often than launch.max_failures, workers and their controller apart.
        Stopped: by `meanwhile`, SIGTERM or Ctrl-C, with a checkpoint.
    """
    launch, num_failures = settings.launch, 0
    notes: list[str] = []
    while True:
        try:
            ending = _fit(stage, settings, show, meanwhile, notes)
        except ray.train.ControllerError as error:  # which Ray itself never tries again
            num_failures += 1
            notes = [f"storage failed under Ray's controller ({short(error.controller_failure)})"]
            if 0 <= launch.max_failures < num_failures:
                raise LaunchError(f"{stage} stage failed: {notes[0]}") from error
            continue
        if not ending.is_preempted:
            break
        notes = []
        # Workers have left a node that goes before it went; the others and its successor take over.
        await_workers(launch, wait_s=launch.wait_s)
    if ending.reason is not None:
        raise Stopped(ending.reason, ending.step)
    if ending.kind == "failed":
        raise HopelessError(f"{stage} stage: {ending.error}")


def _fit(
    stage: StageName,
    settings: Settings,
    show: Sink,
    meanwhile: Callable[[], StopReason | None],
    notes: list[str],
) -> Ending:
    """One `TorchTrainer.fit()`.

    Args:
        notes: lines for the log of the run, which the workers write.

    Raises:
        ray.train.ControllerError: storage failed under Ray's controller; workers find what they have written.
        LaunchError: anything else.
    """
    launch = settings.launch
    resources = worker_resources(launch)
    check_device(settings, on_gpu="GPU" in resources)
    os.environ["RAY_TRAIN_COLLECTIVE_TIMEOUT_S"] = str(launch.collective_timeout_s)
    folder = RunFolder(RunFolder(settings.run_url).path(stage))
    what = f"{folder.path(RAY_CHECKPOINTS)} could not be read"
    patiently(lambda: _drop_torn_snapshot(folder), what, patience_s=settings.run.patience_s)
    with watched_board(show) as board:
        for text in notes:
            board.note.remote(text)
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={
                "stage": stage,
                "settings": settings.model_dump_json(),
                "board": board,
                "environment": {name: os.environ[name] for name in OBEYED if name in os.environ},
            },
            torch_config=TorchConfig(timeout_s=round(launch.collective_timeout_s)),
            scaling_config=ray.train.ScalingConfig(
                num_workers=launch.workers,
                use_gpu="GPU" in resources,
                resources_per_worker=resources,
                label_selector=launch.label_selector or None,
                elastic_resize_monitor_interval_s=launch.resize_every_s,
            ),
            run_config=ray.train.RunConfig(
                name=stage,
                failure_config=ray.train.FailureConfig(max_failures=launch.max_failures),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=settings.run.keep_checkpoints),
                callbacks=[Witness(board, stage)],
                **_storage(settings.run_url),
            ),
        )
        try:
            return _fit_until_told(trainer, board, launch.grace_s, meanwhile)
        except ray.train.WorkerGroupError as error:
            raise LaunchError(
                f"{stage} stage failed: {describe_exceptions(error.worker_failures)}"
            ) from error
        except ray.train.TrainingFailedError as error:
            if isinstance(error, ray.train.ControllerError) and _is_of_storage(error.controller_failure):
                raise
            raise LaunchError(f"{stage} stage failed: {_last_line(error)}") from error
        except ray.exceptions.RayError as error:
            raise LaunchError(
                f"{stage} stage: the cluster is out of reach ({_last_line(error)[:160]}); the same command goes on "
                "from the newest checkpoint once it is back"
            ) from error


def _fit_until_told(
    trainer: TorchTrainer, board: Any, grace_s: float, meanwhile: Callable[[], StopReason | None]
) -> Ending:
    """`trainer.fit()`, until Ctrl-C, SIGTERM or `meanwhile` asks the workers to leave.

    It runs in a thread, where Ray Train leaves the signals to us; its own answer to Ctrl-C is to end without a
    checkpoint. Workers that left for another reason before they heard of `meanwhile`'s count as stopped.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM, where the workers did not leave for it: they were done, slow, or failed.
    """
    result: Future[Ending] = Future()

    def run() -> None:
        try:
            value: Any = trainer.fit().return_value
            result.set_result(Ending(*value))
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, name="fit", daemon=True).start()
    with sigterm_interrupts():
        try:
            while not wait([result], timeout=0.5).done:
                if reason := meanwhile():
                    board.stop.remote(reason)
                    ending = result.result(timeout=grace_s)
                    return ending._replace(reason=reason) if ending.is_preempted else ending
            return result.result()
        except KeyboardInterrupt:
            board.stop.remote(StopReason(StopKind.INTERRUPTED))
            try:
                ending = result.result(timeout=grace_s)
            except (TimeoutError, ray.train.ControllerError):
                raise KeyboardInterrupt from None
            if ending.kind == "done" or ending.is_preempted:
                raise
            return ending
        except BaseException:
            # `meanwhile` ends a trial of a sweep by raising SystemExit; its workers go as well.
            if not result.done():
                board.stop.remote(StopReason(StopKind.DRIVER_ENDED))
                wait([result], timeout=grace_s)
            raise


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM is a KeyboardInterrupt inside; `ray.init` has put a handler of its own in place of ours."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    interrupt_at_sigterm()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _drop_torn_snapshot(stage: RunFolder) -> None:
    """Remove Ray Train's list of checkpoints where a kill tore it, or where it names one that is gone.

    Ray refuses to start with such a list. We do without it: the newest checkpoint is found in the folder.
    """
    try:
        whole = all(stage.exists(f"{name}/{CHECKPOINT_STATE}") for name in counted(stage))
    except ValueError:
        whole = False
    if not whole:
        fs, path = fsspec.core.url_to_fs(stage.path(RAY_CHECKPOINTS))
        fs.rm(path)


def _is_of_storage(error: BaseException | None) -> bool:
    """Whether a file system or a store's driver failed, other than for want of rights."""
    if error is None or isinstance(error, PermissionError | ray.exceptions.RayError):
        return False
    return isinstance(error, OSError) or is_driver_s(error) or _is_of_storage(error.__cause__)


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def _storage(url: str) -> dict[str, Any]:
    """Ray's storage arguments; object stores through fsspec, so that they take the credentials the data takes."""
    if "://" not in url:
        return {"storage_path": url}
    filesystem, path = fsspec.core.url_to_fs(url)
    return {
        "storage_path": path,
        "storage_filesystem": pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem)),
    }
