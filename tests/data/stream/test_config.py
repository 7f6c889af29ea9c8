"""Configuration of reading and decoding: bounds, and what is made from it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest

from fourds_dist.data.stream.batches import MOST_THREADS, num_threads
from fourds_dist.data.stream.config import LOCAL_READERS, REMOTE_READERS, DataConfig
from fourds_dist.data.stream.decoder import DecodeOptions


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop_px": 257}, r"crop_px \(257\) is larger than resize_px \(256\)"),
        ({"grey_range": (5, 5)}, r"grey_range \(\(5\.0, 5\.0\)\) takes two numbers, the lower one first"),
        ({"grey_range": (0, float("inf"))}, "takes two numbers"),
        ({"std": (1, 1, 0)}, "greater than 0"),
        ({"source_fraction": 1}, "less than 1"),
        ({"threads": 0}, "greater than or equal to 1"),
        ({"resize_px": 8193}, "less than or equal to 8192"),
        ({"cache_decoded_gib": 9}, r"cache_decoded_gib=9 needs cache_dir, .* for example data\.cache_dir=/"),
        ({"cache_decoded_gib": -1, "cache_dir": "c"}, "greater than or equal to 0"),
        ({"unknown": 1}, "unknown"),
        ({"resize_mode": "squash"}, "'squeeze' or 'shortest_side'"),
        ({"train_crop": "random_resized", "scale": (0, 1)}, "greater than 0"),
        (
            {"train_crop": "random_resized", "scale": (0.9, 0.5)},
            r"scale \(\[0\.9, 0\.5\]\) takes two numbers",
        ),
        ({"train_crop": "random_resized", "ratio": (2, 1)}, r"ratio \(\[2\.0, 1\.0\]\) takes two numbers"),
        ({"train_crop": "random_resized", "ratio": (1, float("inf"))}, "less than or equal to 100"),
        ({"scale": (0.5, 1)}, "scale applies to train_crop=random_resized; set train_crop, or remove scale"),
    ],
)
def test_bounds(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**values)


def test_options_of_decoding() -> None:
    config = DataConfig(
        resize_px=40, crop_px=32, threads=3, prefetch_batches=7, grey_range=(0, 9), max_megapixels=1.5
    )
    assert config.decoding(1) == DecodeOptions(40, 32, 3, False, 7, (0, 9), 1_500_000)
    assert DataConfig().decoding(10_000).threads == num_threads(10_000) == 1


@pytest.mark.parametrize(
    ("decoders", "threads", "in_processes"),
    [
        ("auto", MOST_THREADS, False),
        ("auto", MOST_THREADS + 1, True),
        ("threads", MOST_THREADS + 1, False),
        ("processes", 1, True),
    ],
)
def test_where_images_are_decoded(decoders: Any, threads: int, in_processes: bool) -> None:
    assert DataConfig(decoders=decoders, threads=threads).decoding(1).in_processes == in_processes


def test_the_disk_cache_is_used_only_if_there_is_a_folder(tmp_path: Path) -> None:
    where = f"memory://{tmp_path.name}/a"
    fsspec.filesystem("memory").pipe(where, b"0123")
    for cache_dir, num_bytes in ((None, 4), (str(tmp_path / "cache"), 0)):
        config = DataConfig(cache_dir=cache_dir)
        assert bytes(config.fetcher(4).range(where, 0, 4, 4)) == b"0123"
        again = config.fetcher(4)
        assert bytes(again.range(where, 0, 4, 4)) == b"0123"
        assert again.counts["bytes"] == num_bytes


def test_object_storage_has_more_readers_than_a_disk(tmp_path) -> None:
    local, remote = (SimpleNamespace(url=url) for url in (str(tmp_path), "memory://photos"))
    config = DataConfig()
    assert config.num_readers([local, local]) == LOCAL_READERS  # pyright: ignore[reportArgumentType]
    assert config.num_readers([local, remote]) == REMOTE_READERS  # pyright: ignore[reportArgumentType]
    assert DataConfig(read_threads=7).num_readers([remote]) == 7  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("given", [
    {"cache_dir": None}, {"resize_mode": "shortest_side"}, {"train_crop": "random_resized"}, {"decoders": "gpu"},
])  # fmt: skip
def test_what_the_decoded_cache_cannot_hold_is_refused(tmp_path, given) -> None:
    (key,) = given
    with pytest.raises(ValueError, match=f"cache_decoded_gib.*{key}"):
        DataConfig(**{"cache_dir": str(tmp_path), "cache_decoded_gib": 1.0} | given)
