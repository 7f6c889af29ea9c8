"""Few labels: every batch holds its share of labelled images, from orders of labelled and of unlabelled images."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fourds_dist.data import StreamConfig, TrainStream, open_split
from fourds_dist.data.format.manifest import Shard
from fourds_dist.data.stream.labelled_batches import labelled_batches
from fourds_dist.data.stream.split import Split
from tests.data.shards import numbers_in, write_dataset
from tests.data.stream.test_stream import FROM_DISK, MODES, SIZES


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return write_dataset(tmp_path_factory.mktemp("data") / "set", SIZES)


class TestLabelledFraction:
    """Few labels: every batch holds its share of labelled images, wherever and whenever it is made."""

    @staticmethod
    def stream(
        folder: str, config=FROM_DISK, rank=0, world_size=1, batch=12, seed=3, **choice
    ) -> TrainStream:
        split = open_split(StreamConfig(url=folder, **choice), "train", seed=1)
        return TrainStream(
            {"target": split}, config, global_batch_size=batch, rank=rank, world_size=world_size, seed=seed
        )

    @classmethod
    def steps(cls, folder: str, start: int, stop: int, world_size=1, **options) -> list[list[tuple]]:
        """(number, label, mirrored) of every image of steps start..stop, sorted, of all ranks together."""
        steps: list[list[tuple]] = [[] for _ in range(start, stop)]
        for rank in range(world_size):
            batches = cls.stream(folder, rank=rank, world_size=world_size, **options).batches(start)
            for step, batch in zip(steps, islice(batches, stop - start), strict=True):
                step += zip(numbers_in(batch.images), batch.labels.tolist(), batch.flip.tolist(), strict=True)
            batches.close()
        return [sorted(step) for step in steps]

    @MODES
    @given(
        labels_per_class=st.integers(1, 9),
        fraction=st.floats(0.01, 0.9),
        batch=st.sampled_from([6, 12, 20]),
        seed=st.integers(0, 3),
    )
    @settings(
        max_examples=12,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        derandomize=True,
    )
    def test_every_batch_has_its_share(self, folder, config, labels_per_class, fraction, batch, seed):
        few = {
            "labels_per_class": labels_per_class,
            "labelled_fraction": fraction,
            "batch": batch,
            "seed": seed,
        }
        s = self.stream(folder, config, **few)
        assert s.num_steps_per_epoch == sum(SIZES) // batch
        told, shown = set(), set()
        num_labelled = set()
        for made in islice(s.batches(0), 2 * s.num_steps_per_epoch):
            numbers = numbers_in(made.images)
            assert len(numbers) == batch
            is_told = (made.labels >= 0).tolist()
            num_labelled.add(sum(is_told))
            for number, label, is_labelled in zip(numbers, made.labels.tolist(), is_told, strict=True):
                assert label == (number % 3 if is_labelled else -1)
                (told if is_labelled else shown).add(number)
        (count,) = num_labelled  # the same in every batch
        natural = 3 * labels_per_class / 90 * batch
        wanted = max(fraction * batch, natural)
        assert wanted - 1e-4 <= count < wanted + 1 or count == batch - 1
        assert len(told) <= 3 * labels_per_class
        assert not told & shown

    @MODES
    @given(world_size=st.integers(1, 4), start=st.integers(0, 15), length=st.integers(1, 9))
    @settings(
        max_examples=10,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        derandomize=True,
    )
    def test_any_world_size_and_any_start_give_the_same_batches(
        self, folder, config, world_size, start, length
    ):
        few = {"config": config, "labels_per_class": 2, "labelled_fraction": 0.4}
        whole = self.steps(folder, 0, 24, **few)
        assert self.steps(folder, start, start + length, world_size, **few) == whole[start : start + length]

    def test_labelled_images_come_equally_often(self, folder):
        few = {"labels_per_class": 2, "labelled_fraction": 0.5}
        labelled = [n for step in self.steps(folder, 0, 14, **few) for n, label, _ in step if label >= 0]
        assert len(labelled) == 14 * 6
        assert {labelled.count(n) for n in set(labelled)} == {14}  # a batch holds each of the six once

    def test_fewer_labels_than_a_batch_is_to_hold(self, folder):
        few = {"labels_per_class": 1, "labelled_fraction": 0.75}
        for step in self.steps(folder, 0, 7, **few):
            labelled = [n for n, label, _ in step if label >= 0]
            assert len(labelled) == 9
            assert {labelled.count(n) for n in set(labelled)} == {3}

    def test_where_all_are_labelled_nothing_changes(self, folder):
        assert self.steps(folder, 0, 7, labelled_fraction=0.5) == self.steps(folder, 0, 7)
        dropped = {"labels_per_class": 5, "unlabelled": "drop"}
        assert self.steps(folder, 0, 7, labelled_fraction=0.5, **dropped) == self.steps(
            folder, 0, 7, **dropped
        )

    def test_unlabelled_images_are_each_shown_once_in_their_pass(self, folder):
        few = {"labels_per_class": 2, "labelled_fraction": 0.5}
        unlabelled = [n for step in self.steps(folder, 0, 14, **few) for n, label, _ in step if label < 0]
        assert len(set(unlabelled)) == len(unlabelled) == 14 * 6  # of 84

    def test_beside_a_source(self, folder, tmp_path):
        other = write_dataset(tmp_path / "other", [30])
        few = StreamConfig(url=folder, labels_per_class=2, labelled_fraction=0.5)
        splits = {"target": open_split(few, "train"), "source": open_split(StreamConfig(url=other), "train")}
        config = FROM_DISK.model_copy(update={"source_fraction": 0.25})
        s = TrainStream(splits, config, global_batch_size=16, rank=0, world_size=1, seed=0)
        assert s.num_steps_per_epoch == 90 // 12
        for batch in islice(s.batches(0), 9):
            assert (batch.labels[:6] < 0).all()
            assert (batch.labels[6:] >= 0).all()
            assert batch.num_source == 4
            assert max(numbers_in(batch.images[-4:])) < 30

    def test_refused(self, folder, tmp_path):
        with pytest.raises(ValueError, match="labels_per_class=0 leaves no labelled images"):
            StreamConfig(url=folder, labels_per_class=0, labelled_fraction=0.5)
        bare = write_dataset(tmp_path / "bare", [40], labels=[-1] * 40)
        with pytest.raises(ValueError, match="has no labelled train images"):
            self.stream(bare, labelled_fraction=0.5)
        with pytest.raises(ValueError, match="at least two images"):
            self.stream(folder, labels_per_class=1, labelled_fraction=0.5, batch=1)


def split_of(labelled: list[bool], fraction: float, chosen: list[int] | None = None) -> Split:
    shards = (Shard("a.tar", 100, 9),)
    shown = None if chosen is None else np.array(chosen)
    return Split("s", "train", ("a",), shards, "print", shown, None, np.array(labelled), fraction)


def parts_of(split: Split, batch_size: int) -> list[tuple[list[int] | None, int]]:
    parts = labelled_batches(split, batch_size)
    return [(None if part.chosen is None else part.chosen.tolist(), count) for part, count in parts]


def test_the_orders_divide_the_batch_and_the_positions() -> None:
    labelled = [n % 4 == 1 for n in range(8)]
    split = split_of(labelled, 0.3)
    assert parts_of(split, 10) == [([0, 2, 3, 4, 6, 7], 7), ([1, 5] * 2, 3)]  # two labels for three places
    assert parts_of(split_of(labelled, 0.1), 8) == [
        ([0, 2, 3, 4, 6, 7], 6),
        ([1, 5], 2),
    ]  # a quarter by nature
    assert parts_of(split_of(labelled, 0.99), 2) == [([0, 2, 3, 4, 6, 7], 1), ([1, 5], 1)]
    chosen = split_of([True, False, False], 0.5, [40, 50, 60])
    assert parts_of(chosen, 2) == [([50, 60], 1), ([40], 1)]
    orders = [part for part, _ in labelled_batches(split, 10)]
    assert [part.fingerprint for part in orders] == ["print/unlabelled", "print/labelled"]
    assert all(part.labelled is None for part in orders)


def test_one_order_if_no_share_is_asked_for_or_all_are_labelled() -> None:
    for split in (split_of([True, True], 0.5), Split("s", "train", ("a",), (), "print")):
        assert labelled_batches(split, 4) == [(split, 4)]


def test_shares_that_cannot_be_met() -> None:
    with pytest.raises(
        ValueError, match=r"^s has no labelled train images, but labelled_fraction=0\.5 .*; set labelled"
    ):
        labelled_batches(split_of([False, False], 0.5), 4)
    with pytest.raises(ValueError, match=r"at least two images of s in a batch.*; raise global_batch_size"):
        labelled_batches(split_of([True, False], 0.5), 1)
