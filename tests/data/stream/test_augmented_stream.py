"""Augmented batches: the same images, labels and shares at any number of workers and after any stop."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from fourds_dist.data import DataConfig, StreamConfig, TrainStream, evaluation_batches, open_split
from fourds_dist.data.augment.config import AugmentConfig
from fourds_dist.data.stream.batch import augmented
from tests.data.shards import SIDE, write_dataset

SIZES = [17, 1, 40, 9, 23]
PLAIN = DataConfig(resize_px=SIDE, crop_px=SIDE, threads=2, read_threads=2)
AUGMENT = AugmentConfig(
    brightness=0.4,
    hue=0.1,
    policy="trivial_augment",
    erasing_probability=0.5,
    mixup_alpha=0.4,
    cutmix_alpha=1.0,
)
ALL = PLAIN.model_copy(update={"train_crop": "random_resized", "augment": AUGMENT})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return write_dataset(tmp_path_factory.mktemp("data") / "set", SIZES)


def shown(
    folder: str, config: DataConfig, start: int, stop: int, world_size: int = 1, batch: int = 12, **choice
) -> list[list[Tensor]]:
    """Tensors of steps start..stop after the augmentation, ranks one after the other."""
    steps: list[list[list[Tensor]]] = [[] for _ in range(start, stop)]
    split = open_split(StreamConfig(url=folder, **choice), "train", seed=1)
    for rank in range(world_size):
        stream = TrainStream(
            {"target": split}, config, global_batch_size=batch, rank=rank, world_size=world_size, seed=3
        )
        batches = stream.batches(start)
        for step, batch_ in zip(steps, islice(batches, stop - start), strict=True):
            found = augmented(batch_, fill=config.mean)
            step.append([found.images, found.labels, found.flip, *(found.mixed or ())])
        batches.close()
    return [[torch.cat(parts) for parts in zip(*step, strict=True)] for step in steps]


def equal(a: list[list[Tensor]], b: list[list[Tensor]]) -> bool:
    return all(torch.equal(x, y) for s, t in zip(a, b, strict=True) for x, y in zip(s, t, strict=True))


def test_batches_do_not_depend_on_the_workers_nor_on_the_start(folder: str) -> None:
    alone = shown(folder, ALL, 0, 9)  # into the second epoch
    assert all(len(step) == 5 for step in alone)
    assert any((step[4] < 1).any() for step in alone)
    for world_size in (2, 3, 4):
        assert equal(shown(folder, ALL, 0, 9, world_size), alone)
    assert equal(shown(folder, ALL, 5, 9, 2), alone[5:])
    other = shown(folder, ALL.model_copy(update={"augment": AUGMENT.model_copy(update={"hue": 0.2})}), 0, 2)
    assert not torch.equal(other[0][0], alone[0][0])


def test_orders_of_labelled_and_unlabelled_images_have_separate_partners(folder: str) -> None:
    choice = {"labels_per_class": 2, "labelled_fraction": 0.25}
    for images, labels, flip, partner_labels, share in shown(folder, ALL, 0, 4, 1, 12, **choice):
        assert ((labels == -1) == (partner_labels == -1)).all()
        assert (labels >= 0).sum() == 3
        assert len(images) == len(flip) == len(share) == 12


def test_options_leave_the_order_crops_and_flips_of_batches_unchanged(folder: str) -> None:
    split = open_split(StreamConfig(url=folder), "train", seed=1)

    def first(config: DataConfig):
        stream = TrainStream({"target": split}, config, global_batch_size=12, rank=0, world_size=1, seed=3)
        batches = stream.batches(4)
        batch = next(batches)
        batches.close()
        return batch

    plain, with_draws = first(PLAIN), first(PLAIN.model_copy(update={"augment": AUGMENT}))
    assert plain.draws is None
    assert with_draws.draws is not None
    assert torch.equal(plain.images, with_draws.images)
    assert torch.equal(plain.flip, with_draws.flip)
    assert plain.keys == with_draws.keys == first(ALL).keys


def test_evaluation_is_not_augmented(folder: str) -> None:
    split = open_split(StreamConfig(url=folder), "val")
    options: dict[str, Any] = {"batch_size_per_rank": 50, "rank": 0, "world_size": 1}
    for plain, batch in zip(
        evaluation_batches(split, PLAIN, **options), evaluation_batches(split, ALL, **options), strict=True
    ):
        assert batch.draws is None
        assert torch.equal(batch.images, plain.images)


def test_more_workers_than_groups_of_partners_are_refused(folder: str) -> None:
    split = open_split(StreamConfig(url=folder), "train")
    with pytest.raises(
        ValueError, match="mixes images within 6 groups of a global batch, too few for 7 workers"
    ):
        TrainStream({"target": split}, ALL, global_batch_size=12, rank=0, world_size=7, seed=3)
