"""Streams of batches: training over one or two domains, and evaluation.

Memory of a worker's stream, of N workers together:

    encoded images    at most 2 shuffle_mib / N: every lane holds a block and, from its middle on, the next one; twice
                      that with labelled_fraction, whose labelled images have lanes of their own; for a split that is
                      no larger than shuffle_mib the whole split, in every worker
    decoded images    at most keep_decoded_mib, of splits that are held whole
    pixels            (prefetch_batches + 2) batches of 3 crop_px^2 bytes an image: 38 MB each at 256 images of 224 px
    indices           some 50 bytes a sample, of 2 million samples at most (`samples.MOST_INDEXED_SAMPLES`)
    order             16 bytes a chunk of the whole split, and as much for each of two epochs: a chunk is half a block
    the rest          about 175 MiB of libraries and decoders' scratch; each decoding process holds as much again

Nothing grows with the length of a run. A read that fails or hangs is tried again for patience_s and no longer, and a
stream that ends, in whatever way, ends its threads.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future

import numpy as np

from fourds_dist.data.batch import Batch
from fourds_dist.data.batches import Plan, decoded
from fourds_dist.data.kept import Budget, KeptImages
from fourds_dist.data.lanes import Block, Draw, Lane, epochs_of
from fourds_dist.data.loader import MIB, LoaderConfig
from fourds_dist.data.order import AUGMENT, Chunks, Order, evaluation_share, generator, lanes_of, num_lanes
from fourds_dist.data.parts import parts_of
from fourds_dist.data.samples import Quarantine, Resident, SampleReader
from fourds_dist.data.split import Split
from fourds_dist.data.threads import Pool

RESIDENT_BLOCK_SAMPLES = 32
"""Samples that a lane reads at a time from data that lie in memory."""
LEAST_CHUNK_SAMPLES = 4
"""Samples of a chunk, however large they are: a block of them is shuffled, and lets one stand in for another."""
LARGEST_CHUNK_BYTES = 4 * MIB
"""Larger reads are no faster, and smaller chunks mix better."""
EVALUATION_READS = 4
"""Batches of evaluation that are read at a time."""


def order_of(split: Split, config: LoaderConfig, global_batch_size: int, seed: tuple[int, ...]) -> Order:
    """How a split is chunked and shuffled; the same on every rank.

    Raises:
        ValueError: fewer samples than one batch takes.
    """
    if split.num_samples < global_batch_size:
        raise ValueError(
            f"{split.url} has {split.num_samples} {split.name} images, fewer than the {global_batch_size} that one "
            "global batch takes of them; lower global_batch_size"
        )
    if is_resident(split, config):
        chunk, block = 1, RESIDENT_BLOCK_SAMPLES
    else:
        lane_bytes = config.shuffle_mib * MIB / num_lanes(global_batch_size)
        mean_bytes = max(1.0, split.num_bytes / split.num_positions)
        # Two chunks make a block: samples of a block come from two places of the data, at least.
        block = max(2 * LEAST_CHUNK_SAMPLES, round(lane_bytes / mean_bytes))
        chunk = max(LEAST_CHUNK_SAMPLES, min(block // 2, round(LARGEST_CHUNK_BYTES / mean_bytes)))
    return Order(Chunks.cut(split.run_lengths(), chunk), global_batch_size, block, seed)


def is_resident(split: Split, config: LoaderConfig) -> bool:
    """Whether the split is held in memory."""
    return split.num_bytes <= config.shuffle_mib * MIB


class TrainStream:
    """Endless global batches, of which this rank delivers its share.

    Args:
        splits: by domain; "source" takes data.source_fraction of every batch where there is another domain beside it.
        global_batch_size: images of a step, over all ranks.
        seed: of order and augmentation.
        budget: for decoded images that are kept; None: data.keep_decoded_mib for this stream alone.

    Raises:
        ValueError: a split smaller than a batch, or more ranks than lanes.

    `wait_s` sums the time for which `batches` had none ready; `counts` the faults and broken samples of this rank.
    """

    def __init__(
        self,
        splits: Mapping[str, Split],
        config: LoaderConfig,
        *,
        global_batch_size: int,
        rank: int,
        world_size: int,
        seed: int,
        budget: Budget | None = None,
    ) -> None:
        self._config = config
        self._world_size = world_size
        shares = _shares(splits, global_batch_size, config.source_fraction)
        budget = budget or config.budget()
        self._domains = [_Domain(name, split, config, budget) for name, split in splits.items()]
        parts = [(domain, parts_of(domain.split, shares[domain.name])) for domain in self._domains]
        # Labelled images in orders of their own are numbered after the domains, whose orders they leave as they are.
        numbered = [(domain, *part[k]) for k in (0, 1) for domain, part in parts if k < len(part)]
        self._streams = [
            _PartStream(domain, split, config, share, rank, world_size, (seed, number))
            for number, (domain, split, share) in enumerate(numbered)
        ]
        first = self._domains[0]
        self.num_steps_per_epoch = first.split.num_samples // shares[first.name]
        self.wait_s = 0.0

    @property
    def identity(self) -> str:
        """Names data and order: two streams with the same one show the same images at the same steps."""
        return "+".join(stream.identity for stream in self._streams)

    @property
    def bad_samples(self) -> frozenset[str]:
        """Broken samples that this rank met so far; others meet some of them too, in other epochs."""
        return frozenset(
            f"{place} {key}"
            for place, domain in enumerate(self._domains)
            for key in list(domain.quarantine.causes)
        )

    @property
    def num_bad_samples(self) -> int:
        """How many they are."""
        return len(self.bad_samples)

    @property
    def counts(self) -> Counter[str]:
        """Faults by kind ("retry", "short_read") and "bytes" read, on this rank so far."""
        return sum((domain.fetcher.counts for domain in self._domains), Counter())

    def batches(self, step: int) -> Iterator[Batch]:
        """Batches from a step of the run on, for ever; the same whether the run was there all along or not.

        Raises:
            DataError: data that cannot be read on, with what was done about it; too many broken samples.
        """
        readers = Pool(self._config.read_threads, "read")
        batches = decoded(
            self._plans(step, [stream.draws(step, readers) for stream in self._streams]),
            self._config.decoding(self._world_size),
            waiting=self._timed,
            check=self._check,
        )
        try:
            yield from batches
        finally:
            for domain in self._domains:
                domain.fetcher.stop()
            readers.close()
            batches.close()

    def _check(self) -> None:
        for domain in self._domains:
            domain.fetcher.check()

    def _plans(self, step: int, draws: list[Iterator[list[Draw]]]) -> Iterator[Plan]:
        while True:
            parts = [
                stream.plan(step, next(drawn)) for stream, drawn in zip(self._streams, draws, strict=True)
            ]
            yield parts[0] if len(parts) == 1 else _joined(parts)
            step += 1

    def _timed(self, get: Callable[[], Batch | None]) -> Batch | None:
        began = time.perf_counter()
        try:
            return get()
        finally:
            self.wait_s += time.perf_counter() - began


class _Domain:
    """One domain's data: what reads them, and what is broken in them."""

    def __init__(self, name: str, split: Split, config: LoaderConfig, budget: Budget) -> None:
        self.name, self.split = name, split
        self.fetcher = config.fetcher(split.num_bytes)
        self.quarantine = Quarantine.of(split, config.max_bad_fraction)
        fits = is_resident(split, config)
        ranges = Resident(self.fetcher) if fits else self.fetcher
        self.reader = SampleReader(split, ranges, self.fetcher, KeptImages(budget) if fits else None)


