"""Rare garbage collections while training.

A collection holds Python's lock, so that threads which read and decode wait, and so does the thread that launches the
next step. With PyTorch loaded, one collection of all objects takes some tenths of a second.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

FACTOR = 100
"""How many times more objects than by default are made between two collections."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collect rarely, and only objects that are made from now on."""
    threshold, *others = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(FACTOR * threshold, *others)
    try:
        yield
    finally:
        gc.set_threshold(threshold, *others)
        gc.unfreeze()
