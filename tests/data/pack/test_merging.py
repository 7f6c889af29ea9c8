"""Newly indexed tars replace their split in a manifest, and leave the split in which they were."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from fourds_dist.data.format.manifest import Manifest, Shard
from fourds_dist.data.pack.index_files import write_index
from fourds_dist.data.pack.merging import merged
from tests.data.pack.tars import index_of, samples, tar_bytes

CLASSES = ("0", "1", "2")


def test_a_new_manifest_has_its_splits_in_order_and_the_folder_s_name() -> None:
    shards = {"test": [Shard("b.tar", 1, 9)], "train": [Shard("a.tar", 3, 9)]}
    counts = {"test": Counter({"2": 1}), "train": Counter({"0": 2, "1": 1})}
    manifest = merged(
        None, "s3://b/birds", None, CLASSES, shards, counts, {"test": {"label": "cls"}}, {"x": 1}
    )
    assert manifest.name == "birds"
    assert list(manifest.splits) == ["train", "test"]
    assert manifest.class_counts == {"train": (2, 1, 0), "test": (0, 0, 1)}
    assert manifest.notes == {"indexed": {"test": {"label": "cls"}}, "x": 1}
    assert merged(None, "s3://b/birds", "n", CLASSES, shards, counts, {}, {}).name == "n"


def test_a_moved_tar_leaves_its_split_and_the_rest_is_counted_again(tmp_path: Path) -> None:
    write_index(f"{tmp_path}/a.tar.index", index_of(tar_bytes(samples(5))))  # labels 0 1 2 0 1
    existing = Manifest(
        "old",
        CLASSES,
        {"train": (Shard("a.tar", 5, 9), Shard("b.tar", 1, 9)), "val": (Shard("v.tar", 1, 9),)},
        {"train": (3, 2, 1), "val": (0, 1, 0)},
        {"indexed": {"train": {"label": "cls"}}, "remarks": ["of before"], "kept": 1},
    )
    shards, counts = {"test": [Shard("b.tar", 1, 9)]}, {"test": Counter({"0": 1})}
    manifest = merged(existing, str(tmp_path), "new", CLASSES, shards, counts, {"test": {"label": "id"}}, {})
    assert manifest.name == "old"
    assert {split: [s.name for s in listed] for split, listed in manifest.splits.items()} == {
        "train": ["a.tar"],
        "val": ["v.tar"],
        "test": ["b.tar"],
    }
    assert manifest.class_counts == {"train": (2, 2, 1), "val": (0, 1, 0), "test": (1, 0, 0)}
    assert manifest.notes == {"indexed": {"train": {"label": "cls"}, "test": {"label": "id"}}, "kept": 1}


def test_a_split_of_which_all_tars_moved_is_no_longer_there() -> None:
    existing = Manifest("old", CLASSES, {"val": (Shard("a.tar", 1, 9),)}, {"val": (1, 0, 0)}, {})
    shards, counts = {"train": [Shard("a.tar", 1, 9)]}, {"train": Counter({"0": 1})}
    manifest = merged(existing, "nowhere", None, CLASSES, shards, counts, {}, {})
    assert dict(manifest.splits) == {"train": (Shard("a.tar", 1, 9),)}
    assert dict(manifest.class_counts) == {"train": (1, 0, 0)}
