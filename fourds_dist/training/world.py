"""Who this process is among the workers, and the few collectives that training needs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fourds_dist.training.rank_variables import group_size


@dataclass(frozen=True)
class World:
    """This process's place: `rank` of `size`, computing on `device`."""

    rank: int
    size: int
    device: torch.device
    timeout_s: float = 900.0
    """Seconds for which a rank waits for the others in a collective."""

    @classmethod
    def join(cls, *, timeout_s: float = 600.0) -> World:
        """The process group that is there, else torchrun's (made here from its variables), else this process alone.

        GPUs are used wherever CUDA sees any, with NCCL; otherwise CPUs with gloo.

        Args:
            timeout_s: of a collective in a group made here; a rank that waits longer for the others fails.
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
            # Ray shows each worker its own GPU alone; torchrun shows all of them.
            local_rank = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
            device = torch.device("cuda", local_rank)
            torch.cuda.set_device(device)
        else:
            device = torch.device("cpu")
        if dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size(), device, timeout_s)
        return cls(0, 1, device, timeout_s)

    @property
    def is_main(self) -> bool:
        """Whether this rank writes the files and talks to the trackers."""
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
        """Sum over the ranks, on every rank."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def least(self, values: Tensor) -> Tensor:
        """Minimum over the ranks, on every rank."""
        if self.size > 1:
            dist.all_reduce(values, op=dist.ReduceOp.MIN)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Every rank's small picklable value, in rank order, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def gather_to_main(self, value: Any) -> list[Any] | None:
        """Every rank's picklable value, in rank order, on rank 0; None on the others."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, values)
        return values

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.size > 1:
            dist.barrier()
