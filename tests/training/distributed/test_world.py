"""The world of one process, and of a process group that exists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from fourds_dist.training.distributed.rank_variables import GROUP, TORCHRUN
from fourds_dist.training.distributed.world import World, hardware_queues

CPU = torch.device("cpu")
FIRST = torch.device("cuda", 0) if torch.cuda.is_available() else CPU


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*GROUP, TORCHRUN, "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of this process alone."""
    store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def normalised() -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(2, momentum=1.0)
    norm(torch.tensor([[0.0, 2.0], [2.0, 6.0]]))
    return norm


def test_a_single_process_joins_no_group() -> None:
    assert World.join(timeout_s=5.0) == World(0, 1, FIRST, 5.0)
    assert not dist.is_initialized()


@pytest.mark.usefixtures("group")
def test_an_existing_group_is_joined() -> None:
    assert World.join() == World(0, 1, FIRST, 600.0)


def test_one_rank_needs_no_group() -> None:
    world, norm = World(0, 1, CPU), normalised()
    values = torch.tensor([3.0, -1.0])
    assert world.sum(values).tolist() == [3.0, -1.0]
    assert world.all_reduce_min(values).tolist() == [3.0, -1.0]
    assert world.gather({"a": 1}) == [{"a": 1}]
    assert world.gather_to_main("x") == ["x"]
    world.barrier()
    world.average_buffers(norm)
    assert [buffer.tolist() for buffer in norm.buffers()] == [[1, 4], [2, 8], 1]


@pytest.mark.usefixtures("group")
def test_buffers_are_divided_by_the_number_of_ranks() -> None:
    """The sum over the ranks is this rank's, as the group has no other; counters stay."""
    norm = normalised()
    World(0, 2, CPU).average_buffers(norm)
    assert [buffer.tolist() for buffer in norm.buffers()] == [[0.5, 2], [1, 4], 1]
    World(0, 2, CPU).average_buffers(nn.Linear(1, 1))  # without buffers


def test_rank_0_writes_the_files() -> None:
    assert [World(rank, 3, CPU).is_main for rank in range(3)] == [True, False, False]


def test_processes_that_share_a_gpu_do_not_ask_for_all_of_its_queues(tmp_path: Path) -> None:
    """With 32 queues for each process of the multi-process service, the fourth could not open an H200."""
    service = {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)}
    assert hardware_queues(service) == {"CUDA_DEVICE_MAX_CONNECTIONS": "32"}
    (tmp_path / "control").touch()
    assert hardware_queues(service) == {}
    chosen = {"CUDA_DEVICE_MAX_CONNECTIONS": "4"}
    assert hardware_queues(service | chosen) == chosen
