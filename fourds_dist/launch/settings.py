"""The `launch` section of the configuration; importing it does not import Ray."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fourds_dist.config import Section

Positive = Annotated[int, Field(ge=1, le=65536)]


class LaunchConfig(Section):
    """Workers, their resources, and what happens when one fails."""

    runner: Literal["ray", "inline"] = "ray"
    """`ray`: workers of Ray Train, in the running cluster or a local one. `inline`: this process (or torchrun's
    processes), without Ray."""

    workers: Positive | tuple[Positive, Positive] = 1
    """Number of workers (ranks), each with one GPU where use_gpu says so. `[min, max]`: as many as there is room for,
    fewer when nodes leave and more when they come; global batch, order of samples and learning rate stay."""

    use_gpu: bool | None = None
    """Whether every worker gets a GPU; null: if the cluster has any."""

    cpus_per_worker: float = Field(default=1.0, gt=0)
    """CPUs reserved for each worker; a fraction lets more workers share a core."""

    gpus_per_worker: float = Field(default=1.0, gt=0)
    """GPUs reserved for each worker; a fraction lets runs of one worker share a GPU, as in a sweep."""

    accelerator_type: str | None = None
    """The type of GPU that every worker gets, by Ray's names (`L4`, `A100`, `H100`; its nodes carry them as the label
    ray.io/accelerator-type); null: any."""

    wait_s: float = Field(default=600.0, ge=0)
    """Seconds to wait until the cluster has the resources, before giving up."""

    max_failures: int = Field(default=3, ge=-1)
    """How many times a failed worker group starts again from its newest checkpoint; -1: always. Nodes that were taken
    away with notice do not count; stores that fail under Ray's controller are counted apart, up to as many."""

    resize_every_s: float = Field(default=60.0, gt=0)
    """workers=[min, max]: how often room for more workers is looked for. A change costs the steps since the newest
    checkpoint."""

    grace_s: float = Field(default=60.0, gt=0)
    """Seconds that Ctrl-C and SIGTERM leave the workers to write a checkpoint; a second Ctrl-C leaves none."""

    collective_timeout_s: float = Field(default=900.0, gt=0)
    """Seconds for which a worker waits for the others in a collective; then the group counts as failed."""

    strategy: Literal["ddp", "deepspeed"] = "ddp"
    """`ddp`: every worker holds all weights. `deepspeed`: ZeRO divides optimiser state, gradients or weights among the
    workers, for large teachers."""

    all_reduce: Literal["float32", "bfloat16"] = "float32"
    """strategy=ddp: what gradients travel in between workers. `bfloat16` halves what goes over the network, and rounds
    each worker's gradients to three digits; for networks slower than the backward pass. (DeepSpeed sends those of
    layers under autocast in bfloat16 by itself.)"""

    deepspeed: str = "zero1"
    """strategy=deepspeed: its configuration, one of those shipped in configs/deepspeed (`zero0` to `zero3`,
    `zero3_offload`) or a JSON or YAML file, path or URL, that every node can read."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_workers > self.max_workers:
            raise ValueError(f"workers: {list(self.workers)} should be [min, max]")  # pyright: ignore
        if self.accelerator_type is not None and self.use_gpu is False:
            raise ValueError(f"accelerator_type: {self.accelerator_type} is a GPU's, and use_gpu is false")
        if self.strategy == "deepspeed" and self.all_reduce != "float32":
            raise ValueError("all_reduce is for strategy=ddp; see communication_data_type of DeepSpeed")
        return self

    @property
    def label_selector(self) -> dict[str, str]:
        """Labels that a worker's node has to carry."""
        return {} if self.accelerator_type is None else {"ray.io/accelerator-type": self.accelerator_type}

    @property
    def min_workers(self) -> int:
        """The fewest workers that will do."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def max_workers(self) -> int:
        """The most workers that are wanted."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]
