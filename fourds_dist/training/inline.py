"""All stages in this process, or in torchrun's: no Ray. For tests, benchmarks and machines without it.

python -m fourds_dist.train configs/quickstart.yaml launch.runner=inline
torchrun --nproc-per-node 2 --max-restarts 3 -m fourds_dist.train configs/quickstart.yaml launch.runner=inline
"""

from __future__ import annotations

import torch.distributed as dist

from fourds_dist.runs.layout import DONE
from fourds_dist.settings import Settings
from fourds_dist.training.progress import ProgressView
from fourds_dist.training.run_folder import RunFolder
from fourds_dist.training.stages import run_stage, stages_to_run
from fourds_dist.training.stop import told_by_signals
from fourds_dist.training.store import FolderStore
from fourds_dist.training.world import World


def run_inline(settings: Settings, world: World) -> None:
    """Run the stages that the run's folder does not hold finished yet.

    Raises:
        Stopped: by SIGTERM or Ctrl-C, with a checkpoint.
    """
    folder = RunFolder(settings.run_url)
    view = ProgressView()
    try:
        with told_by_signals() as stop:
            for stage in stages_to_run(settings):
                # Rank 0's view counts: it may finish a file meanwhile.
                if world.gather(folder.exists(DONE[stage]))[0]:
                    continue
                run_stage(
                    stage,
                    settings,
                    lambda note, stage=stage: FolderStore(
                        folder.path(stage),
                        keep=settings.run.keep_checkpoints,
                        patience_s=settings.run.patience_s,
                        note=note,
                    ),
                    view,
                    stop=stop,
                )
    finally:
        view.close()
        if dist.is_initialized():
            dist.destroy_process_group()
