"""Sums of gradients over the ranks in buckets, in parallel to the backward pass.

A bucket contains gradients that become ready in sequence. The hook of its last gradient copies them to one flat tensor
and starts the all-reduce. NCCL has its own stream, so the communication overlaps with the rest of the backward pass. A
captured step includes all of this (`cuda_graph`). Gloo on CPUs uses the same code.

This replaces DistributedDataParallel, which rebuilds its buckets after the first pass (so that a resumed run sums in
another order), is difficult to capture, and needs a wrapper around the module.

The layout depends on names and sizes only, so every rank and every start of a run sums in the same order. The largest
part of the task (the student) is first, each part from its last layer to its first, as in the backward pass. All ranks
reduce the buckets in this order, independently of the order in which gradients become ready.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fourds_dist.training.distributed.world import World

BUCKET_BYTES = 8 * 2**20
"""Size at which a bucket is complete: large enough for the full speed of a network, small enough to start early."""


@dataclass
class _Bucket:
    parameters: list[nn.Parameter] = field(default_factory=list)
    num_missing: int = 0
    """Number of gradients that this backward pass has not computed yet."""
    flat: Tensor | None = None
    views: list[Tensor] = field(default_factory=list)
    """Views of `flat` in the parameters' shapes and strides."""
    packed: torch.cuda.Event | None = None
    work: dist.Work | None = None

    @property
    def num_elements(self) -> int:
        return sum(p.numel() for p in self.parameters)

    @property
    def num_bytes(self) -> int:
        return sum(p.numel() * p.element_size() for p in self.parameters)


