"""Partners and shares of mixup and cutmix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourds_dist.data.augment.config import AugmentConfig
from fourds_dist.data.augment.mixing import Mix, draw_mix, partners
from fourds_dist.data.seeds import generator
from fourds_dist.data.stream.order import groups_of_partitions, groups_of_rank, num_partitions


@given(batch=st.integers(1, 300), data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_partners_do_not_depend_on_the_number_of_workers(batch: int, data: st.DataObject) -> None:
    partitions = num_partitions(batch)
    per_partition = batch // partitions
    groups = groups_of_partitions(partitions, per_partition)
    assert [k for group in groups for k in group] == list(range(partitions))
    alone = partners([len(group) * per_partition for group in groups])
    assert sorted(alone) == list(range(batch))
    if batch > 1:
        assert (alone != np.arange(batch)).all()
    world_size = data.draw(st.integers(1, len(groups)))
    begin, together = 0, []
    for rank in range(world_size):
        own = groups_of_rank(partitions, per_partition, rank, world_size, mixes=True)
        together.append(partners([len(group) * per_partition for group in own]) + begin)
        begin += len(together[-1])
    assert (np.concatenate(together) == alone).all()


def test_too_many_workers_are_refused_with_a_remedy_that_works() -> None:
    with pytest.raises(
        ValueError, match=r"within 3 groups .* too few for 5 workers; .* multiple of 10, or fewer"
    ):
        groups_of_rank(6, 1, 0, 5, mixes=True)
    assert len(groups_of_rank(6, 1, 0, 5, mixes=False)) == 1
    for workers in range(1, 129):
        for batch in (2 * workers, 4 * workers, 6 * workers):
            partitions = num_partitions(batch)
            assert groups_of_rank(partitions, batch // partitions, workers - 1, workers, mixes=True)


def test_shares_are_those_of_a_beta_distribution() -> None:
    config = AugmentConfig(mixup_alpha=0.4)
    shares = np.array([draw_mix(config, 32, generator(0, step)).share for step in range(2000)])
    assert abs(shares.mean() - 0.5) < 0.03
    assert abs(shares.var() - 0.25 / 1.8) < 0.01  # of Beta(a, a): 1 / (4 (2 a + 1))
    assert draw_mix(config, 32, generator(0, 7)) == draw_mix(config, 32, generator(0, 7))


def test_the_share_of_cutmix_is_the_area_that_stays() -> None:
    config = AugmentConfig(cutmix_alpha=1.0)
    mixes = [draw_mix(config, 20, generator(1, step)) for step in range(500)]
    for mix in mixes:
        assert mix.box is not None
        top, bottom, left, right = mix.box
        assert 0 <= top <= bottom <= 20
        assert 0 <= left <= right <= 20
        assert mix.share == 1 - (bottom - top) * (right - left) / 400
    assert 0.5 < np.mean([mix.share for mix in mixes]) < 0.75  # rectangles are cut off at the border


def test_which_batches_are_mixed_and_how() -> None:
    both = AugmentConfig(mixup_alpha=1.0, cutmix_alpha=1.0, mix_probability=0.5, cutmix_probability=0.3)
    mixes = [draw_mix(both, 32, generator(2, step)) for step in range(2000)]
    assert abs(sum(mix == Mix(1.0) for mix in mixes) / 2000 - 0.5) < 0.05
    assert abs(sum(mix.box is not None for mix in mixes) / 2000 - 0.15) < 0.04
    tiny = AugmentConfig(mixup_alpha=0.001)
    assert all(0 <= draw_mix(tiny, 32, generator(3, step)).share <= 1 for step in range(200))
