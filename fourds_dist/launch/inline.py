"""Stages in this process or in the ranks of torchrun, without Ray.

python -m fourds_dist.train configs/quickstart.yaml launch.runner=inline
torchrun --nproc-per-node 2 --max-restarts 3 -m fourds_dist.train configs/quickstart.yaml launch.runner=inline
"""

from __future__ import annotations

import torch.distributed as dist

from fourds_dist.launch.observer import RunObserver
from fourds_dist.runs.layout import DONE
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.sinks.console import ProgressView
from fourds_dist.stages.stages import run_stage, stages_to_run
from fourds_dist.training.checkpoint.checkpoint_store import FolderStore
from fourds_dist.training.distributed.world import World
from fourds_dist.training.stop_signals import catch_signals


def run_inline(settings: Settings, world: World, observer: RunObserver) -> None:
    """Run the stages that are not finished in the run's folder.

    Args:
        observer: receives the events of the run on rank 0, and may stop the run, which has to be of one rank then.

    Raises:
        Stopped: SIGTERM, Ctrl-C or the observer stopped the run, with a checkpoint.
    """
    folder = RunFolder(settings.run_url)
    view = ProgressView()
    try:
        with catch_signals() as stop:
            for stage in stages_to_run(settings):
                # Rank 0 decides, since its file may appear while other ranks check.
                if world.gather(folder.exists(DONE[stage]))[0]:
                    continue
                run_stage(
                    stage,
                    settings,
                    lambda note, stage=stage: FolderStore(
                        folder.path(stage),
                        keep=settings.run.keep_checkpoints,
                        retry_timeout_s=settings.run.retry_timeout_s,
                        note=note,
                    ),
                    *([] if observer.is_quiet else [view]),
                    observer.sink,
                    stop=lambda run_s: stop(run_s) or observer.stop_reason(),
                )
    finally:
        view.close()
        if dist.is_initialized():
            dist.destroy_process_group()