class _PartStream:
    """One order's part of every batch, on this rank: a domain's samples, or its labelled or unlabelled ones."""

    def __init__(
        self,
        domain: _Domain,
        split: Split,
        config: LoaderConfig,
        batch_size: int,
        rank: int,
        world_size: int,
        seed: tuple[int, ...],
    ) -> None:
        self.order = order_of(split, config, batch_size, seed)
        self._domain = domain
        self._may_flip = config.flip
        self._split = split
        self._seed = seed
        self._lanes = lanes_of(rank, world_size, self.order.lanes)

    @property
    def identity(self) -> str:
        """Data, and everything that its order depends on."""
        order = self.order
        numbers = (
            order.global_batch_size,
            order.lanes,
            order.samples_per_block,
            len(order.chunks.first),
            *order.seed,
        )
        return f"{self._split.fingerprint}@{','.join(map(str, numbers))}"

    def draws(self, step: int, readers: Pool) -> Iterator[list[Draw]]:
        """The samples of each step from `step` on."""
        epoch_of = epochs_of(self.order)

        def read(places: np.ndarray) -> Future[Block]:
            return readers.submit(self._domain.reader.read, self._split.positions(places))

        lanes = [Lane(self.order, lane, step, epoch_of, read) for lane in self._lanes]
        while True:
            yield [draw for lane in lanes for draw in lane.take(self.order.samples_per_lane_step)]

    def plan(self, step: int, draws: list[Draw]) -> Plan:
        """How a step's samples are augmented: drawn for the global batch, so that every rank agrees."""
        random = generator(AUGMENT, *self._seed, step).random((self.order.global_batch_size, 3))
        per_lane = self.order.samples_per_lane_step
        mine = random[self._lanes.start * per_lane : self._lanes.stop * per_lane]
        return Plan(
            draws,
            places=mine[:, :2],
            flip=(mine[:, 2] < 0.5) & self._may_flip,
            from_source=np.full(len(draws), self._domain.name == "source"),
            quarantines=[self._domain.quarantine] * len(draws),
            may_replace=True,
        )


