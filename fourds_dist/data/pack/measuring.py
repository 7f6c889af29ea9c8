"""The grey range of what is about to be packed: all images of more than 8 bits are decoded once, others not at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fourds_dist.data.grey import DEEP, Grey, joined, measured
from fourds_dist.data.pack.plan import Entry, OnProgress, Plan, Spool

_HEAD_BYTES = 64


def grey_of(plan: Plan, spool: Spool, num_threads: int, on_progress: OnProgress) -> Grey | None:
    """What the images of more than 8 bits hold, over all splits; None where there is none.

    Args:
        on_progress: is told ("measuring", images, of how many).

    Raises:
        ValueError: naming an image that cannot be read, or that has values that are not finite.
    """
    entries = [entry for shard in plan.shards for entry in shard.entries if entry.extension in DEEP]

    def one(entry: Entry) -> Grey | None:
        if entry.extension == "png" and _head(entry, spool)[24:25] != b"\x10":
            return None
        try:
            return measured(entry.read(spool))
        except ValueError as error:
            named = entry.place if isinstance(entry.place, Path) else entry.key
            raise ValueError(
                f"{named}: {error}; mend it, or leave out all such images by --decode --skip-bad where they are files"
            ) from None

    total: Grey | None = None
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for done, found in enumerate(pool.map(one, entries), start=1):
                total = joined((total, found))
                on_progress("measuring", done, len(entries))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return total


def sources_of(entries: Sequence[Entry], root: str) -> list[str]:
    """Where each entry's image came from, relative to `root`; empty where it was no file."""
    return [
        os.fsencode(os.path.relpath(entry.place, root)).decode("utf-8", "backslashreplace")
        if isinstance(entry.place, Path)
        else ""
        for entry in entries
    ]


def common_root(plan: Plan) -> str:
    """The folder below which all files lie that are packed; empty where none is a file."""
    folders = {
        entry.place.parent
        for shard in plan.shards
        for entry in shard.entries
        if isinstance(entry.place, Path)
    }
    return os.path.commonpath(folders) if folders else ""


def _head(entry: Entry, spool: Spool) -> bytes:
    if isinstance(entry.place, int):
        return spool.read(entry.place, min(_HEAD_BYTES, entry.size))
    with entry.place.open("rb") as file:
        return file.read(_HEAD_BYTES)
