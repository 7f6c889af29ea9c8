"""The grey range of a dataset of existing tars: one range for all splits, from the measurements in the indices."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from fourds_dist.data.decode.grey import Grey, GreyRange, joined
from fourds_dist.data.format.manifest import Manifest
from fourds_dist.data.pack.shard_labels import ShardLabels


def grey_note(labels: Iterable[ShardLabels]) -> dict[str, Any] | None:
    """Return the grey values of a split, for the manifest's notes; None: no image of more than 8 bits."""
    grey = joined(of_shard.grey for of_shard in labels)
    return None if grey is None else dataclasses.asdict(grey)


def with_grey_range(manifest: Manifest, existing: Manifest | None, given: GreyRange | None) -> Manifest:
    """Return the manifest with one grey range for all splits: the given range, or the range given earlier, or measured.

    Args:
        existing: the existing manifest. A dataset that fourds_dist packed keeps its range unless `given`.
        given: (black, white) given now.
    """
    if given is None and existing is not None and "packing" in existing.notes:
        return dataclasses.replace(manifest, grey_range=existing.grey_range)
    notes_of_splits = [how.get("grey") for how in manifest.notes["indexed"].values()]
    grey = joined(Grey(**note) for note in notes_of_splits if note)
    if given is None and existing is not None and existing.notes.get("grey range given"):
        given = existing.grey_range
    notes = {k: v for k, v in manifest.notes.items() if k not in ("grey", "grey range given")}
    notes |= {"grey": dataclasses.asdict(grey)} if grey else {}
    notes |= {"grey range given": True} if given else {}
    return dataclasses.replace(manifest, notes=notes, grey_range=given or (grey and grey.range))
