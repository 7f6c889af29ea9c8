"""Both stages in this process, or in torchrun's: no Ray. For tests, benchmarks and machines without it.

python -m fourds_dist.train configs/quickstart.yaml launch.runner=inline
torchrun --nproc-per-node 2 -m fourds_dist.train configs/quickstart.yaml launch.runner=inline
"""

from __future__ import annotations

import torch.distributed as dist

from fourds_dist.settings import Settings
from fourds_dist.training.checkpoint import FolderStore
from fourds_dist.training.progress import ProgressView
from fourds_dist.training.run_folder import RunFolder
from fourds_dist.training.stages import DONE, run_stage, stages_to_run
from fourds_dist.training.world import World


def run_inline(settings: Settings, world: World) -> None:
    """Run the stages that the run's folder does not hold finished yet.

    Raises:
        ValueError: checkpoints cannot be kept in object storage without Ray.
    """
    folder = RunFolder(settings.run_url)
    if not folder.is_local:
        raise ValueError(
            f"run.dir={settings.run.dir}: launch.runner=inline keeps checkpoints on local disks only"
        )
    view = ProgressView()
    try:
        for stage in stages_to_run(settings):
            done = world.gather(folder.exists(DONE[stage]))[
                0
            ]  # rank 0's view: it may finish a file meanwhile
            if not done:
                run_stage(stage, settings, lambda stage=stage: FolderStore(folder.path(stage)), view)
    finally:
        view.close()
        if dist.is_initialized():
            dist.destroy_process_group()
