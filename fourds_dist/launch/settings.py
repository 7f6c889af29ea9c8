"""The `launch` section of the configuration; importing it does not import Ray."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fourds_dist.config import Section


class LaunchConfig(Section):
    """Workers, their resources, and what happens when one fails."""

    runner: Literal["ray", "inline"] = "ray"
    """`ray`: workers of Ray Train, in the running cluster or a local one. `inline`: this process (or torchrun's
    processes), without Ray."""

    workers: int = Field(default=1, ge=1)
    """Number of workers (ranks), each with one GPU where use_gpu says so."""

    use_gpu: bool | None = None
    """Whether every worker gets a GPU; null: if the cluster has any."""

    cpus_per_worker: float = Field(default=1.0, gt=0)
    """CPUs reserved for each worker; a fraction lets more workers share a core."""

    wait_s: float = Field(default=600.0, ge=0)
    """Seconds to wait until the cluster has the resources, before giving up."""

    max_failures: int = Field(default=3, ge=-1)
    """How many times a failed worker group starts again from its newest checkpoint; -1: always."""
