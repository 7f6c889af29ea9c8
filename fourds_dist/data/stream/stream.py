"""Streams of training batches over one or two domains; `evaluation` has those of evaluation.

Memory of one of N workers:

    encoded images    at most 2 shuffle_mib / N: every partition holds a block and, from its middle on, the next block.
                      Twice that with labelled_fraction, where labelled images have separate partitions. A split of at
                      most shuffle_mib is held whole in every worker
    decoded images    at most decoded_cache_mib, for splits that are held whole; none with cache_decoded_gib
    pixels            (prefetch_batches + 2) batches of 3 crop_px^2 bytes per image: 38 MB each at 256 images of 224 px;
                      on the GPU if it decodes, and there 512 MiB of decoded images besides (`decode.gpu`)
    indices           about 50 bytes per sample, for at most 2 million samples (`samples.MOST_INDEXED_SAMPLES`)
    order             16 bytes per chunk of the whole split, and as much for each of two epochs; a chunk is at most half
                      a block
    other             about 175 MiB for libraries and decoder buffers, and the same in each decoding process

Memory does not grow with the length of a run. A read that fails or hangs is retried for at most retry_timeout_s. When a
stream ends, for whatever reason, its threads end.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from fourds_dist.data.augment.draws import Draws, ImageDraws, draw_images
from fourds_dist.data.augment.mixing import draw_mix, partners
from fourds_dist.data.decode.crop_box import NUM_TRIES, random_resized_places
from fourds_dist.data.decode.decoded_cache import ByteBudget, DecodedCache
from fourds_dist.data.decode.threads import Pool
from fourds_dist.data.seeds import AUGMENT, MIX, RESIZED_CROP, generator
from fourds_dist.data.stream.batch import Batch
from fourds_dist.data.stream.batches import BatchPlan, decoded
from fourds_dist.data.stream.config import MIB, DataConfig
from fourds_dist.data.stream.labelled_batches import labelled_batches
from fourds_dist.data.stream.order import (
    Chunks,
    Order,
    PartitionReader,
    epochs_of,
    groups_of_rank,
    num_partitions,
)
from fourds_dist.data.stream.quarantine import Quarantine
from fourds_dist.data.stream.samples import Block, EncodedSample, InMemoryShards, SampleReader
from fourds_dist.data.stream.split import Split

log = logging.getLogger(__name__)

IN_MEMORY_BLOCK_SAMPLES = 32
"""Samples that a partition reads at a time from data in memory."""
LEAST_CHUNK_SAMPLES = 4
"""Fewest samples of a chunk, also if the samples are large: a block needs several samples to shuffle and to replace
broken ones."""
LARGEST_CHUNK_BYTES = 4 * MIB
"""Larger reads are no faster, and smaller chunks mix better."""
NUM_LOOKED_AT = 16
"""Samples of each domain by which data.decoders=auto decides."""


def order_of(split: Split, config: DataConfig, global_batch_size: int, seed: tuple[int, ...]) -> Order:
    """Return the chunks and the shuffle of a split; the same on every rank.

    Raises:
        ValueError: the split has fewer samples than one batch.
    """
    if split.num_samples < global_batch_size:
        raise ValueError(
            f"{split.url} has {split.num_samples} {split.name} images, fewer than the {global_batch_size} that one "
            "global batch takes from this split; lower global_batch_size"
        )
    if fits_in_memory(split, config):
        chunk, block = 1, IN_MEMORY_BLOCK_SAMPLES
    else:
        partition_bytes = config.shuffle_mib * MIB / num_partitions(global_batch_size)
        mean_bytes = max(1.0, split.num_bytes / split.num_positions)
        # A block has at least two chunks, so its samples come from at least two parts of the data.
        block = max(2 * LEAST_CHUNK_SAMPLES, round(partition_bytes / mean_bytes))
        chunk = max(LEAST_CHUNK_SAMPLES, min(block // 2, round(LARGEST_CHUNK_BYTES / mean_bytes)))
    return Order(Chunks.cut(split.run_lengths(), chunk), global_batch_size, block, seed)


def fits_in_memory(split: Split, config: DataConfig) -> bool:
    """Return whether workers hold the whole split in memory."""
    return split.num_bytes <= config.shuffle_mib * MIB


class TrainStream:
    """This rank's share of an endless sequence of global batches.

    Args:
        splits: split of each domain; with two domains, "source" gets data.source_fraction of every batch,
            whose last images these are.
        global_batch_size: images per step over all ranks.
        seed: seed of order and augmentation.
        budget: budget of cached decoded images; None: data.decoded_cache_mib for this stream alone.
        device: device that trains on the batches; a GPU may decode them (data.decoders), and they are on it then.

    Raises:
        ValueError: a split is smaller than a batch, or there are more ranks than partitions.

    `wait_s` is the total time in seconds that the caller of `batches` waited for a batch.
    """

    def __init__(
        self,
        splits: Mapping[str, Split],
        config: DataConfig,
        *,
        global_batch_size: int,
        rank: int,
        world_size: int,
        seed: int,
        budget: ByteBudget | None = None,
        device: torch.device | None = None,
    ) -> None:
        self._config, self._seed = config, seed
        self._rank, self._world_size = rank, world_size
        self._device = device
        self._decoded_px = config.resize_px if config.cache_decoded_gib else config.crop_px
        shares = _shares(splits, global_batch_size, config.source_fraction or 0.0)
        budget = budget or config.budget()
        self._domains = [
            _Domain(name, split, config, budget, is_source=len(splits) > 1 and name == "source")
            for name, split in splits.items()
        ]
        parts = [(domain, labelled_batches(domain.split, shares[domain.name])) for domain in self._domains]
        # Separate orders of labelled images are numbered after the domains, so the domains' orders keep their numbers.
        numbered = [(domain, *part[k]) for k in (0, 1) for domain, part in parts if k < len(part)]
        # The source images of a batch are the last ones, a slice of fixed size (`Batch.num_source`).
        self._streams = sorted(
            (
                _BatchPartStream(domain, split, config, share, rank, world_size, (seed, number))
                for number, (domain, split, share) in enumerate(numbered)
            ),
            key=lambda stream: stream.is_source,
        )
        first = self._domains[0]
        self.num_steps_per_epoch = first.split.num_samples // shares[first.name]
        self.wait_s = 0.0
        self._has_logged_cached = False

    @property
    def bad_samples(self) -> frozenset[str]:
        """Broken samples that this rank has read so far; other ranks read some of them too, in other epochs."""
        return frozenset(
            f"{number} {key}"
            for number, domain in enumerate(self._domains)
            for key in list(domain.quarantine.causes)
        )

    @property
    def counts(self) -> Counter[str]:
        """Faults by kind ("retry", "short_read", ...) and "bytes" read, on this rank so far."""
        return sum((domain.fetcher.counts for domain in self._domains), Counter())

    @cached_property
    def gpu(self) -> torch.device | None:
        """The GPU that decodes the images; None: the CPU decodes. The same on all ranks with equal GPUs.

        Raises:
            ValueError: data.decoders=gpu without a GPU that decodes JPEGs.
            DataError: data cannot be read.
        """
        if (
            self._device is None
            or self._config.decoders not in ("auto", "gpu")
            or self._config.cache_decoded_gib
        ):
            return None
        from fourds_dist.data.decode.gpu import check_gpu_decodes, engine_header, has_jpeg_engine

        if self._config.decoders == "gpu":
            check_gpu_decodes(self._device)
            return self._device
        if not has_jpeg_engine(self._device):
            return None
        samples = [sample for domain in self._domains for sample in domain.some()]
        num_plain = sum(isinstance(s, EncodedSample) and engine_header(s.data) is not None for s in samples)
        return self._device if num_plain > len(samples) / 2 else None

    def batches(self, step: int) -> Generator[Batch, None, None]:
        """Yield batches without end, from a step of the run on; they do not depend on where the stream started.

        Closing the generator ends its threads.

        Raises:
            DataError: data cannot be read, or too many samples are broken.
        """
        gpu = self.gpu  # before the readers' threads start, since it reads, too
        readers = Pool(self._config.num_readers(domain.split for domain in self._domains), "read")
        batches = decoded(
            self._plans(step, [stream.refs(step, readers) for stream in self._streams]),
            self._config.decoding(self._world_size, self._decoded_px, gpu),
            waiting=self._timed,
            check=self._check,
        )
        try:
            for batch in batches:
                yield batch
                del (
                    batch
                )  # only the caller holds the batch's memory while this generator waits for the next batch
                step += 1
                if step % self.num_steps_per_epoch == 0:
                    self._log_cached()
        finally:
            for domain in self._domains:
                domain.fetcher.stop()
            readers.close()
            batches.close()

    def _check(self) -> None:
        for domain in self._domains:
            domain.fetcher.check()

    def _plans(self, step: int, refs: list[Iterator[list[tuple[Block, int]]]]) -> Iterator[BatchPlan]:
        while True:
            parts = [
                stream.plan(step, next(drawn)) for stream, drawn in zip(self._streams, refs, strict=True)
            ]
            plan = parts[0] if len(parts) == 1 else _joined(parts)
            pairs = zip(self._streams, parts, strict=True)
            num_source = sum(len(part.refs) for stream, part in pairs if stream.is_source)
            yield replace(plan, draws=self._draws(step), num_source=num_source)
            step += 1

    def _draws(self, step: int) -> Draws | None:
        """Draw the augmentation on the device of a step's batch."""
        augment = self._config.augment
        if not augment.changes_images:
            return None
        images = ImageDraws.joined([stream.image_draws(step) for stream in self._streams])
        random = generator(MIX, self._seed, step)  # one mixture for all orders and ranks
        mix = draw_mix(augment, self._config.crop_px, random) if augment.mixes else None
        return Draws.of(images, augment, mix)

    def _log_cached(self) -> None:
        """Log once, at the end of the first epoch, how many images the disk caches hold."""
        if self._rank == 0 and not self._has_logged_cached:
            self._has_logged_cached = True
            for domain in self._domains:
                if cache := domain.disk_cache:
                    log.info(
                        "%d of %d decoded images of %s are cached; cached ones are not decoded again",
                        *(cache.num_held, cache.num_samples, domain.split.url),
                    )

    def _timed(self, get: Callable[[], Batch | None]) -> Batch | None:
        began = time.perf_counter()
        try:
            return get()
        finally:
            self.wait_s += time.perf_counter() - began


