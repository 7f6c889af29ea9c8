"""What a job of `ray job submit` finds of the machine that submitted it: its working folder, for as long as it runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def is_job(here: Path) -> bool:
    """Whether a working folder is one that Ray has unpacked for a job, and removes after it."""
    return "runtime_resources" in here.parts


def left_behind(given: Mapping[str, str], here: Path, base: Path) -> str:
    """A line for the end of an error where files that were given are not found from a job; empty where all are.

    Args:
        given: what each is, e.g. its key -> relative path.
        here: the working folder of the job.
        base: what other relative paths than the configuration's are relative to.
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
                f"{what}: {path} was uploaded under {uploaded}, but it goes with the job; put it into a store that "
                "every node reads, and give its URL"
            )
        else:
            lines.append(
                f"{what}: {path} is not here; only the working folder (`ray job submit --working-dir`) travels with a "
                "job, so put it there if it is a configuration, and into a store if it is data or weights"
            )
    return "".join(f"\n{line}" for line in lines)
