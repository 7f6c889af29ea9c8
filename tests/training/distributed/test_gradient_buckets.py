"""Buckets: sums over the ranks whatever the layout, gradients that one rank lacks, and tasks that are not the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from fourds_dist.training.distributed import gradient_buckets
from fourds_dist.training.distributed.gradient_buckets import GradientBuckets
from fourds_dist.training.distributed.world import World
from tests.ranks import run_ranks


class Pair(nn.Module):
    """Two modules of unequal size, a layer in channels-last memory, and one that only some ranks use."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.small = nn.Linear(4, 4)
        self.large = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
        self.extra = nn.Linear(4, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.register_buffer("seen", torch.full((), float(seed)))
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, images: Tensor, *, uses_extra: bool) -> Tensor:
        features = self.small(self.large(images).mean((2, 3)))
        return (self.extra(features) if uses_extra else features).square().sum()


def gradients(task: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}


def batch(rank: int) -> Tensor:
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(rank))


def expected(initial: dict[str, Tensor], parts: int) -> dict[str, Tensor]:
    """Sums over both ranks' losses, in one process."""
    task = Pair(0)
    task.load_state_dict(initial)
    for _ in range(parts):
        for rank in range(2):
            task(batch(rank), uses_extra=rank == 1).backward()
    return gradients(task)


def _rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    world = World(rank, 2, torch.device("cpu"))
    for bucket_bytes in (1, 600, 2**20):
        gradient_buckets.BUCKET_BYTES = bucket_bytes
        for dtype, tolerance in ((None, 1e-5), (torch.bfloat16, 2e-2)):
            task = Pair(rank)
            buckets = GradientBuckets(task, world, dtype=dtype)
            initial = {name: x.clone() for name, x in task.state_dict().items()}
            assert float(task.seen) == 0.0, "rank 0's buffers"
            assert torch.equal(initial["small.weight"], Pair(0).small.weight), "rank 0's weights"
            for parts in (1, 2, 1):
                task.zero_grad(set_to_none=True)
                for part in range(parts):
                    loss = task(batch(rank), uses_extra=rank == 1)
                    buckets.backward(loss, is_last=part == parts - 1)
                found, sums = gradients(task), expected(initial, parts)
                assert found.keys() == sums.keys()
                for name, total in sums.items():
                    error = float((found[name] - total).norm())
                    assert error <= tolerance * float(total.norm()), (bucket_bytes, dtype, name)
                    assert found[name].stride() == task.get_parameter(name).stride(), name
                both = world.gather(found)
                assert all(torch.equal(both[0][name], both[1][name]) for name in found)
    other = Pair(0)
    if rank:
        other.large[0] = nn.Conv2d(3, 8, 5, padding=2)
    with pytest.raises(ValueError, match=r"and they differ \(first: large\.0\.weight\).*same configuration"):
        GradientBuckets(other, world)
    dist.destroy_process_group()


def test_gradients_are_sums_over_the_ranks(tmp_path: Path) -> None:
    run_ranks(_rank, (tmp_path,))
