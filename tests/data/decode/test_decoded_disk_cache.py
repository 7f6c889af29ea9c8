"""The disk cache of decoded images: the same batches, in bounds, and safe against kills, full disks and damage."""

from __future__ import annotations

import io
import logging
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fourds_dist.benchmark.photos import write_dataset as write_photographs
from fourds_dist.data import (
    Batch,
    DataConfig,
    Split,
    StreamConfig,
    TrainStream,
    evaluation_batches,
    open_split,
)
from fourds_dist.data.decode import decode as decoding
from fourds_dist.data.decode.decode import crop_resized, decode, decoded_whole
from fourds_dist.data.decode.decoded_disk_cache import DecodedDiskCache, Slot
from fourds_dist.data.io.disk_cache import CacheFolderError
from tests.data.shards import SIDE, image_of, numbers_in, write_dataset

GIB = 1 << 30
NUM, BATCH = 48, 8
PER_EPOCH = NUM // BATCH
SLOT_BYTES, TABLE_BYTES = 3 * 40 * 40, 4096


def photos(num: int, width=60, height=45) -> list[bytes]:
    """JPEGs of smooth noise."""
    files = []
    for number in range(num):
        noise = np.random.default_rng(number).integers(0, 256, (height // 5, width // 5, 3), np.uint8)
        out = io.BytesIO()
        Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(out, "JPEG")
        files.append(out.getvalue())
    return files


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    url = tmp_path_factory.mktemp("data") / "photos"
    write_photographs(url, photos(NUM), num_shards=3)
    return open_split(StreamConfig(url=str(url)), "train")


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    return DataConfig(
        resize_px=40, crop_px=32, threads=2, decoders="threads", cache_dir=str(tmp_path), cache_decoded_gib=1
    )


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Sizes of the files that were decoded."""
    sizes: list[int] = []
    whole = decoding.decoded_whole

    def counting(data, resize_px, **how):
        sizes.append(len(data))
        return whole(data, resize_px, **how)

    monkeypatch.setattr(decoding, "decoded_whole", counting)
    return sizes


def stream_of(split: Split, config: DataConfig, rank=0, world_size=1) -> TrainStream:
    return TrainStream(
        {"target": split}, config, global_batch_size=BATCH, rank=rank, world_size=world_size, seed=0
    )


def batches_of(stream: TrainStream, start: int, stop: int) -> list[Batch]:
    batches = stream.batches(start)
    taken = list(islice(batches, stop - start))
    batches.close()
    return taken


def same(one: list[Batch], other: list[Batch]) -> bool:
    return all(
        torch.equal(a.images, b.images) and a.keys == b.keys and torch.equal(a.labels, b.labels)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("shuffle_mib", [256, 0.02], ids=["in memory", "from disk"])
def test_batches_do_not_depend_on_what_is_cached(
    split: Split, config: DataConfig, decoded: list[int], shuffle_mib: float
) -> None:
    config = config.model_copy(update={"shuffle_mib": shuffle_mib})
    full = config.model_copy(update={"cache_decoded_gib": 1e-9})  # no image has room
    expected = batches_of(stream_of(split, full), 0, 3 * PER_EPOCH)
    assert len(decoded) >= 3 * PER_EPOCH * BATCH
    decoded.clear()
    assert same(batches_of(stream_of(split, config), 0, 3 * PER_EPOCH), expected)
    assert NUM <= len(decoded) < 1.5 * NUM  # two threads may meet the same image
    decoded.clear()
    tars = [Path(split.shard_url(number)) for number in range(len(split.shards))]
    for tar in tars:  # from now on, shards are not read
        tar.rename(f"{tar}.away")
    assert same(batches_of(stream_of(split, config), 4, 2 * PER_EPOCH), expected[4 : 2 * PER_EPOCH])
    ranks = [batches_of(stream_of(split, config, rank, 2), 0, PER_EPOCH) for rank in (0, 1)]
    together = [torch.cat([a.images, b.images]) for a, b in zip(*ranks, strict=True)]
    assert all(torch.equal(a, b.images) for a, b in zip(together, expected, strict=False))
    assert not decoded
    for tar in tars:
        Path(f"{tar}.away").rename(tar)
    some = config.model_copy(
        update={
            "cache_dir": f"{config.cache_dir}/some",
            "cache_decoded_gib": (TABLE_BYTES + 20.5 * SLOT_BYTES) / GIB,
        }
    )
    assert same(batches_of(stream_of(split, some), 0, 3 * PER_EPOCH), expected)
    (file,) = files(Path(config.cache_dir or "", "some"))
    assert file.stat().st_size == TABLE_BYTES + 20 * SLOT_BYTES


def test_evaluation_shows_the_same_images_from_the_cache_as_without(
    split: Split, config: DataConfig, decoded: list[int]
) -> None:
    def evaluated(config: DataConfig) -> list[Batch]:
        return list(evaluation_batches(split, config, batch_size_per_rank=10, rank=0, world_size=1))

    uncached = evaluated(config.model_copy(update={"cache_decoded_gib": 0.0}))
    num_decoded = len(decoded)
    assert same(evaluated(config), uncached)
    assert len(decoded) == 2 * num_decoded
    assert same(evaluated(config), uncached)
    assert len(decoded) == 2 * num_decoded


def test_crops_of_whole_images_are_moved_by_less_than_a_pixel_of_the_original() -> None:
    rows, columns = (
        np.mgrid[:375, :500] / 3
    )  # a pixel's grey levels are a third of its row, and of its column
    out = io.BytesIO()
    Image.fromarray(np.stack([rows, columns, rows], -1).round().astype(np.uint8)).save(out, "PNG")
    for place in np.random.default_rng(0).random((20, 2)):
        at = (float(place[0]), float(place[1]))
        cropped = decode(out.getvalue(), resize_px=256, crop_px=224, place=at)
        whole = decode(out.getvalue(), resize_px=256, crop_px=256, place=(0, 0))
        from_whole = crop_resized(whole, resize_px=256, crop_px=224, place=at)
        assert (cropped.float() - from_whole.float()).abs().max() <= 1


def test_the_whole_image_is_resized_as_the_decoder_resizes_it(split: Split, config: DataConfig) -> None:
    config = config.model_copy(update={"crop_px": 40, "flip": False})
    (batch,) = batches_of(stream_of(split, config), 0, 1)
    files = {f"{n:06}": data for n, data in enumerate(photos(NUM))}
    for key, image in zip(batch.keys, batch.images, strict=True):
        whole = decoded_whole(files[key.split("/")[1]], 40)
        assert torch.equal(image, crop_resized(whole, resize_px=40, crop_px=40, place=(0, 0)))


def test_broken_images_are_counted_and_replaced_in_every_epoch(tmp_path: Path, monkeypatch) -> None:
    broken = {3: b"no image", 11: image_of(11)[:50]}
    monkeypatch.setattr("tests.data.shards.image_of", lambda n: broken.get(n) or image_of(n))
    split = open_split(StreamConfig(url=write_dataset(tmp_path / "set", [10, 14])), "train")
    options = {"resize_px": SIDE, "crop_px": SIDE, "threads": 2, "max_bad_fraction": 0.1}
    shown = []
    for gib in (0, 1):
        stream = stream_of(split, DataConfig(**options, cache_dir=str(tmp_path), cache_decoded_gib=gib))
        shown.append([numbers_in(batch.images) for batch in batches_of(stream, 0, 9)])
        assert {name[-5:] for name in stream.bad_samples} == {"00003", "00011"}
    assert shown[0] == shown[1]


def cache_in(folder: Path, num=10, limit=GIB, identity="a", side=8) -> DecodedDiskCache:
    return DecodedDiskCache(str(folder), limit, identity, num, side, f"set {identity}")


def image(number: int, side=8) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)


def read(cache: DecodedDiskCache, position: int, checksum=7) -> np.ndarray | None:
    return Slot(cache, position, checksum).read()


def shows(cache: DecodedDiskCache, position: int, number: int, side=8) -> bool:
    """Whether the cache holds the image of this number."""
    found = read(cache, position)
    return found is not None and np.array_equal(found, image(number, side))


def filled(cache: DecodedDiskCache) -> DecodedDiskCache:
    for position in range(cache.num_samples):
        Slot(cache, position, 7).write(image(position))
    return cache


def files(folder: Path) -> list[Path]:
    return sorted((folder / "decoded").glob("*.pixels"))


def test_workers_share_what_each_of_them_writes(tmp_path: Path) -> None:
    one, other = cache_in(tmp_path), cache_in(tmp_path)
    Slot(one, 4, 7).write(image(4))
    assert other.holds(np.array([3, 4, 9, 4])).tolist() == [False, True, False, True]
    assert shows(other, 4, 4)
    Slot(other, 4, 7).write(image(5))  # held already
    assert shows(one, 4, 4)
    assert (one.num_held, other.num_held, read(one, 3)) == (1, 1, None)


@pytest.mark.parametrize("damage", ["flip", "tear", "cut", "other bytes"])
def test_a_damaged_slot_is_written_again(tmp_path: Path, caplog, damage: str) -> None:
    filled(cache_in(tmp_path))
    (file,) = files(tmp_path)
    at = TABLE_BYTES + 4 * 192
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[at + 100] ^= 1
    elif damage == "tear":
        content[at + 96 : at + 192] = bytes(96)
    file.write_bytes(content[: at + 96] if damage == "cut" else content)
    cache = cache_in(tmp_path)
    assert read(cache, 4, checksum=8 if damage == "other bytes" else 7) is None
    assert caplog.text.count("the cached image at position 4 of set a is damaged and is decoded again") == 1
    assert not cache_in(tmp_path).holds(np.array([4]))[0]
    filled(cache)
    assert shows(cache, 4, 4)
    assert shows(cache, 3, 3)


def test_a_stream_decodes_damaged_images_again(split: Split, config: DataConfig, decoded: list[int]) -> None:
    expected = batches_of(stream_of(split, config), 0, PER_EPOCH)
    (file,) = files(Path(config.cache_dir or ""))
    content = bytearray(file.read_bytes())
    content[TABLE_BYTES + 5 * SLOT_BYTES + 9] ^= 255
    file.write_bytes(content)
    decoded.clear()
    assert same(batches_of(stream_of(split, config), 0, PER_EPOCH), expected)
    assert 1 <= len(decoded) <= 2  # two threads may meet the image
    decoded.clear()
    assert same(batches_of(stream_of(split, config), 0, PER_EPOCH), expected)
    assert not decoded


def test_no_more_than_the_limit_is_reserved(tmp_path: Path, caplog) -> None:
    one = filled(cache_in(tmp_path, limit=2 * TABLE_BYTES + 15 * 192))
    two = filled(cache_in(tmp_path, limit=2 * TABLE_BYTES + 15 * 192, identity="b"))
    assert (one.num_slots, two.num_slots, two.num_held) == (10, 5, 5)
    assert two.holds(np.arange(10)).tolist() == [True] * 5 + [False] * 5
    assert "leaves room for decoded images of 5 of the 10 samples of set b" in caplog.text
    assert sum(file.stat().st_size for file in files(tmp_path)) == 2 * TABLE_BYTES + 15 * 192
    del one  # a file that no process uses makes room for the other
    two = cache_in(tmp_path, limit=2 * TABLE_BYTES + 15 * 192, identity="b")
    assert (two.num_slots, two.num_held, len(files(tmp_path))) == (10, 5, 1)
    assert cache_in(tmp_path, limit=10, identity="c").num_slots == 0
    assert shows(two, 4, 4)
    del two
    two = filled(cache_in(tmp_path, limit=TABLE_BYTES + 3 * 192, identity="b"))  # a lower limit
    assert (two.num_slots, two.num_held) == (3, 3)
    assert sum(file.stat().st_size for file in files(tmp_path)) == TABLE_BYTES + 3 * 192


def test_the_least_recently_used_file_is_deleted_first(tmp_path: Path) -> None:
    for identity in "abc":
        filled(cache_in(tmp_path, identity=identity))
        for file in files(tmp_path):
            os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 100))
    filled(cache_in(tmp_path, identity="a"))  # used again
    filled(cache_in(tmp_path, identity="d", limit=3 * (TABLE_BYTES + 1920)))
    assert [cache_in(tmp_path, identity=identity).num_held for identity in "acdb"] == [10, 10, 10, 0]


def test_most_of_the_free_space_is_the_limit_too(tmp_path: Path, monkeypatch, caplog) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=int((TABLE_BYTES + 6 * 192) / 0.9) + 9)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    cache = filled(cache_in(tmp_path, identity="space"))
    assert (cache.num_slots, cache.num_held) == (6, 6)
    assert "the free space of the disk leaves room for decoded images of 6 of the 10 samples" in caplog.text


def test_a_file_that_cannot_be_made_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "decoded").write_text("")
    with pytest.raises(
        CacheFolderError, match=r"^data\.cache_dir=.* cannot hold decoded images: .*; give a folder"
    ):
        cache_in(tmp_path)
    (tmp_path / "decoded").unlink()
    with (
        no_file_beyond(9),
        pytest.raises(CacheFolderError, match="cannot hold decoded images: File too large"),
    ):
        cache_in(tmp_path)


@contextmanager
def no_file_beyond(num_bytes: int) -> Iterator[None]:
    """Writes beyond so many bytes of a file fail, as they do on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_ends_writing_and_not_reading(tmp_path: Path, caplog) -> None:
    cache = cache_in(tmp_path)
    with no_file_beyond(TABLE_BYTES + 4 * 192 + 50):
        filled(cache)
    assert caplog.text.count("File too large; no more decoded images are cached") == 1
    assert cache.holds(np.arange(10)).tolist() == [True] * 4 + [False] * 6
    assert shows(cache, 3, 3)
    assert read(cache, 4) is None
    assert filled(cache_in(tmp_path)).num_held == 10  # there is space again


def test_batches_go_on_when_the_disk_is_full(split: Split, config: DataConfig, caplog) -> None:
    expected = batches_of(stream_of(split, config), 0, 2 * PER_EPOCH)
    stream = stream_of(split, config.model_copy(update={"cache_dir": f"{config.cache_dir}/full"}))
    with no_file_beyond(TABLE_BYTES + 9 * SLOT_BYTES):
        assert same(batches_of(stream, 0, 2 * PER_EPOCH), expected)
    assert caplog.text.count("no more decoded images are cached") == 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_killed_process_leaves_only_whole_images(tmp_path: Path) -> None:
    started, at_work = os.pipe()
    filling = os.fork()
    if not filling:
        cache = cache_in(tmp_path, num=100_000, side=64)
        for position in range(100_000):
            Slot(cache, position, 7).write(image(position, 64))
            if position == 20:
                os.write(at_work, b"!")
        os._exit(0)
    os.read(started, 1)
    os.kill(filling, signal.SIGKILL)
    os.waitpid(filling, 0)
    os.close(started)
    os.close(at_work)
    cache = cache_in(tmp_path, num=100_000, side=64)
    held = np.flatnonzero(cache.holds(np.arange(100_000)))
    assert len(held) > 20
    for position in held.tolist():
        assert shows(cache, position, position, 64)
    cache_in(tmp_path, identity="next", limit=TABLE_BYTES + 1920)  # the dead process holds no lock
    del cache
    assert cache_in(tmp_path, identity="next", limit=TABLE_BYTES + 1920).num_slots == 10


@pytest.mark.parametrize(
    "change",
    [
        {"resize_px": 41}, {"resize_px": 32}, {"grey_range": (0, 9)}, {"max_megapixels": 1.0}, {},
    ],
)  # fmt: skip
def test_what_determines_the_pixels_determines_the_file(
    split: Split, config: DataConfig, change: dict[str, Any], tmp_path: Path
) -> None:
    before = config.disk_cache(split, config.resize_px)
    changed = config.model_copy(update=change or {"crop_px": 30, "threads": 1, "cache_decoded_gib": 2.0})
    after = changed.disk_cache(split, changed.resize_px)
    assert before
    assert after
    assert len(files(tmp_path)) == (2 if change else 1)
    chosen = open_split(StreamConfig(url=split.url, labels_per_class=1, class_balance=0.5), "train")
    assert config.disk_cache(chosen, config.resize_px)  # the same images, in the same file
    assert len(files(tmp_path)) == (2 if change else 1)


def test_the_first_epoch_reports_how_many_images_are_cached(split: Split, config: DataConfig, caplog) -> None:
    with caplog.at_level(logging.INFO):
        batches_of(stream_of(split, config), 0, 2 * PER_EPOCH + 1)
    assert caplog.text.count(f"{NUM} of {NUM} decoded images of {split.url} are cached") == 1


def test_encoded_data_are_cached_only_for_images_without_room(split: Split, config: DataConfig) -> None:
    some = config.model_copy(update={"cache_decoded_gib": (TABLE_BYTES + 30 * SLOT_BYTES) / GIB})
    folder = Path(config.cache_dir or "")
    for gib, has_pages in ((config, False), (some, True)):
        batches_of(stream_of(split, gib), 0, 1)
        assert bool(list(folder.glob("??/*"))) == has_pages


def test_a_folder_that_cannot_be_used_is_named(split: Split, config: DataConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder, message in (
        (f"{tmp_path}/file/cache", r"^data\.cache_dir=.*/file/cache cannot be written: Not a directory"),
        ("s3://bucket/cache", r"^data\.cache_dir=s3://bucket/cache is in a store"),
    ):
        with pytest.raises(CacheFolderError, match=message):
            stream_of(split, config.model_copy(update={"cache_dir": folder}))
