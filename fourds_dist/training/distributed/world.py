"""The rank of this process, and the collectives of training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fourds_dist.training.distributed.rank_variables import group_size, local_rank


def hardware_queues(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variable of a process that trains on a GPU, read when CUDA starts; empty: CUDA's default is better.

    With CUDA's default of 8 hardware queues, the streams of the JPEG decoder share queues with the training step and
    wait for all of its queued kernels. The processes of CUDA's multi-process service share the queues of a GPU: with 32
    for each, the fourth process cannot open the GPU. The service has its own default.
    """
    name = "CUDA_DEVICE_MAX_CONNECTIONS"
    if name in environ:
        return {name: environ[name]}
    service = Path(environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"))
    return {} if (service / "control").exists() else {name: "32"}


os.environ.update(hardware_queues(os.environ))


@dataclass(frozen=True)
class World:
    """The `rank` of this process among `size` ranks, and its `device`."""

    rank: int
    size: int
    device: torch.device
    timeout_s: float = 900.0
    """Seconds for which a rank waits for other ranks in a collective."""

    @classmethod
    def join(cls, *, timeout_s: float = 600.0) -> World:
        """Return the world of the existing process group, of a new one by torchrun's variables, or of this process.

        The backend is NCCL if CUDA has GPUs, otherwise gloo on CPUs.

        Args:
            timeout_s: timeout of collectives in a new group; a rank that waits longer for other ranks fails.
        """
        if not dist.is_initialized() and group_size() is not None:
            backend = "nccl" if torch.cuda.is_available() else "gloo"
            if backend == "nccl" and not dist.is_nccl_available():
                raise ValueError(
                    "this PyTorch was built without NCCL, which workers on GPUs need; install PyTorch's CUDA build, or "
                    "set CUDA_VISIBLE_DEVICES='' to train on CPUs"
                )
            dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
        if torch.cuda.is_available():
            # Under Ray each worker has one visible GPU; under other launchers all GPUs are visible.
            device = torch.device("cuda", local_rank() % torch.cuda.device_count())
            torch.cuda.set_device(device)
        else:
            device = torch.device("cpu")
        if dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size(), device, timeout_s)
        return cls(0, 1, device, timeout_s)

    @property
    def is_main(self) -> bool:
        """Whether this rank writes the files and logs to the trackers."""
        return self.rank == 0

    def average_buffers(self, module: nn.Module) -> None:
        """Replace every floating-point buffer (BatchNorm's statistics) by its mean over the ranks."""
        buffers = [b for b in module.buffers() if b.is_floating_point()]
        if self.size == 1 or not buffers:
            return
        flat = torch.cat([b.reshape(-1) for b in buffers])
        dist.all_reduce(flat)
        flat /= self.size
        for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(mean.view_as(buffer))

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over the ranks, on every rank."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def all_reduce_min(self, values: Tensor) -> Tensor:
        """Return the minimum over the ranks, on every rank."""
        if self.size > 1:
            dist.all_reduce(values, op=dist.ReduceOp.MIN)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Return the small picklable values of all ranks in rank order, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def gather_to_main(self, value: Any) -> list[Any] | None:
        """Return the picklable values of all ranks in rank order on rank 0; None on other ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, values)
        return values

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            dist.barrier()
