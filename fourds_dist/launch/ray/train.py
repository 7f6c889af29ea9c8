"""Stages of a run as Ray Train runs, in a running cluster or in a local one.

Each stage is one `TorchTrainer.fit()`, stored in the run's folder under the name of the stage. A run that starts again
under the same name resumes from its newest checkpoint.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any

from fourds_dist.launch.ray.cluster import LaunchError, await_workers, cluster, worker_resources  # isort: skip  (sets Ray's environment first)

import fsspec
import pyarrow.fs
import ray
import ray.exceptions
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from fourds_dist.config.stage_names import StageName
from fourds_dist.io.error_text import error_line
from fourds_dist.io.retry import with_retries
from fourds_dist.io.storage import is_driver_error
from fourds_dist.launch.observer import RunObserver
from fourds_dist.launch.ray.event_channel import open_event_channel
from fourds_dist.launch.ray.ray_private import CHECKPOINT_LIST, listed_checkpoints
from fourds_dist.launch.ray.worker import StageExit, train_worker
from fourds_dist.launch.ray.worker_failures import FailureReporter, describe_exceptions
from fourds_dist.processes.signals import sigterm_as_ctrl_c
from fourds_dist.runs.events import Event, Sink
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.runs.layout import CHECKPOINT_STATE, DONE
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.preflight import check_device
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.sinks.console import ProgressView
from fourds_dist.stages.sinks.trackers import OBEYED
from fourds_dist.stages.stages import stages_to_run
from fourds_dist.training.distributed.world import hardware_queues
from fourds_dist.training.stop_signals import Stopped


class NonRetryableError(LaunchError):
    """A stage failed, and a retry would fail too: its loss is not finite, or its checkpoint is that of another run."""


def run_on_ray(settings: Settings, observer: RunObserver | None = None) -> None:
    """Run the stages that are not finished in the run's folder.

    Args:
        observer: receives the events of the run, and may stop the run; None: nobody does.

    Raises:
        LaunchError: no resources within launch.wait_s, or a stage failed.
        Stopped: SIGTERM, Ctrl-C or the observer stopped the run, with a checkpoint.
    """
    observer = observer or RunObserver()
    folder = RunFolder(settings.run_url)
    left: list[StageName] = [stage for stage in stages_to_run(settings) if not folder.exists(DONE[stage])]
    if not left:
        return
    with cluster(settings) as is_ours:
        await_workers(settings.launch, wait_s=0 if is_ours else settings.launch.wait_s)
        for stage in left:
            view = ProgressView()

            def show(event: Event, view: ProgressView = view) -> None:
                if not observer.is_quiet:
                    view(event)
                observer.sink(event)

            try:
                run_stage_on_ray(stage, settings, show, observer.stop_reason)
            finally:
                view.close()


def run_stage_on_ray(
    stage: StageName,
    settings: Settings,
    show: Sink,
    meanwhile: Callable[[], StopReason | None] = lambda: None,
) -> None:
    """Run one stage to its end in the cluster that this process has joined.

    Args:
        show: receives the events, in a separate thread.
        meanwhile: called twice a second in this thread; returns the reason of a stop request, or None. An exception of
            `meanwhile` also stops the workers.

    Raises:
        NonRetryableError: the stage failed, and a retry would fail too.
        LaunchError: the stage failed more than launch.max_failures times; failures of the workers and of the controller
            are counted separately.
        Stopped: `meanwhile`, SIGTERM or Ctrl-C stopped the stage, with a checkpoint.
    """
    launch, num_failures = settings.launch, 0
    notes: list[str] = []
    while True:
        try:
            ending = _fit(stage, settings, show, meanwhile, notes)
        except ray.train.ControllerError as error:  # Ray does not retry these
            num_failures += 1
            notes = [f"storage failed under Ray's controller ({error_line(error.controller_failure)})"]
            if 0 <= launch.max_failures < num_failures:
                raise LaunchError(f"{stage} stage failed: {notes[0]}") from error
            continue
        if not ending.is_preempted:
            break
        notes = []
        # Workers have stopped on a preempted node; the other nodes and its replacement continue.
        await_workers(launch, wait_s=launch.wait_s)
    if ending.reason is not None:
        raise Stopped(ending.reason, ending.step)
    if ending.kind == "failed":
        raise NonRetryableError(f"{stage} stage: {ending.error}")


def _fit(
    stage: StageName,
    settings: Settings,
    show: Sink,
    meanwhile: Callable[[], StopReason | None],
    notes: list[str],
) -> StageExit:
    """Run one `TorchTrainer.fit()`.

    Args:
        notes: lines that the workers write to the log of the run.

    Raises:
        ray.train.ControllerError: storage failed under Ray's controller; a retry resumes from the newest checkpoint.
        LaunchError: any other failure.
    """
    launch = settings.launch
    resources = worker_resources(launch)
    check_device(settings, on_gpu="GPU" in resources)
    os.environ["RAY_TRAIN_COLLECTIVE_TIMEOUT_S"] = str(launch.collective_timeout_s)
    folder = RunFolder(RunFolder(settings.run_url).path(stage))
    what = f"{folder.path(CHECKPOINT_LIST)} could not be read"
    with_retries(lambda: _remove_invalid_list(folder), what, retry_timeout_s=settings.run.retry_timeout_s)
    with open_event_channel(show) as channel:
        for text in notes:
            channel.note.remote(text)
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={
                "stage": stage,
                "settings": settings.model_dump_json(),
                "channel": channel,
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
                callbacks=[FailureReporter(channel, stage)],
                # Ray starts CUDA in a worker before it imports this package.
                worker_runtime_env=_starting_environment("GPU" in resources),
                **_storage(settings.run_url),
            ),
        )
        try:
            return _fit_until_stopped(trainer, channel, launch.grace_s, meanwhile)
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
                f"{stage} stage: the cluster is out of reach ({_last_line(error)[:160]}); once it is back, the same "
                "command resumes from the newest checkpoint"
            ) from error


def _starting_environment(on_gpu: bool) -> dict[str, dict[str, str]] | None:
    """Return the runtime environment in which workers start; without variables None, which starts faster."""
    variables = hardware_queues(os.environ) if on_gpu else {}
    return {"env_vars": variables} if variables else None


def _fit_until_stopped(
    trainer: TorchTrainer, channel: Any, grace_s: float, meanwhile: Callable[[], StopReason | None]
) -> StageExit:
    """Run `trainer.fit()` until its end or a stop request by Ctrl-C, SIGTERM or `meanwhile`.

    `fit` runs in a thread, where Ray Train installs no signal handlers; its handler of Ctrl-C would end without a
    checkpoint. Workers that stopped for a preemption before they received the request of `meanwhile` count as stopped.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM, but the workers were done, failed, or did not stop within `grace_s`.
    """
    result: Future[StageExit] = Future()

    def run() -> None:
        try:
            value: Any = trainer.fit().return_value
            result.set_result(StageExit(*value))
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, name="fit", daemon=True).start()
    with sigterm_interrupts():
        try:
            while not wait([result], timeout=0.5).done:
                if reason := meanwhile():
                    channel.stop.remote(reason)
                    ending = result.result(timeout=grace_s)
                    return ending._replace(reason=reason) if ending.is_preempted else ending
            return result.result()
        except KeyboardInterrupt:
            channel.stop.remote(StopReason(StopKind.INTERRUPTED))
            try:
                ending = result.result(timeout=grace_s)
            except (TimeoutError, ray.train.ControllerError):
                raise KeyboardInterrupt from None
            if ending.kind == "done" or ending.is_preempted:
                raise
            return ending
        except BaseException:
            # `meanwhile` ends a trial of a sweep by SystemExit; the workers stop too.
            if not result.done():
                channel.stop.remote(StopReason(StopKind.DRIVER_ENDED))
                wait([result], timeout=grace_s)
            raise


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Make SIGTERM raise KeyboardInterrupt while the context lasts; `ray.init` replaced the command's handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    sigterm_as_ctrl_c()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _remove_invalid_list(stage: RunFolder) -> None:
    """Remove Ray Train's list of checkpoints if it is truncated, or names a checkpoint that does not exist.

    Ray does not start with such a list. The newest checkpoint is found in the folder without the list.
    """
    try:
        is_valid = all(stage.exists(f"{name}/{CHECKPOINT_STATE}") for name in listed_checkpoints(stage))
    except ValueError:
        is_valid = False
    if not is_valid:
        fs, path = fsspec.core.url_to_fs(stage.path(CHECKPOINT_LIST))
        fs.rm(path)


def _is_of_storage(error: BaseException | None) -> bool:
    """Return whether a file system or a store's driver failed, except for missing rights."""
    if error is None or isinstance(error, PermissionError | ray.exceptions.RayError):
        return False
    return isinstance(error, OSError) or is_driver_error(error) or _is_of_storage(error.__cause__)


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def _storage(url: str) -> dict[str, Any]:
    """Return Ray's storage arguments; URLs through fsspec, with the same credentials as data."""
    if "://" not in url:
        return {"storage_path": url}
    filesystem, path = fsspec.core.url_to_fs(url)
    return {
        "storage_path": path,
        "storage_filesystem": pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem)),
    }
