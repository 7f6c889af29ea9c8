"""Garbage collections are rare while training, and as before afterwards."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from fourds_dist.training.garbage import FACTOR, rare_collections


class Node:
    """An object that a cycle may keep alive."""


@pytest.fixture(autouse=True)
def nothing_frozen() -> Iterator[None]:
    """Objects are collected as in a process that has frozen none, as the process of the tests has."""
    had_frozen = gc.get_freeze_count() > 0
    gc.unfreeze()
    yield
    if had_frozen:
        gc.freeze()


def cycle() -> weakref.ref[Node]:
    node = Node()
    node.self = node  # pyright: ignore[reportAttributeAccessIssue]
    return weakref.ref(node)


def test_thresholds_and_objects_are_as_before_afterwards() -> None:
    before = gc.get_threshold()
    with rare_collections():
        assert gc.get_threshold() == (FACTOR * before[0], *before[1:])
        assert gc.get_freeze_count() > 0
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


@rare_collections()
def fail() -> None:
    raise KeyError


def test_an_error_restores_them_too() -> None:
    before = gc.get_threshold()
    with pytest.raises(KeyError):
        fail()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_cycles_of_the_time_within_are_collected() -> None:
    earlier = cycle()
    with rare_collections():
        assert earlier() is None
        inside = cycle()
        gc.collect()
        assert inside() is None


def test_what_the_process_has_frozen_itself_stays_frozen() -> None:
    gc.collect()
    kept = cycle()
    gc.freeze()
    with rare_collections(), rare_collections():
        earlier = cycle()
        gc.collect()
        assert earlier() is None
    gc.collect()
    assert kept() is not None
    gc.unfreeze()
    gc.collect()
    assert kept() is None


def test_one_within_another_releases_no_objects() -> None:
    with rare_collections():
        with rare_collections():
            assert gc.get_freeze_count() > 0
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0
