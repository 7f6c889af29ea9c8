"""The base folder of relative paths in a command."""

from __future__ import annotations

import sys
from pathlib import Path

from fourds_dist.launch.ray.job import is_job


def base_folder() -> Path:
    """Return the base folder of relative paths: the working folder, or the home folder in a Ray job."""
    here = Path.cwd()
    if is_job(here):
        print(
            f"relative paths are relative to {Path.home()}, since Ray removes the working folder of this job",
            file=sys.stderr,
        )
        return Path.home()
    return here
