"""The samples of a split by position: which are shown, whose labels are used, and whether the shards are there."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fourds_dist.data.format.manifest import Manifest, Shard, read_manifest, write_manifest
from fourds_dist.data.stream.split import Split, StreamConfig, check_same_classes, load_index, open_split
from tests.data.shards import write_dataset
from tests.rights import reachable_folder, unprivileged

LABELS = [0] * 12 + [1] * 6 + [2] * 2 + [-1] * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return write_dataset(tmp_path_factory.mktemp("data") / "set", [10, 14], labels=LABELS)


def opened(folder: str, seed: int = 0, **choice: Any) -> Split:
    return open_split(StreamConfig(url=folder, **choice), "train", seed=seed)


def used_labels(split: Split) -> list[int]:
    """Labels that a pass shows, in order."""
    shown = split.positions(np.arange(split.num_samples))
    mask = np.ones(len(LABELS), bool) if split.label_mask is None else split.label_mask
    return [LABELS[n] if mask[n] else -1 for n in shown]


def test_positions_and_rows() -> None:
    shards = tuple(Shard(f"{n}.tar", size, 100 * size) for n, size in enumerate((3, 0, 2)))
    split = Split("s", "train", ("a",), shards, "f")
    assert (split.num_positions, split.num_samples, split.num_bytes) == (5, 5, 500)
    found, rows = split.locate(np.arange(5))
    assert (found.tolist(), rows.tolist()) == ([0, 0, 0, 2, 2], [0, 1, 2, 0, 1])
    assert split.run_lengths().tolist() == [3, 2]
    chosen = replace(split, chosen=np.array([0, 2, 3, 4, 2, 3, 3]))
    assert chosen.num_samples == 7
    assert chosen.positions(np.array([6, 1])).tolist() == [3, 2]
    assert chosen.run_lengths().tolist() == [2, 2, 1, 1, 1]  # a new round begins where positions do not rise
    assert (split.shard_url(2), split.index_url(2)) == ("s/2.tar", "s/2.tar.index")


def test_all_samples_unless_some_are_chosen(folder: str) -> None:
    split = opened(folder)
    assert (split.chosen, split.label_mask, split.labelled) == (None, None, None)
    assert split.fingerprint == f"{read_manifest(folder).fingerprint}/train"
    assert used_labels(split) == LABELS
    assert open_split(StreamConfig(url=folder, labels_per_class=0), "val").label_mask is None


def test_labels_of_each_class_are_drawn(folder: str) -> None:
    drawn = [opened(folder, seed, labels_per_class=3) for seed in (0, 0, 1)]
    for split in drawn:
        assert split.num_samples == 24
        labels = used_labels(split)
        assert [labels.count(c) for c in (0, 1, 2)] == [3, 3, 2]
    masks = [split.label_mask.tolist() for split in drawn if split.label_mask is not None]
    assert masks[0] == masks[1] != masks[2]
    assert len({split.fingerprint for split in (*drawn, opened(folder))}) == 3


def test_some_training_images_with_the_same_share_of_every_class(folder: str) -> None:
    half = opened(folder, train_images=12)
    labels = used_labels(half)
    assert [labels.count(c) for c in (0, 1, 2, -1)] == [6, 3, 1, 2]
    assert half.num_samples == 12
    assert half.fingerprint not in (opened(folder).fingerprint, opened(folder, train_images=11).fingerprint)
    positions = [set(opened(folder, 3, train_images=num).positions(np.arange(num))) for num in range(1, 25)]
    assert all(small < large for small, large in pairwise(positions))
    assert opened(folder, train_images=24).chosen is None
    assert opened(folder, train_images=1000).num_samples == 24
    assert set(opened(folder, 4, train_images=12).positions(np.arange(12))) != positions[11]


def test_labels_are_drawn_among_the_images_that_are_used(folder: str) -> None:
    few = opened(folder, train_images=12, labels_per_class=2)
    labels = used_labels(few)
    assert [labels.count(c) for c in (0, 1, 2, -1)] == [2, 2, 1, 7]
    assert used_labels(opened(folder, train_images=12, labels_per_class=2, unlabelled="drop")) == [
        0,
        0,
        1,
        1,
        2,
    ]
    whole = [opened(folder, labels_per_class=2, **choice).label_mask for choice in ({}, {"train_images": 24})]
    assert whole[0] is not None
    assert whole[1] is not None
    assert whole[0].tolist() == whole[1].tolist()


def test_evaluation_uses_at_most_some_images(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set", [24], labels=LABELS)
    val = open_split(StreamConfig(url=folder, val_images=12), "val")
    labels = [LABELS[n] for n in val.positions(np.arange(val.num_samples))]
    assert [labels.count(c) for c in (0, 1, 2, -1)] == [6, 3, 1, 2]
    assert val.fingerprint != open_split(StreamConfig(url=folder), "val").fingerprint
    all_of_them = open_split(StreamConfig(url=folder, val_images=24), "val")
    assert (all_of_them.chosen, all_of_them.num_samples) == (None, 24)
    sizes = [
        open_split(StreamConfig(url=folder, test_images=5), name).num_samples for name in ("val", "test")
    ]
    assert sizes == [24, 5]


def test_images_whose_labels_are_not_used_can_be_dropped(folder: str) -> None:
    labels = used_labels(opened(folder, labels_per_class=3, unlabelled="drop"))
    assert sorted(labels) == [0, 0, 0, 1, 1, 1, 2, 2]
    assert used_labels(opened(folder, unlabelled="drop")) == LABELS[:20]
    few = opened(folder, labels_per_class=3, labelled_fraction=0.5)
    assert few.labelled is not None
    assert few.labelled.tolist() == [label >= 0 for label in used_labels(few)]


def test_classes_are_balanced_by_repeating_and_leaving_out_images(folder: str) -> None:
    equal = used_labels(opened(folder, class_balance=1.0, unlabelled="drop"))
    assert len(equal) == 20
    assert all(abs(equal.count(c) - 20 / 3) <= 1 for c in range(3))
    half = used_labels(opened(folder, class_balance=0.5, unlabelled="drop"))
    weights = np.sqrt([12, 6, 2])
    assert all(abs(half.count(c) - 20 * weights[c] / weights.sum()) <= 1 for c in range(3))
    split = opened(folder, class_balance=1.0, unlabelled="drop")
    assert split.chosen is not None
    rounds = np.split(split.chosen, np.flatnonzero(np.diff(split.chosen) <= 0) + 1)
    assert all((np.diff(part) > 0).all() for part in rounds)
    for earlier, later in pairwise(rounds):
        assert set(later) <= set(earlier)


def test_some_shards_of_a_folder(folder: str) -> None:
    split = opened(f"{folder}/train-00001.tar")
    assert [shard.name for shard in split.shards] == ["train-00001.tar"]
    assert split.fingerprint != opened(folder).fingerprint
    pattern = f"{folder}/train-{{00001..00001}}.tar"
    assert len(open_split(StreamConfig(url=pattern), "val").shards) == 2  # the pattern is of another split
    with pytest.raises(
        ValueError, match=r"no shards match .*/x-\*\.tar; the folder's first is train-00000\.tar"
    ):
        opened(f"{folder}/x-*.tar")


def test_what_cannot_be_chosen(tmp_path: Path) -> None:
    bare = write_dataset(tmp_path / "bare", [3], splits=("train",), labels=[-1] * 3)
    with pytest.raises(
        ValueError, match="no training images are left, since all are unlabelled; set unlabelled=keep"
    ):
        opened(bare, unlabelled="drop")
    with pytest.raises(ValueError, match="has no 'test' split"):
        open_split(StreamConfig(url=bare), "test")
    with pytest.raises(ValueError, match="labels_per_class=0 with unlabelled=drop leaves no training images"):
        StreamConfig(url=bare, labels_per_class=0, unlabelled="drop")


def test_class_lists_must_be_equal() -> None:
    def split(url: str, *classes: str) -> Split:
        return Split(url, "train", classes, (), "f")

    check_same_classes(split("s", "a", "b"), split("t", "a", "b"))
    with pytest.raises(
        ValueError, match=r"between s \(2\) and t \(2\): in another order, first at 0: 'a' and 'b'; pack"
    ):
        check_same_classes(split("s", "a", "b"), split("t", "b", "a"))
    with pytest.raises(ValueError, match=r"only s has 'b', 'c'; only t has 'd'; .*--classes s`"):
        check_same_classes(split("s", "a", "b", "c"), split("t", "a", "d"))
    with pytest.raises(ValueError, match=r"\(1\) and t \(2\): only t has 'b'; pack"):
        check_same_classes(split("s", "a"), split("t", "a", "b"))


def test_an_index_of_another_tar_is_refused(folder: str, tmp_path: Path) -> None:
    assert load_index(opened(folder), 1).labels.tolist() == LABELS[10:]
    path = write_dataset(tmp_path / "set", [4])
    manifest = read_manifest(path)
    shards = (replace(manifest.splits["train"][0], num_samples=5),)
    write_manifest(path, Manifest("set", manifest.classes, {"train": shards}, {"train": (2, 2, 1)}))
    with pytest.raises(
        ValueError,
        match=r"train-00000\.tar\.index has 4 samples in \d+ bytes, but the manifest lists 5 in .*; index or",
    ):
        load_index(opened(path), 0)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.unlink(), "train-00001.tar is missing, though the manifest"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-512]),
            "train-00001.tar has .* bytes, but the manifest lists",
        ),
        (lambda path: Path(f"{path}.index").unlink(), "train-00001.tar.index is missing"),
    ],
)
def test_what_is_missing_or_cut_is_refused_at_the_start(tmp_path, harm, message):
    split = open_split(StreamConfig(url=write_dataset(tmp_path / "set", [3, 4])), "train")
    split.check_shards()
    harm(tmp_path / "set" / "train-00001.tar")
    with pytest.raises(ValueError, match=message):
        split.check_shards()


@pytest.mark.parametrize("name", ["train-00000.tar", "train-00000.tar.index"])
def test_shards_that_this_user_may_not_read_are_named_before_anything_starts(name: str) -> None:
    with reachable_folder() as folder:
        split = open_split(StreamConfig(url=write_dataset(folder / "set", [4])), "train")
        split.check_shards()
        (folder / "set" / name).chmod(0)
        with (
            unprivileged(),
            pytest.raises(ValueError, match=rf"{name}: access denied; give this user the right"),
        ):
            split.check_shards()