def evaluation_batches(
    split: Split,
    config: LoaderConfig,
    *,
    batch_size_per_rank: int,
    rank: int,
    world_size: int,
    kept: KeptImages | None = None,
) -> Iterator[Batch]:
    """This rank's share of a split, in order, cropped at the centre: every sample on one rank, none twice.

    The last batch may be smaller; a rank of a small split may have none.

    Args:
        kept: the split's decoded images, where it is small enough, for the next evaluation; None: none are kept.
    """
    fetcher = config.fetcher(split.num_bytes)
    reader = SampleReader(split, fetcher, fetcher, kept if is_resident(split, config) else None)
    quarantine = Quarantine.of(split, config.max_bad_fraction, world_size)
    share = evaluation_share(split.num_samples, rank, world_size)
    readers = Pool(min(config.read_threads, EVALUATION_READS), "read")

    def plans() -> Iterator[Plan]:
        reads: deque[Future[Block]] = deque()
        for start in range(share.start, share.stop, batch_size_per_rank):
            places = np.arange(start, min(start + batch_size_per_rank, share.stop))
            reads.append(readers.submit(reader.read, split.positions(places)))
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


def _central(block: Block, quarantine: Quarantine) -> Plan:
    """All samples of a block, as they are."""
    return Plan(
        [Draw(block, at) for at in range(len(block))],
        places=np.full((len(block), 2), 0.5),
        flip=np.zeros(len(block), dtype=bool),
        from_source=np.zeros(len(block), dtype=bool),
        quarantines=[quarantine] * len(block),
        may_replace=False,
    )


def _shares(splits: Mapping[str, Split], global_batch_size: int, source_fraction: float) -> dict[str, int]:
    """Images of every domain in a global batch."""
    if len(splits) == 1:
        return dict.fromkeys(splits, global_batch_size)
    source = round(source_fraction * global_batch_size)
    if not 0 < source < global_batch_size:
        raise ValueError(
            f"data.source_fraction={source_fraction} of a global batch of {global_batch_size} images is {source} of "
            "them; both domains need at least one"
        )
    return {name: source if name == "source" else global_batch_size - source for name in splits}


def _joined(parts: list[Plan]) -> Plan:
    return Plan(
        [draw for part in parts for draw in part.draws],
        places=np.concatenate([part.places for part in parts]),
        flip=np.concatenate([part.flip for part in parts]),
        from_source=np.concatenate([part.from_source for part in parts]),
        quarantines=[quarantine for part in parts for quarantine in part.quarantines],
        may_replace=True,
    )
