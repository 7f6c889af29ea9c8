"""The grey range of a data set of foreign tars: one for all splits, by what their indices measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from fourds_dist.data.grey import Grey, GreyRange, joined
from fourds_dist.data.manifest import Manifest
from fourds_dist.data.pack.shard_labels import ShardLabels


def grey_note(labels: Iterable[ShardLabels]) -> dict[str, Any] | None:
    """What the images of a split hold, for the manifest's notes; None: no image of more than 8 bits."""
    grey = joined(one.grey for one in labels)
    return None if grey is None else dataclasses.asdict(grey)


def with_grey_range(manifest: Manifest, held: Manifest | None, given: GreyRange | None) -> Manifest:
    """The manifest with the range of all splits together: given now or earlier, else measured.

    Args:
        held: the manifest that was there. A data set that fourds_dist packed keeps its range.
    """
    if given is None and held is not None and "packing" in held.notes:
        return dataclasses.replace(manifest, grey_range=held.grey_range)
    told = [how.get("grey") for how in manifest.notes["indexed"].values()]
    grey = joined(Grey(**one) for one in told if one)
    if given is None and held is not None and held.notes.get("grey range given"):
        given = held.grey_range
    notes = {k: v for k, v in manifest.notes.items() if k not in ("grey", "grey range given")}
    notes |= {"grey": dataclasses.asdict(grey)} if grey else {}
    notes |= {"grey range given": True} if given else {}
    return dataclasses.replace(manifest, notes=notes, grey_range=given or (grey and grey.range))
