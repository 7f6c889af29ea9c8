"""Batches of a whole split for evaluation: in order, cropped at the centre, every sample once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future

import numpy as np

from fourds_dist.data.decode.crop_box import CENTRE
from fourds_dist.data.decode.decoded_cache import DecodedCache
from fourds_dist.data.decode.threads import Pool
from fourds_dist.data.stream.batch import Batch
from fourds_dist.data.stream.batches import BatchPlan, decoded
from fourds_dist.data.stream.config import DataConfig
from fourds_dist.data.stream.order import evaluation_share
from fourds_dist.data.stream.quarantine import Quarantine
from fourds_dist.data.stream.samples import Block, SampleReader
from fourds_dist.data.stream.split import Split
from fourds_dist.data.stream.stream import fits_in_memory

EVALUATION_READS = 4
"""Batches that are read at a time."""


def evaluation_batches(
    split: Split,
    config: DataConfig,
    *,
    batch_size_per_rank: int,
    rank: int,
    world_size: int,
    decoded_cache: DecodedCache | None = None,
) -> Iterator[Batch]:
    """Yield this rank's share of a split, in order, cropped at the centre; every sample is on exactly one rank.

    The last batch may be smaller. A rank may have none if the split has fewer samples than there are ranks.

    Args:
        decoded_cache: cache of the split's decoded images for the next evaluation, used if the split fits in memory
            and there is no disk cache, which holds central crops; None: no cache.
    """
    disk_cache = config.disk_cache(split, config.crop_px)
    fetcher = config.fetcher(split.num_bytes, disk_cache)
    in_memory = decoded_cache if fits_in_memory(split, config) and disk_cache is None else None
    reader = SampleReader(split, fetcher, fetcher, in_memory, disk_cache)
    quarantine = Quarantine.of(split, config.max_bad_fraction, world_size)
    share = evaluation_share(split.num_samples, rank, world_size)
    readers = Pool(min(config.num_readers([split]), EVALUATION_READS), "read")

    def plans() -> Iterator[BatchPlan]:
        reads: deque[Future[Block]] = deque()
        for start in range(share.start, share.stop, batch_size_per_rank):
            numbers = np.arange(start, min(start + batch_size_per_rank, share.stop))
            reads.append(readers.submit(reader.read, split.positions(numbers)))
            if len(reads) > EVALUATION_READS:
                yield _central(reads.popleft().result(), quarantine)
        while reads:
            yield _central(reads.popleft().result(), quarantine)

    batches = decoded(
        plans(),
        config.decoding(world_size),
        check=fetcher.check,
    )
    try:
        yield from batches
    finally:
        fetcher.stop()
        readers.close()
        batches.close()


def _central(block: Block, quarantine: Quarantine) -> BatchPlan:
    """Return a plan of all samples of a block, with central crops and without flips."""
    return BatchPlan(
        [(block, at) for at in range(len(block))],
        places=np.tile(CENTRE, (len(block), 1)),
        flip=np.zeros(len(block), dtype=bool),
        quarantines=[quarantine] * len(block),
        may_replace=False,
    )
