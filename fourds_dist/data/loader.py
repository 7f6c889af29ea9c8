"""How streams read, decode and augment: `data.*` of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fourds_dist.config import Section
from fourds_dist.data.batches import MOST_THREADS, Decoding, num_threads
from fourds_dist.data.cache import PageCache
from fourds_dist.data.fetch import Fetcher
from fourds_dist.data.grey import is_range
from fourds_dist.data.kept import Budget
from fourds_dist.data.pixels import MOST_PIXELS
from fourds_dist.effects import COURSE, NUMERICS, PLACE, SPEED, WEIGHTS

MIB = 1 << 20
MOST_PX = 8192
"""A side of images, in pixels."""
MOST_WORKING = 1024
"""Threads, processes or batches at a time of one worker."""


Positive = Annotated[float, Field(gt=0)]


class LoaderConfig(Section):
    """Reading, decoding and augmenting, for both domains."""

    resize_px: Annotated[int, WEIGHTS] = Field(default=256, ge=1, le=MOST_PX)
    """Side to which images are resized (both sides: other shapes are squeezed)."""

    crop_px: Annotated[int, WEIGHTS] = Field(default=224, ge=1, le=MOST_PX)
    """Side of the crop out of that: random in training, central in evaluation."""

    flip: Annotated[bool, WEIGHTS] = True
    """Mirror half of the training images."""

    mean: Annotated[tuple[float, float, float], WEIGHTS] = (0.485, 0.456, 0.406)
    """Per channel, of values in [0, 1]; ImageNet's."""

    std: Annotated[tuple[Positive, Positive, Positive], WEIGHTS] = (0.229, 0.224, 0.225)
    """Per channel, of values in [0, 1]; ImageNet's."""

    grey_range: Annotated[tuple[float, float] | None, WEIGHTS] = None
    """(black, white) by which images of more than 8 bits (16-bit, 32-bit, float) of both domains are read, e.g. [0,
    4095]. null: as the manifest of each data set says, where packing found it or was told."""

    max_megapixels: Annotated[float, COURSE] = Field(default=MOST_PIXELS / 1e6, gt=0)
    """Larger images count as broken: a small file can claim any size."""

    source_fraction: Annotated[float, WEIGHTS.of("adapt", "distill")] = Field(default=0.0, ge=0, lt=1)
    """Share of source images in every batch of distillation, the rest being target images; each domain keeps its own
    place."""

    shuffle_mib: Annotated[float, NUMERICS] = Field(default=256.0, gt=0)
    """Encoded images held for shuffling, over all workers together. A split that is no larger is read once, held by
    every worker, and shuffled without limits."""

    threads: Annotated[int | None, SPEED] = Field(default=None, ge=1, le=MOST_WORKING)
    """Decoding threads of each worker; null: its share of the machine's cores."""

    decoders: Annotated[Literal["auto", "threads", "processes"], SPEED] = "auto"
    """Where images are decoded: `threads` of the worker, or as many `processes` beside it. `auto`: processes
    where there are more than four threads."""

    keep_decoded_mib: Annotated[float, SPEED] = Field(default=512.0, ge=0)
    """Decoded images that each worker keeps in memory, of splits that shuffle_mib holds whole: small data sets are
    decoded once. Batches are the same as without; 0: none."""

    read_threads: Annotated[int, SPEED] = Field(default=16, ge=1, le=MOST_WORKING)
    """Ranged reads that each worker has under way at a time."""

    prefetch_batches: Annotated[int, SPEED] = Field(default=4, ge=1, le=MOST_WORKING)
    """Batches that each worker makes ahead."""

    patience_s: Annotated[float, COURSE] = Field(default=120.0, ge=0)
    """Seconds for which a failing read is tried again."""

    max_bad_fraction: Annotated[float, COURSE] = Field(default=0.001, ge=0, le=1)
    """Share of a split's samples that may be broken; a broken one is logged and replaced by a neighbour (left out in
    evaluation), and the run stops once this budget is spent."""

    cache_dir: Annotated[str | None, PLACE] = None
    """Folder on each node's disk that keeps what was read from object storage; null: none."""

    cache_gib: Annotated[float, SPEED] = Field(default=100.0, gt=0)
    """Limit of cache_dir, shared by the workers of a node."""

    @model_validator(mode="after")
    def _check(self) -> LoaderConfig:
        if self.crop_px > self.resize_px:
            raise ValueError(f"crop_px ({self.crop_px}) is larger than resize_px ({self.resize_px})")
        if self.grey_range is not None and not is_range(self.grey_range):
            raise ValueError(f"grey_range ({self.grey_range}) takes two numbers, the lower one first")
        return self

    def decoding(self, world_size: int) -> Decoding:
        """How every rank decodes."""
        threads = self.threads or num_threads(world_size)
        wanted = self.decoders == "processes" or (self.decoders == "auto" and threads > MOST_THREADS)
        return Decoding(
            self.resize_px,
            self.crop_px,
            threads,
            wanted,
            self.prefetch_batches,
            self.grey_range,
            round(self.max_megapixels * 1e6),
        )

    def budget(self) -> Budget:
        """For the decoded images that are kept."""
        return Budget(int(self.keep_decoded_mib * MIB))

    def fetcher(self, expected_bytes: int) -> Fetcher:
        """Reads with this patience, through the cache if there is one; `expected_bytes` of data in all."""
        limit_bytes = int(self.cache_gib * 1024 * MIB)
        cache = PageCache(self.cache_dir, limit_bytes, expected_bytes) if self.cache_dir else None
        return Fetcher(self.patience_s, cache)