class _Domain:
    """Fetcher, reader, quarantine and disk cache of one domain's data.

    Args:
        is_source: whether this is the source in batches of two domains.
    """

    def __init__(
        self, name: str, split: Split, config: DataConfig, budget: ByteBudget, *, is_source: bool
    ) -> None:
        self.name, self.split, self.is_source = name, split, is_source
        self.disk_cache = config.disk_cache(split, config.resize_px)
        self.fetcher = config.fetcher(split.num_bytes, self.disk_cache)
        self.quarantine = Quarantine.of(split, config.max_bad_fraction)
        fits = fits_in_memory(split, config)
        ranges = InMemoryShards(self.fetcher) if fits else self.fetcher
        in_memory = DecodedCache(budget) if fits and self.disk_cache is None else None
        self.reader = SampleReader(split, ranges, self.fetcher, in_memory, self.disk_cache)

    def some(self) -> Block:
        """Read a few samples of the whole split."""
        numbers = np.linspace(0, self.split.num_samples - 1, min(NUM_LOOKED_AT, self.split.num_samples))
        return self.reader.read(self.split.positions(numbers.astype(np.int64)))


class _BatchPartStream:
    """One order's part of every batch on this rank: a domain's samples, or its labelled or unlabelled samples."""

    def __init__(
        self,
        domain: _Domain,
        split: Split,
        config: DataConfig,
        batch_size: int,
        rank: int,
        world_size: int,
        seed: tuple[int, ...],
    ) -> None:
        self.order = order_of(split, config, batch_size, seed)
        self.is_source = domain.is_source
        self._domain = domain
        self._config = config
        self._split = split
        self._seed = seed
        self._groups = groups_of_rank(
            self.order.partitions,
            self.order.samples_per_partition_step,
            rank,
            world_size,
            mixes=config.augment.mixes,
        )
        self._partitions = range(self._groups[0].start, self._groups[-1].stop)

    def refs(self, step: int, readers: Pool) -> Iterator[list[tuple[Block, int]]]:
        """Yield the samples of each step from `step` on."""
        epoch_of = epochs_of(self.order)

        def read(numbers: np.ndarray) -> Future[Block]:
            return readers.submit(self._domain.reader.read, self._split.positions(numbers))

        partitions = [
            PartitionReader(self.order, partition, step, epoch_of, read) for partition in self._partitions
        ]
        while True:
            yield [
                ref
                for partition in partitions
                for ref in partition.take(self.order.samples_per_partition_step)
            ]

    def plan(self, step: int, refs: list[tuple[Block, int]]) -> BatchPlan:
        """Draw the augmentation of a step's samples; drawn for the global batch, so it does not depend on the ranks."""
        share = self._draw(AUGMENT, step, 3)
        places = share[:, :2]
        if self._config.train_crop == "random_resized":
            tries = np.concatenate([places, self._draw(RESIZED_CROP, step, 2 * NUM_TRIES)], axis=1)
            places = random_resized_places(tries, scale=self._config.scale, ratio=self._config.ratio)
        return BatchPlan(
            refs,
            places=places,
            flip=(share[:, 2] < 0.5) & self._config.flip,
            quarantines=[self._domain.quarantine] * len(refs),
            may_replace=True,
        )

    def image_draws(self, step: int) -> ImageDraws:
        """Draw the augmentation on the device of a step's samples."""
        per_partition = self.order.samples_per_partition_step
        sizes = [len(group) * per_partition for group in self._groups]
        return draw_images(
            self._config.augment,
            self._config.crop_px,
            lambda purpose, num: self._draw(purpose, step, num),
            partners(sizes),
        )

    def _draw(self, purpose: int, step: int, num: int) -> np.ndarray:
        """Return `num` uniform numbers in [0, 1) for each of this rank's samples of a step."""
        random = generator(purpose, *self._seed, step).random((self.order.global_batch_size, num))
        per_partition = self.order.samples_per_partition_step
        return random[self._partitions.start * per_partition : self._partitions.stop * per_partition]


def _shares(splits: Mapping[str, Split], global_batch_size: int, source_fraction: float) -> dict[str, int]:
    """Return the number of images of every domain in a global batch."""
    if len(splits) == 1:
        return dict.fromkeys(splits, global_batch_size)
    source = round(source_fraction * global_batch_size)
    if not 0 < source < global_batch_size:
        raise ValueError(
            f"data.source_fraction={source_fraction} makes {source} of {global_batch_size} images in a global batch "
            "source images; both domains need at least one, so change data.source_fraction or global_batch_size"
        )
    return {name: source if name == "source" else global_batch_size - source for name in splits}


def _joined(parts: list[BatchPlan]) -> BatchPlan:
    return BatchPlan(
        [ref for part in parts for ref in part.refs],
        places=np.concatenate([part.places for part in parts]),
        flip=np.concatenate([part.flip for part in parts]),
        quarantines=[quarantine for part in parts for quarantine in part.quarantines],
        may_replace=True,
    )
