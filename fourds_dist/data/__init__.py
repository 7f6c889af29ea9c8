"""Data: from WebDataset shards to batches of pixels, independent of the number of workers.

    format/manifest            classes, splits and shards of a dataset folder
    format/index               byte range of each sample in its shard
    seeds                      random generators of every purpose and step
    stream/split               one split of a domain, and which of its labels are used
    stream/labelled_batches    a separate order of labelled images, for a minimum share of them in every batch
    stream/order               the order of samples: a pure function of (data, global batch, seed, epoch), read ahead
    io/range_reader            ranged reads with retries; io/disk_cache caches them on a node's disk
    io/object_store            reads of S3 without Python's lock, with the settings of s3fs (io/s3_settings)
    stream/samples             encoded samples by position, with checksums
    stream/quarantine          broken samples are left out up to a budget
    decode/pixels              8-bit RGB of any image file; the model card contains this code
    decode/grey                the grey range of a data set, for images of more than 8 bits
    decode/crop_box            the box of each crop
    decode/decode              crops of the training size; stream/preprocessing describes them in weights files
    decode/decoded_cache       decoded images of small data sets, cached in memory for the next epoch
    decode/decoded_disk_cache  decoded images of any data set, cached on each node's disk
    decode/gpu                 decoding on the GPU that trains
    stream/decoder             crops of samples, from these caches or decoded
    stream/batches             threads decode samples into batches
    augment/                   further augmentation: drawn with the batch, applied on its device before the step
    stream/stream              combines these modules for training: `TrainStream`
    stream/evaluation          combines them for evaluation: `evaluation_batches`
    pack/                      writes dataset folders
    datasets/, files/          sources of images; image files on disk

Four types: positions in a split (order), a block of encoded samples (samples), the plan of a batch (batches), `Batch`.
The step number alone is the position in the data: a stream yields batches from a given step on.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fourds_dist.data.io.range_reader import DataError
    from fourds_dist.data.stream.batch import Batch
    from fourds_dist.data.stream.evaluation import evaluation_batches
    from fourds_dist.data.stream.split import Split, StreamConfig, check_same_classes, open_split
    from fourds_dist.data.stream.stream import DataConfig, TrainStream

__all__ = [
    "Batch",
    "DataConfig",
    "DataError",
    "Split",
    "StreamConfig",
    "TrainStream",
    "check_same_classes",
    "evaluation_batches",
    "open_split",
]

_MODULES = {
    "stream.batch": ("Batch",),
    "io.range_reader": ("DataError",),
    "stream.split": ("Split", "StreamConfig", "check_same_classes", "open_split"),
    "stream.evaluation": ("evaluation_batches",),
    "stream.stream": ("DataConfig", "TrainStream"),
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: packing needs neither these names nor PyTorch."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
