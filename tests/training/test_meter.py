"""What the ranks count together."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fourds_dist.data import DataConfig, StreamConfig, TrainStream, open_split
from fourds_dist.method.output import Output
from fourds_dist.runs.events import TimeShares
from fourds_dist.training.distributed.world import World
from fourds_dist.training.meter import Meter, bottleneck
from tests.data import shards
from tests.data.shards import SIDE, write_dataset

NUM_RANKS, NUM_EPOCHS = 2, 6


class Threads(World):
    """Ranks that are threads of this process, with the collectives that a meter needs."""

    def __init__(self, rank: int, meet: threading.Barrier, table: list[Any]) -> None:
        super().__init__(rank, NUM_RANKS, torch.device("cpu"))
        self.__dict__.update(meet=meet, table=table)

    def gather(self, value: Any) -> list[Any]:
        self.table[self.rank] = value
        self.meet.wait(30)
        values = list(self.table)
        self.meet.wait(30)
        return values

    def sum(self, values: Tensor) -> Tensor:
        return torch.stack(self.gather(values)).sum(0)


def test_a_broken_image_counts_once_whichever_ranks_meet_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, broken = shards.image_of, (7, 30, 55)
    monkeypatch.setattr(shards, "image_of", lambda n: b"no image" if n in broken else good(n))
    split = open_split(StreamConfig(url=write_dataset(tmp_path / "set", [40, 24])), "train")
    config = DataConfig(resize_px=SIDE, crop_px=SIDE, max_bad_fraction=0.04, threads=1)  # three images
    meet, table = threading.Barrier(NUM_RANKS), [None] * NUM_RANKS

    def run(rank: int) -> tuple[list[int], frozenset[str]]:
        stream = TrainStream(
            {"target": split}, config, global_batch_size=8, rank=rank, world_size=NUM_RANKS, seed=0
        )
        meter = Meter(0, NUM_EPOCHS * 8, 8, stream, Threads(rank, meet, table))
        counts = []
        for step, batch in enumerate(islice(stream.batches(0), NUM_EPOCHS * 8), 1):
            meter.add(Output.of({"ce": torch.tensor(1.0)}, {}, {}), len(batch))
            if step % 8 == 0:
                counts.append(meter.step_event(step).num_bad_samples)
        return counts, stream.bad_samples

    with ThreadPoolExecutor(NUM_RANKS) as pool:
        (first, met_by_first), (second, met_by_second) = pool.map(run, range(NUM_RANKS))
    assert first == second
    assert first[-1] == len(broken)
    assert first == sorted(first)
    # Both meet all of them in time: a plain sum would count twice, and half the budget each would end the run.
    assert len(met_by_first) == len(met_by_second) == len(broken)


@pytest.mark.parametrize(
    ("shares", "what"),
    [
        (TimeShares(0.31, host_busy=0.69), "bound by data: 31%"),
        (
            TimeShares(0.1, network_wait=0.25, host_busy=0.3),
            "bound by the network: 25%",
        ),
        (
            TimeShares(0.02, network_wait=0.0, host_busy=0.97),
            "bound by Python: 97%",
        ),
        (TimeShares(0.1, host_wait=0.27, network_wait=0.02), "bound by the host: 27%"),
        (TimeShares(0.02, network_wait=0.02, host_wait=0.02), None),
        (TimeShares(0.02, network_wait=0.02, host_busy=0.2), None),
        (TimeShares(0.1), None),  # a CPU, which does not wait
    ],
)
def test_a_run_logs_its_bottleneck(shares: TimeShares, what: str | None) -> None:
    found = bottleneck(shares)
    assert found is None if what is None else found is not None and found.startswith(what)
