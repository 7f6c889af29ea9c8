"""The `launch` section of the configuration; importing it does not import Ray."""

from __future__ import annotations

import os
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fourds_dist.config.section import ConfigSection

Positive = Annotated[int, Field(ge=1, le=65536)]


class LaunchConfig(ConfigSection):
    """Workers, their resources, and the handling of failures."""

    runner: Literal["ray", "inline"] = "ray"
    """`ray`: workers of Ray Train, in the running cluster or a local one. `inline`: this process (or the processes of
    torchrun), without Ray."""

    workers: Positive | tuple[Positive, Positive] = 1
    """Number of workers (ranks), each with one GPU if use_gpu is true. `[min, max]`: as many as the cluster has
    resources for, fewer when nodes leave and more when nodes join; global batch, order of samples and learning rate
    stay the same."""

    use_gpu: bool | None = None
    """Whether every worker gets a GPU; null: if the cluster has GPUs."""

    cpus_per_worker: float = Field(default=1.0, gt=0)
    """CPUs reserved for each worker; a fraction lets more workers share a core."""

    gpus_per_worker: float = Field(default=1.0, gt=0)
    """GPUs reserved for each worker; a fraction lets runs of one worker share a GPU, as in a sweep."""

    accelerator_type: str | None = None
    """GPU type of every worker, by Ray's names (`L4`, `A100`, `H100`; nodes have the label ray.io/accelerator-type);
    null: any."""

    wait_s: float = Field(default=600.0, ge=0)
    """Seconds to wait until the cluster has the resources; then the run fails."""

    max_failures: int = Field(default=3, ge=-1)
    """Maximum number of restarts of a failed worker group from its newest checkpoint; -1: unlimited. Nodes that leave
    with notice do not count. Storage failures of Ray's controller are counted separately, with the same maximum."""

    resize_every_s: float = Field(default=60.0, gt=0)
    """workers=[min, max]: seconds between checks for resources for more workers. A change of size repeats the steps
    since the newest checkpoint."""

    grace_s: float = Field(default=60.0, gt=0)
    """Seconds for the workers to write a checkpoint after Ctrl-C or SIGTERM; a second Ctrl-C ends them at once."""

    collective_timeout_s: float = Field(default=900.0, gt=0)
    """Seconds for which a worker waits for other workers in a collective; then the group counts as failed."""

    strategy: Literal["ddp", "deepspeed"] = "ddp"
    """`ddp`: every worker has all weights. `deepspeed`: ZeRO partitions optimiser state, gradients or weights over the
    workers, for large teachers."""

    all_reduce: Literal["float32", "bfloat16"] = "float32"
    """strategy=ddp: type of the gradients in all-reduces. `bfloat16` halves the bytes and rounds each worker's
    gradients to three digits; for networks slower than the backward pass. (DeepSpeed always sends gradients of layers
    under autocast in bfloat16.)"""

    deepspeed: str = "zero1"
    """strategy=deepspeed: a built-in configuration of configs/deepspeed (`zero0` to `zero3`, `zero3_offload`), or the
    path or URL of a JSON or YAML file that every node can read."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_workers > self.max_workers:
            raise ValueError(f"workers: {list(self.workers)} should be [min, max]")  # pyright: ignore
        if self.accelerator_type is not None and self.use_gpu is False:
            raise ValueError(
                f"accelerator_type: {self.accelerator_type} is a GPU, but use_gpu is false; set one of both to null"
            )
        if self.strategy == "deepspeed" and self.all_reduce != "float32":
            raise ValueError("all_reduce is for strategy=ddp; see communication_data_type of DeepSpeed")
        return self

    @property
    def label_selector(self) -> dict[str, str]:
        """Return the labels that the node of a worker needs."""
        return {} if self.accelerator_type is None else {"ray.io/accelerator-type": self.accelerator_type}

    @property
    def min_workers(self) -> int:
        """Return the minimum number of workers."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def max_workers(self) -> int:
        """Return the maximum number of workers."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]


def is_cluster_named() -> bool:
    """Return whether the environment names a Ray cluster, as on KubeRay and under `ray job submit`."""
    return bool(os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"))