class GradientBuckets:
    """Sum a task's gradients over the world's ranks.

    Args:
        task: task on the world's device; gradients of the currently trainable parameters are summed.
        dtype: type of the gradients in all-reduces; None: their own type.

    Raises:
        ValueError: the tasks of the ranks have different parameters.
    """

    def __init__(self, task: nn.Module, world: World, *, dtype: torch.dtype | None = None) -> None:
        _check_equal(task, world)
        self._on_gpu, self._dtype = world.device.type == "cuda", dtype
        self._group = _own_group(world)
        self._buckets = list(_buckets(task))
        self._bucket_of = {p: bucket for bucket in self._buckets for p in bucket.parameters}
        self._is_armed = False
        self._num_started = 0
        self.waited: tuple[torch.cuda.Event, torch.cuda.Event] | None = None
        """Events before and after the wait for the buckets at the end of the backward pass."""
        if self._on_gpu:
            options = {"enable_timing": True, "external": True}  # external: readable after a capture too
            self.waited = (torch.cuda.Event(**options), torch.cuda.Event(**options))
        for p in self._bucket_of:
            p.register_post_accumulate_grad_hook(self._on_gradient)
        broadcast(task, self._group)

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Accumulate the gradients of one part of a batch; the last part sums the gradients over the ranks.

        Parameters that the loss does not depend on get zero gradients.
        """
        if not is_last:
            loss.backward()
            return
        self._num_started, self._is_armed = 0, True
        for bucket in self._buckets:
            bucket.num_missing = len(bucket.parameters)
        try:
            loss.backward()
        finally:
            self._is_armed = False
        self._finish()

    def _on_gradient(self, p: Tensor) -> None:
        if not self._is_armed:
            return
        bucket = self._bucket_of[p]  # pyright: ignore[reportArgumentType]
        bucket.num_missing -= 1
        if bucket.num_missing:
            return
        self._pack(bucket)
        while self._num_started < len(self._buckets) and self._buckets[self._num_started].flat is not None:
            self._start(self._buckets[self._num_started])
            self._num_started += 1

    @torch.no_grad()
    def _pack(self, bucket: _Bucket) -> None:
        first = bucket.parameters[0]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket.parameters]
        bucket.flat = torch.empty(bucket.num_elements, dtype=self._dtype or first.dtype, device=first.device)
        bucket.views = [
            part.as_strided(p.shape, _strides(p), part.storage_offset())
            for part, p in zip(
                bucket.flat.split([p.numel() for p in bucket.parameters]), bucket.parameters, strict=True
            )
        ]
        torch._foreach_copy_(bucket.views, gradients)  # pyright: ignore[reportPrivateImportUsage]
        for p, gradient, view in zip(bucket.parameters, gradients, bucket.views, strict=True):
            p.grad = view if view.dtype == p.dtype else gradient
        if self._on_gpu:
            bucket.packed = torch.cuda.Event()
            bucket.packed.record()

    def _start(self, bucket: _Bucket) -> None:
        assert bucket.flat is not None
        if bucket.packed is not None:  # possibly on another stream
            torch.cuda.current_stream(bucket.flat.device).wait_event(bucket.packed)
        bucket.work = dist.all_reduce(bucket.flat, group=self._group, async_op=True)

    @torch.no_grad()
    def _finish(self) -> None:
        for bucket in self._buckets[self._num_started :]:
            if bucket.flat is None:
                self._pack(bucket)
            self._start(bucket)
        if self.waited:
            self.waited[0].record()
        for bucket in self._buckets:
            assert bucket.work is not None
            bucket.work.wait()
        if self.waited:
            self.waited[1].record()
        for bucket in self._buckets:
            if bucket.views[0].dtype != bucket.parameters[0].dtype:
                torch._foreach_copy_([p.grad for p in bucket.parameters], bucket.views)  # pyright: ignore
            bucket.flat, bucket.views, bucket.packed, bucket.work = None, [], None, None


def broadcast(task: nn.Module, group: dist.ProcessGroup | None = None) -> None:
    """Broadcast the parameters and buffers of rank 0 to all ranks."""
    for tensor in (x.detach() for x in (*task.parameters(), *task.buffers())):
        whole = tensor.contiguous()
        dist.broadcast(whole, 0, group=group)
        if whole.data_ptr() != tensor.data_ptr():
            tensor.copy_(whole)


def _own_group(world: World) -> dist.ProcessGroup | None:
    """Return a communicator with high priority on GPUs, so that the backward pass does not delay its kernels."""
    if world.device.type != "cuda" or dist.get_backend() != "nccl":
        return None
    return _high_priority_group(dist.group.WORLD, world.device, world.timeout_s)


@lru_cache(maxsize=1)
def _high_priority_group(_: Any, device: torch.device, timeout_s: float) -> dist.ProcessGroup:
    """Return the group of all stages of a process, since each group takes memory and seconds to create."""
    options = dist.ProcessGroupNCCL.Options(is_high_priority_stream=True)  # pyright: ignore
    timeout = timedelta(seconds=timeout_s)
    return dist.new_group(timeout=timeout, pg_options=options, device_id=device)  # pyright: ignore


def _buckets(task: nn.Module) -> Iterator[_Bucket]:
    """Yield buckets; the parameters of a bucket have one dtype and belong to one part of the task (one CUDA stream)."""
    parts: dict[tuple[str, torch.dtype], list[nn.Parameter]] = {}
    for name, p in task.named_parameters():
        if p.requires_grad:
            parts.setdefault((name.split(".")[0], p.dtype), []).append(p)
    for parameters in sorted(parts.values(), key=lambda ps: -sum(p.numel() for p in ps)):
        bucket = _Bucket()
        for p in reversed(parameters):
            bucket.parameters.append(p)
            if bucket.num_bytes >= BUCKET_BYTES:
                yield bucket
                bucket = _Bucket()
        if bucket.parameters:
            yield bucket


def _strides(p: Tensor) -> tuple[int, ...]:
    """Return the strides of `p` if `p` is dense, else contiguous ones, so that the gradient is dense."""
    dense = p.is_contiguous() or (p.dim() == 4 and p.is_contiguous(memory_format=torch.channels_last))
    return p.stride() if dense else torch.empty(p.shape, device="meta").stride()


def _check_equal(task: nn.Module, world: World) -> None:
    own = [(name, tuple(p.shape), str(p.dtype), p.requires_grad) for name, p in task.named_parameters()]
    for rank, other in enumerate(world.gather(own)):
        differing = [a for a, b in zip(own, other, strict=False) if a != b]
        if differing or len(own) != len(other):
            where = f" (first: {differing[0][0]})" if differing else ""
            raise ValueError(
                f"worker {world.rank} has {len(own)} parameters, worker {rank} {len(other)}, and they differ{where}; "
                "give all workers the same configuration, code and library versions"
            )
