"""Data: WebDataset shards in, batches of pixels out; the same batches at any number of workers.

    manifest   what a dataset folder holds: classes, splits, shards
    index      where each sample lies in its shard
    split      one split of a domain; which labels are told
    parts      labelled images in an order of their own, where every batch is to hold its share of them
    order      which sample comes when: a pure function of (data, global batch, seed, epoch)
    fetch      ranged reads that outlast faults; `cache` keeps them on a node's disk
    samples    encoded samples by position, checked; broken ones are left out up to a budget
    lanes      a rank's lanes of the order, read ahead
    pixels     what the values of an image file mean: 8-bit RGB of any file; the model card carries this code
    grey       the grey range of a data set, for images of more than 8 bits
    decode     crops of the training size; `preprocessing` says how, in files of weights
    kept       decoded images of small data sets, for the next epoch
    batches    threads decode drawn samples into batches
    stream     all of it put together: `TrainStream` and `evaluation_batches`
    pack       writes what the others read; `sources` are where images come from

The place in the data is the number of the step and nothing else: a stream is asked for batches from a step on.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fourds_dist.data.batch import Batch
    from fourds_dist.data.fetch import DataError
    from fourds_dist.data.split import Split, StreamConfig, check_same_classes, open_split
    from fourds_dist.data.stream import LoaderConfig, TrainStream, evaluation_batches

__all__ = [
    "Batch",
    "DataError",
    "LoaderConfig",
    "Split",
    "StreamConfig",
    "TrainStream",
    "check_same_classes",
    "evaluation_batches",
    "open_split",
]

_HOMES = {
    "batch": ("Batch",),
    "fetch": ("DataError",),
    "split": ("Split", "StreamConfig", "check_same_classes", "open_split"),
    "stream": ("LoaderConfig", "TrainStream", "evaluation_batches"),
}


def __getattr__(name: str) -> Any:
    """Names are imported when they are asked for: packing needs none of them, nor PyTorch."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
