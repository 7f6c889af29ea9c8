"""Broken samples that a stream leaves out, up to a budget."""

from __future__ import annotations

import logging
import math
import shlex
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import numpy as np

from fourds_dist.data.format.index import packed_from
from fourds_dist.data.io.range_reader import DataError
from fourds_dist.data.stream.split import Split, load_index

log = logging.getLogger(__name__)


class Quarantine:
    """Broken samples that were left out, with the cause of each, up to a budget.

    Args:
        split_url, split_name: the split, for messages.
        budget: number of distinct samples that may be left out.
        packed_from: sample key -> text that names the file that the image was packed from.
    """

    def __init__(
        self, split_url: str, split_name: str, budget: int, packed_from: Callable[[str], str] = lambda key: ""
    ) -> None:
        self._url, self._where = split_url, f"{split_url} ({split_name})"
        self._packed_from = packed_from
        self._budget = budget
        self._lock = threading.Lock()
        self.causes: dict[str, str] = {}

    @classmethod
    def of(cls, split: Split, max_bad_fraction: float, world_size: int = 1) -> Quarantine:
        """Return the quarantine of a split, with a budget of max_bad_fraction of its samples, rounded up.

        Args:
            world_size: number of ranks that share the budget, in evaluation, where each rank reads its own samples. In
                training every rank reads all samples in the course of the epochs, and the budget is not shared.
        """
        budget = math.ceil(max_bad_fraction * split.num_positions / world_size)
        return cls(split.url, split.name, budget, partial(packed_from_of, split))

    def __len__(self) -> int:
        return len(self.causes)

    def __contains__(self, key: str) -> bool:
        return key in self.causes

    def add(self, key: str, cause: str) -> None:
        """Add a broken sample.

        Raises:
            DataError: the budget is exceeded.
        """
        with self._lock:
            if key in self.causes:
                return
            self.causes[key] = cause
            log.warning("left out %s: %s", key, cause)
            if len(self.causes) <= self._budget:
                return
        raise self.error()

    def error(self, what: str = "") -> DataError:
        """Return the error that ends the run; its message lists the samples left out so far.

        Args:
            what: why the run ends, if the budget is not the reason.
        """
        with self._lock:
            first, num_broken = list(self.causes.items())[:10], len(self.causes)
        listed = "\n".join(f"  {k}{self._packed_from(k)}: {c}" for k, c in first)
        return DataError(
            f"{self._where}: {what and what + '; '}this worker read {num_broken} broken samples; its budget is "
            f"{self._budget} (data.max_bad_fraction):\n{listed}\n"
            f"list all with `python -m fourds_dist.pack verify {shlex.quote(self._url)} --decode`; repair them, or "
            "leave them out by packing again with --decode --skip-bad (`pack index` takes both options, too), or raise "
            "the budget"
        )


def packed_from_of(split: Split, key: str) -> str:
    """Name the file that a sample's image was packed from, for messages; read the name from the index of the shard."""
    for number, shard in enumerate(split.shards):
        if not key.startswith(f"{shard.name}/"):
            continue
        with suppress(ValueError, OSError, DataError):
            index = load_index(split, number)
            rows = np.flatnonzero(index.keys == key[len(shard.name) + 1 :])
            return packed_from(index, int(rows[0])) if len(rows) else ""
    return ""
