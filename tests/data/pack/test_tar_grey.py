"""One grey range for all splits of existing tars: given now, given earlier, or measured."""

from __future__ import annotations

import dataclasses
from typing import Any

from fourds_dist.data.decode.grey import Grey
from fourds_dist.data.format.manifest import Manifest
from fourds_dist.data.pack.shard_labels import ShardLabels
from fourds_dist.data.pack.tar_grey import grey_note, with_grey_range
from tests.data.pack.tars import index_of, samples, tar_bytes

DIM = Grey("16-bit", 2, 3, 900, 0, 900, False)
BRIGHT = Grey("16-bit", 1, 50, 4000, 0, 4000, False)


def manifest(*greys: Grey | None, range: Any = None, **notes: Any) -> Manifest:
    indexed = {
        split: {"label": "cls", **({"grey": dataclasses.asdict(grey)} if grey else {})}
        for split, grey in zip(("train", "val", "test"), greys, strict=False)
    }
    return Manifest("m", ("a",), {}, {}, {"indexed": indexed, **notes}, range)


def test_the_note_of_a_split_joins_its_shards() -> None:
    shard = ShardLabels.of(index_of(tar_bytes(samples(1))))
    assert grey_note([shard, shard]) is None
    shards = [dataclasses.replace(shard, grey=grey) for grey in (DIM, None, BRIGHT)]
    assert grey_note(shards) == {
        "kind": "16-bit", "num_images": 3, "lowest": 3, "highest": 4000, "black": 0, "white": 4000, "is_said": False,
    }  # fmt: skip


def test_the_range_is_measured_over_all_splits_unless_one_is_given() -> None:
    measured = with_grey_range(manifest(DIM, BRIGHT), None, None)
    assert measured.grey_range == (0, 4000)
    assert measured.notes["grey"]["num_images"] == 3
    given = with_grey_range(manifest(DIM), measured, (0, 4095))
    assert (given.grey_range, given.notes["grey range given"]) == ((0, 4095), True)
    assert with_grey_range(manifest(BRIGHT), given, None).grey_range == (0, 4095)  # given earlier
    assert with_grey_range(manifest(DIM), measured, None).grey_range == (0, 900)
    none = with_grey_range(manifest(None, grey="stale"), None, None)
    assert (none.grey_range, set(none.notes)) == (None, {"indexed"})


def test_a_packed_dataset_keeps_its_range_unless_another_is_given() -> None:
    packed = manifest(range=(5, 6), packing={})
    assert with_grey_range(manifest(BRIGHT), packed, None).grey_range == (5, 6)
    assert with_grey_range(manifest(BRIGHT), packed, (0, 7)).grey_range == (0, 7)
