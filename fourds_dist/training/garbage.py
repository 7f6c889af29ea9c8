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
    """Collect rarely, and only objects that are made from now on.

    In a process that has frozen objects itself, these stay frozen, and no others are frozen: Python can release only
    all of them.
    """
    threshold, *others = gc.get_threshold()
    has_frozen = gc.get_freeze_count() > 0
    gc.collect()
    if not has_frozen:
        gc.freeze()
    gc.set_threshold(FACTOR * threshold, *others)
    try:
        yield
    finally:
        gc.set_threshold(threshold, *others)
        if not has_frozen:
            gc.unfreeze()
