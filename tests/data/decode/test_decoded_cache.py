"""The cache of decoded images: each decoded once, the same batches, and never more than the budget."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from fourds_dist.data import DataConfig, StreamConfig, TrainStream, evaluation_batches, open_split
from fourds_dist.data.decode import decoded_cache as kept
from fourds_dist.data.decode.decoded_cache import ByteBudget, DecodedCache
from tests.data.shards import SIDE, image_of, write_dataset

IMAGE_BYTES = 3 * SIDE * SIDE
SIZES = [17, 40]
NUM_EPOCHS, BATCH = 3, 19
CROPPED = DataConfig(resize_px=SIDE + 4, crop_px=SIDE + 1, threads=2, decoders="threads")


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Sizes of the files that were decoded for the cache."""
    sizes: list[int] = []
    whole = kept.decoded_whole

    def counting(data, resize_px, **how):
        sizes.append(len(data))
        return whole(data, resize_px, **how)

    monkeypatch.setattr(kept, "decoded_whole", counting)
    return sizes


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    url = write_dataset(tmp_path_factory.mktemp("data") / "set", SIZES)
    return open_split(StreamConfig(url=url), "train")


def images_of(split, decoded_cache_mib: float) -> list[torch.Tensor]:
    config = CROPPED.model_copy(update={"decoded_cache_mib": decoded_cache_mib})
    stream = TrainStream({"target": split}, config, global_batch_size=BATCH, rank=0, world_size=1, seed=0)
    batches = stream.batches(0)
    taken = [batch.images.clone() for batch in islice(batches, NUM_EPOCHS * sum(SIZES) // BATCH)]
    batches.close()
    return taken


def test_batches_are_the_same_and_each_image_is_decoded_once(split, decoded) -> None:
    without = images_of(split, 0)
    assert not decoded
    with_all = images_of(split, 1)
    assert (
        sum(SIZES) <= len(decoded) < 1.5 * sum(SIZES)
    )  # two threads may meet the same image; three epochs passed
    for a, b in zip(without, with_all, strict=True):
        assert torch.equal(a, b)


def test_batches_are_the_same_where_the_budget_is_spent_on_the_way(split, decoded) -> None:
    without, with_some = images_of(split, 0), images_of(split, 20 * IMAGE_BYTES / 2**20)
    assert 20 <= len(decoded) < sum(SIZES)
    for a, b in zip(without, with_some, strict=True):
        assert torch.equal(a, b)


def test_an_evaluation_decodes_no_cached_image(split, decoded) -> None:
    images, seen = DecodedCache(ByteBudget(1 << 20)), []
    for _ in range(2):
        batches = evaluation_batches(
            split, CROPPED, batch_size_per_rank=16, rank=0, world_size=1, decoded_cache=images
        )
        seen.append(torch.cat([batch.images for batch in batches]))
    assert len(decoded) == sum(SIZES)
    assert torch.equal(*seen)


def test_images_beyond_shuffle_mib_are_not_cached(split, decoded) -> None:
    config = CROPPED.model_copy(update={"shuffle_mib": 0.005})
    images = DecodedCache(ByteBudget(1 << 20))
    assert list(
        evaluation_batches(split, config, batch_size_per_rank=16, rank=0, world_size=1, decoded_cache=images)
    )
    assert not decoded


def test_all_caches_together_stay_in_the_budget() -> None:
    budget = ByteBudget(3 * IMAGE_BYTES + 1)
    one, other = DecodedCache(budget), DecodedCache(budget)
    for number in range(4):
        for images in (one, other):
            images.image(str(number), image_of(number), SIDE)
    assert len(one._images) + len(other._images) == 3
    assert budget.is_spent
    assert one.image("9", image_of(9), SIDE) is None
    again = one.image("0", b"not looked at again", SIDE)
    assert again is not None
    assert again[:, 0, 0].tolist() == [0, 0, 7]


def test_a_broken_image_has_the_same_error_message() -> None:
    with pytest.raises(ValueError, match="is not a readable JPEG"):
        DecodedCache(ByteBudget(1 << 20)).image("0", b"nothing", SIDE)
