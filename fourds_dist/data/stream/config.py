"""How streams read, decode and augment: `data.*` of the configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator

from fourds_dist.config.effects import COURSE, NUMERICS, PLACE, SPEED, WEIGHTS
from fourds_dist.config.section import ConfigSection
from fourds_dist.data.augment.config import AugmentConfig
from fourds_dist.data.decode.crop_box import ResizeMode
from fourds_dist.data.decode.decoded_cache import ByteBudget
from fourds_dist.data.decode.decoded_disk_cache import DecodedDiskCache
from fourds_dist.data.decode.grey import is_range
from fourds_dist.data.decode.pixels import MOST_PIXELS
from fourds_dist.data.io.disk_cache import EXAMPLE_FOLDER, DiskCache
from fourds_dist.data.io.range_reader import RangeFetcher
from fourds_dist.data.stream.batches import MOST_THREADS, num_threads
from fourds_dist.data.stream.decoder import DecodeOptions
from fourds_dist.data.stream.split import Split
from fourds_dist.io.storage import is_local, locate

MIB = 1 << 20
MOST_PX = 8192
"""Largest side of an image, in pixels."""
MOST_WORKING = 1024
"""Largest number of threads, processes or prefetched batches of one worker."""

LOCAL_READERS, REMOTE_READERS = 4, 16
"""Threads that read from file systems, and from object storage."""

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Ratio = Annotated[float, Field(ge=0.01, le=100)]


class DataConfig(ConfigSection):
    """Reading, decoding and augmentation, for both domains."""

    resize_px: Annotated[int, WEIGHTS] = Field(default=256, ge=1, le=MOST_PX)
    """Side to which images are resized; see resize_mode. JPEGs whose sides are at least twice as long are decoded at a
    fraction of their size, so a larger value also gives small crops of `train_crop: random_resized` more detail."""

    resize_mode: Annotated[ResizeMode, WEIGHTS] = "squeeze"
    """`squeeze`: both sides of an image get the length resize_px, so images that are not square are squeezed, as in the
    paper. `shortest_side`: the shorter side gets this length and proportions stay. Crops are squares, so the central
    crop of evaluation leaves out the ends of the longer side."""

    crop_px: Annotated[int, WEIGHTS] = Field(default=224, ge=1, le=MOST_PX)
    """Side of the crop from the resized image: random in training, central in evaluation. teacher.image_px and
    student.image_px resize the crop for a network."""

    train_crop: Annotated[Literal["random", "random_resized"], WEIGHTS] = "random"
    """Crops of training images. `random`: of crop_px from the resized image, at a random place. `random_resized`: of
    random area and aspect ratio, resized to crop_px (torchvision's RandomResizedCrop)."""

    scale: Annotated[tuple[Fraction, Fraction], WEIGHTS] = (0.08, 1.0)
    """train_crop=random_resized: smallest and largest area of a crop, as a fraction of the image."""

    ratio: Annotated[tuple[Ratio, Ratio], WEIGHTS] = (3 / 4, 4 / 3)
    """train_crop=random_resized: smallest and largest width / height of a crop."""

    augment: AugmentConfig = AugmentConfig()
    """Further augmentation of training images, on the device."""

    flip: Annotated[bool, WEIGHTS] = True
    """Mirror half of the training images."""

    mean: Annotated[tuple[float, float, float], WEIGHTS] = (0.485, 0.456, 0.406)
    """Mean per channel, for values in [0, 1]; ImageNet's. teacher.mean and student.mean replace the value."""

    std: Annotated[tuple[Positive, Positive, Positive], WEIGHTS] = (0.229, 0.224, 0.225)
    """Standard deviation per channel, for values in [0, 1]; ImageNet's. teacher.std and student.std replace the
    value."""

    grey_range: Annotated[tuple[float, float] | None, WEIGHTS] = None
    """(black, white): the values that are black and white in images of more than 8 bits (16-bit, 32-bit, float) of both
    domains, e.g. [0, 4095]. null: the range in the manifest of each data set, which packing measured or was given."""

    max_megapixels: Annotated[float, COURSE] = Field(default=MOST_PIXELS / 1e6, gt=0)
    """Larger images count as broken: a small file can claim any size."""

    source_fraction: Annotated[float | None, WEIGHTS.of("adapt", "distill")] = Field(default=None, ge=0, lt=1)
    """Share of source images in every batch of adaptation and distillation; the other images are target images. Each
    domain has its own order and its own epochs. null: 0.5 if no training label of the target is used and source.url is
    set, else 0."""

    shuffle_mib: Annotated[float, NUMERICS] = Field(default=256.0, gt=0)
    """Encoded images that all workers together hold for shuffling, in MiB. Every worker reads a split of at most this
    size once, holds all of it, and shuffles all of it."""

    threads: Annotated[int | None, SPEED] = Field(default=None, ge=1, le=MOST_WORKING)
    """Decoding threads of each worker; null: the worker's share of the machine's cores."""

    decoders: Annotated[Literal["auto", "threads", "processes", "gpu"], NUMERICS] = "auto"
    """Where training images are decoded: in `threads` of the worker, in as many separate `processes`, or by the JPEG
    engine of the worker's `gpu`, which leaves other files than plain JPEGs to the CPU. Grey levels of the engine differ
    slightly from the CPU's. `auto`: the GPU if it has an engine and most images are plain JPEGs, otherwise processes if
    the worker has more than four threads. Evaluation decodes on the CPU, as `predict` does."""

    decoded_cache_mib: Annotated[float, SPEED] = Field(default=512.0, ge=0)
    """Decoded images that each worker caches in memory, in MiB, for splits of at most shuffle_mib: small data sets are
    decoded once. The cache does not change the batches. 0: no cache."""

    read_threads: Annotated[int | None, SPEED] = Field(default=None, ge=1, le=MOST_WORKING)
    """Concurrent ranged reads of each worker; null: 16 from object storage, 4 from file systems, where more threads
    only compete for Python's lock."""

    prefetch_batches: Annotated[int, SPEED] = Field(default=4, ge=1, le=MOST_WORKING)
    """Batches that each worker prepares ahead."""

    retry_timeout_s: Annotated[float, COURSE] = Field(default=120.0, ge=0)
    """Seconds for which a failed read is retried."""

    max_bad_fraction: Annotated[float, COURSE] = Field(default=0.001, ge=0, le=1)
    """Share of a split's samples that may be broken. A broken sample is logged and replaced by a neighbour (left out in
    evaluation). The run stops once more samples are broken."""

    cache_dir: Annotated[str | None, PLACE] = None
    """Folder on each node's disk that caches data read from object storage; null: no cache."""

    cache_gib: Annotated[float, SPEED] = Field(default=100.0, gt=0)
    """Size limit of the encoded data in cache_dir in GiB, for all workers of a node together."""

    cache_decoded_gib: Annotated[float, NUMERICS] = Field(default=0.0, ge=0)
    """Size limit in GiB of decoded images in cache_dir, for all workers of a node and both domains together. A node
    decodes each image once, in runs of many epochs. An image takes 3 resize_px^2 bytes; images beyond the limit are
    decoded in every epoch. With a limit, all training images are resized whole and then cropped, which moves crops by
    less than a pixel of the original image; evaluation images do not change. 0: no cache."""

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        if self.crop_px > self.resize_px:
            raise ValueError(f"crop_px ({self.crop_px}) is larger than resize_px ({self.resize_px})")
        if self.grey_range is not None and not is_range(self.grey_range):
            raise ValueError(f"grey_range ({self.grey_range}) takes two numbers, the lower one first")
        for key in ("scale", "ratio"):
            if (value := getattr(self, key))[0] > value[1]:
                raise ValueError(f"{key} ({list(value)}) takes two numbers, the lower one first")
            if self.train_crop == "random" and value != DataConfig.model_fields[key].default:
                raise ValueError(
                    f"{key} applies to train_crop=random_resized; set train_crop, or remove {key}"
                )
        if self.cache_decoded_gib:
            self._check_decoded_cache()
        return self

    def _check_decoded_cache(self) -> None:
        if self.cache_dir is None:
            raise ValueError(
                f"cache_decoded_gib={self.cache_decoded_gib:g} needs cache_dir, a folder on a disk of each node, for "
                f"example data.cache_dir={EXAMPLE_FOLDER}"
            )
        for key, needed in (("resize_mode", "squeeze"), ("train_crop", "random")):
            if (value := getattr(self, key)) != needed:
                raise ValueError(
                    f"cache_decoded_gib holds squeezed images of resize_px, which {key}={value} cannot use; set "
                    f"{key}={needed}, or cache_decoded_gib=0"
                )
        if self.decoders == "gpu":
            raise ValueError(
                "cache_decoded_gib holds images that CPUs decode; set decoders=auto, or cache_decoded_gib=0"
            )

    def decoding(
        self, world_size: int, decoded_px: int | None = None, gpu: torch.device | None = None
    ) -> DecodeOptions:
        """Return the decoding options of every rank.

        Args:
            decoded_px, gpu: see `DecodeOptions`.
        """
        threads = self.threads or num_threads(world_size)
        chosen = self.decoders != "threads" and threads > MOST_THREADS
        in_processes = self.decoders == "processes" or chosen
        return DecodeOptions(
            self.resize_px,
            self.crop_px,
            threads,
            in_processes,
            self.prefetch_batches,
            self.grey_range,
            self._most_pixels,
            decoded_px,
            self.resize_mode,
            gpu,
        )

    def num_readers(self, splits: Iterable[Split]) -> int:
        """Return the number of threads that read the splits."""
        are_local = all(is_local(locate(split.url)[0]) for split in splits)
        return self.read_threads or (LOCAL_READERS if are_local else REMOTE_READERS)

    @property
    def _most_pixels(self) -> int:
        return round(self.max_megapixels * 1e6)

    def budget(self) -> ByteBudget:
        """Return the budget for cached decoded images."""
        return ByteBudget(int(self.decoded_cache_mib * MIB))

    def disk_cache(self, split: Split, decoded_px: int) -> DecodedDiskCache | None:
        """Return the disk cache of a split's decoded images; None without cache_decoded_gib.

        Args:
            decoded_px: side of the images: resize_px for whole images, crop_px for central crops.

        Raises:
            CacheFolderError: cache_dir cannot be used.
        """
        if not self.cache_decoded_gib:
            return None
        assert self.cache_dir is not None
        shards = [(shard.name, shard.num_samples, shard.num_bytes, shard.sha256) for shard in split.shards]
        has_hashes = all(shard.sha256 for shard in split.shards)
        how = (self.resize_px, self.grey_range or split.grey_range, self._most_pixels)
        return DecodedDiskCache(
            self.cache_dir,
            int(self.cache_decoded_gib * 1024 * MIB),
            json.dumps([None if has_hashes else split.url, shards, how]),
            split.num_positions,
            decoded_px,
            f"{split.url} ({split.name})",
        )

    def fetcher(self, expected_bytes: int, disk_cache: DecodedDiskCache | None = None) -> RangeFetcher:
        """Return a fetcher that reads through the cache of encoded data if cache_dir is set.

        Args:
            expected_bytes: size of all data that will be read.
            disk_cache: cache of the decoded images: their encoded data are read once, so they need no cache.
        """
        expected_bytes = round(expected_bytes * (1 - (disk_cache.share if disk_cache else 0)))
        if self.cache_dir is None or (disk_cache and not expected_bytes):
            return RangeFetcher(self.retry_timeout_s)
        limit_bytes = int(self.cache_gib * 1024 * MIB)
        return RangeFetcher(self.retry_timeout_s, DiskCache(self.cache_dir, limit_bytes, expected_bytes))
