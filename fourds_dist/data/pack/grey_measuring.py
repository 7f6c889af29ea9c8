"""Measure the grey range of a dataset to be packed: every image of more than 8 bits is decoded once, others never."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fourds_dist.data.decode.grey import DEEP, Grey, joined, measured
from fourds_dist.data.files.progress import OnProgress
from fourds_dist.data.pack.entry import Entry, Spool
from fourds_dist.data.pack.plan import PackPlan

BAD_IMAGE_REMEDY = (
    "repair the image or, if the images are files, leave out such images by --decode --skip-bad"
)
_HEAD_BYTES = 64


def grey_of(plan: PackPlan, spool: Spool, num_threads: int, on_progress: OnProgress) -> Grey | None:
    """Return the grey values of all images of more than 8 bits, over all splits; None: there are no such images.

    Args:
        on_progress: called with ("measuring", images done, images in all).

    Raises:
        ValueError: an image cannot be read, or has values that are not finite; the message names the image.
    """
    entries = [entry for shard in plan.shards for entry in shard.entries if entry.extension in DEEP]

    def measure(entry: Entry) -> Grey | None:
        if entry.extension == "png" and _head(entry, spool)[24:25] != b"\x10":
            return None
        try:
            return measured(entry.read(spool))
        except ValueError as error:
            title = entry.place if isinstance(entry.place, Path) else entry.key
            raise ValueError(f"{title}: {error}; {BAD_IMAGE_REMEDY}") from None

    total: Grey | None = None
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for done, found in enumerate(pool.map(measure, entries), start=1):
                total = joined((total, found))
                on_progress("measuring", done, len(entries))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return total


def sources_of(entries: Sequence[Entry], root: str) -> list[str]:
    """Return the file of each entry's image, relative to `root`; "" for images that were not files."""
    return [
        ""
        if entry.file is None
        else os.fsencode(os.path.relpath(entry.file, root)).decode("utf-8", "backslashreplace")
        for entry in entries
    ]


def common_root(plan: PackPlan) -> str:
    """Return the deepest folder that holds all image files of the plan; "" if no image is a file."""
    files = (entry.file for shard in plan.shards for entry in shard.entries)
    folders = {file.parent for file in files if file is not None}
    return os.path.commonpath(folders) if folders else ""


def _head(entry: Entry, spool: Spool) -> bytes:
    if isinstance(entry.place, int):
        return spool.read(entry.place, min(_HEAD_BYTES, entry.size))
    with entry.place.open("rb") as file:
        return file.read(_HEAD_BYTES)
