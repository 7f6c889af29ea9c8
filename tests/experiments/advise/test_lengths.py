"""Shortened trainings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fourds_dist.experiments.advise.lengths import LEAST_STEPS, FullLength

FULL = st.builds(FullLength, st.integers(1, 200), st.integers(1, 10**6), st.integers(1, 256))


@given(FULL, st.floats(0, 2))
def test_a_shortened_training_is_no_longer_than_the_full_one(full: FullLength, fraction: float) -> None:
    short = full.shortened(fraction)
    assert 1 <= short.epochs <= full.epochs
    assert 1 <= short.images <= full.images
    assert short.fraction == short.shown / full.shown <= 1


@given(FULL, st.floats(0, 1))
def test_it_has_about_the_fraction_that_was_asked_for(full: FullLength, fraction: float) -> None:
    short = full.shortened(fraction)
    wanted = max(fraction, full.least_fraction) * full.shown
    rounding = short.epochs / 2 + short.images  # of a pass, and of the number of epochs
    assert abs(short.shown - wanted) <= max(rounding, full.batch * short.epochs)


def test_images_are_left_out_where_epochs_are_few() -> None:
    full = FullLength(epochs=15, images=100_000, batch=64)
    assert [(full.shortened(f).epochs, full.shortened(f).images) for f in (1.0, 0.5, 0.1, 0.01)] == [
        (15, 100_000),
        (8, 93_750),
        (2, 75_000),
        (2, 7_500),
    ]
    assert full.shortened(0.0).shown >= LEAST_STEPS * full.batch
    assert FullLength(3, 100, 64).shortened(0.1) == FullLength(3, 100, 64).shortened(1.0)
