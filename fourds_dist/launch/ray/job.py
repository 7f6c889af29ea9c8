"""Working folder of a job of `ray job submit`: Ray uploads the folder, and removes it after the job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def is_job(here: Path) -> bool:
    """Return whether a working folder is that of a Ray job."""
    return "runtime_resources" in here.parts


def left_behind(given: Mapping[str, str], here: Path, base: Path) -> str:
    """Return lines for the end of an error that list given files that the job does not find; empty without such files.

    Args:
        given: key or kind of a file -> relative path.
        here: the working folder of the job.
        base: base folder of the relative paths.
    """
    if not is_job(here):
        return ""
    lines = []
    for what, path in given.items():
        if (base / path).exists():
            continue
        uploaded = here / path
        if uploaded.exists():
            lines.append(
                f"{what}: {path} was uploaded under {uploaded}, but Ray removes it after the job; put it into a store "
                "that every node reads, and give its URL"
            )
        else:
            lines.append(
                f"{what}: {path} is not here; only the working folder (`ray job submit --working-dir`) is uploaded "
                "with a job; put a configuration into this folder, and data or weights into a store"
            )
    return "".join(f"\n{line}" for line in lines)
