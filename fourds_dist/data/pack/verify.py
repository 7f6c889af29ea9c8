"""Verify a dataset: read every shard whole, and compare the shard with manifest and index."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from fourds_dist.data.decode.pixels import FORMATS, is_deep
from fourds_dist.data.files.progress import OnProgress
from fourds_dist.data.format.class_list import ClassList
from fourds_dist.data.format.index import UNLABELLED, ShardIndex, packed_from
from fourds_dist.data.format.manifest import SCALING, Manifest, Shard, index_url, read_manifest, shard_url
from fourds_dist.data.pack.existing_tars import TarReadOptions
from fourds_dist.data.pack.shard_images import shard_images
from fourds_dist.io.storage import locate, translate_storage_errors

NOT_READABLE = "not a readable image"


def verify(
    url: str,
    *,
    decode: int | None = None,
    num_threads: int = 4,
    on_progress: OnProgress = lambda what, done, total: None,
) -> tuple[Manifest, list[str]]:
    """Return the manifest, and a list of problems, one line each.

    The checks are: size and SHA-256 of each tar, each index against its tar, the checksum of each image, the number of
    images of each class, and the size of images that were packed with --max-side.

    Args:
        decode: also decode every image, of at most this many pixels; None: do not decode.

    Raises:
        ValueError: there is no manifest, or it cannot be read.
    """
    manifest = read_manifest(url)
    work = [(split, shard) for split, shards in manifest.splits.items() for shard in shards]
    counts = {split: np.zeros(len(manifest.classes) + 1, np.int64) for split in manifest.splits}
    problems: list[str] = []
    with ThreadPoolExecutor(num_threads) as pool:
        checked = pool.map(lambda job: _check(url, manifest, job[0], job[1], decode), work)
        for done, ((split, _), (found, labels)) in enumerate(zip(work, checked, strict=True), start=1):
            problems += found
            np.add.at(counts[split], labels, 1)  # UNLABELLED, -1, counts in the last column
            on_progress("verifying", done, len(work))
    if not problems:
        problems += [
            f"{url}: the class counts of {split!r} in the manifest differ from the labels in its shards"
            for split, count in counts.items()
            if tuple(count[:UNLABELLED].tolist()) != manifest.class_counts[split]
        ]
    return manifest, problems


def _check(
    url: str, manifest: Manifest, split: str, shard: Shard, decode: int | None
) -> tuple[list[str], np.ndarray]:
    """Return the problems of a shard, and its labels."""
    tar, where = shard_url(url, shard.name), index_url(url, shard.name)
    no_labels = np.zeros(0, np.int32)
    try:
        index = ShardIndex.from_bytes(_bytes(where), where)
        found = _reading(manifest, split, shard).index(tar, _classes(manifest, split), [])
    except FileNotFoundError as error:
        return [f"{tar if tar.endswith(str(error.filename)) else where}: missing ({error})"], no_labels
    except (ValueError, OSError) as error:
        return [str(error)], no_labels
    problems = []
    if found.num_bytes != shard.num_bytes:
        problems.append(f"{tar}: the tar has {found.num_bytes} bytes, but {shard.num_bytes} in the manifest")
    elif shard.sha256 is not None and found.sha256 != shard.sha256:
        problems.append(f"{tar}: the tar's SHA-256 is {found.sha256}, but {shard.sha256} in the manifest")
    if len(index) != shard.num_samples:
        problems.append(
            f"{where}: the index has {len(index)} samples, but {shard.num_samples} in the manifest"
        )
    if difference := _difference(index, found):
        problems.append(f"{where}: {difference}")
    elif decode or manifest.max_side is not None:
        problems += _image_problems(tar, index, manifest, decode)
    return problems, found.labels


def _image_problems(tar: str, index: ShardIndex, manifest: Manifest, decode: int | None) -> Iterator[str]:
    """Yield the problems of a shard's images, each with its key and the file that it was packed from."""
    for row, data in shard_images(tar, index):
        title = f"{tar}/{index.keys[row]}{packed_from(index, row)}"
        if manifest.max_side is not None and (size := _larger(data, manifest.max_side)):
            yield f"{title}: {size} pixels, but {SCALING} to {manifest.max_side} is noted"
        if decode:
            from fourds_dist.data.decode.decode import WHOLE_PX, decoded_whole  # here: it imports PyTorch

            try:
                decoded_whole(data, WHOLE_PX, grey_range=manifest.grey_range, most_pixels=decode)
            except ValueError as error:
                yield f"{title}: {NOT_READABLE}: {error}"


def _larger(data: bytes, max_side: int) -> str | None:
    """Return the size of an image that exceeds `max_side`; those of more than 8 bits may."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except OSError:  # not an image at all, which --decode reports
        return None
    return f"{image.width} x {image.height}" if max(image.size) > max_side and not is_deep(image) else None


def _reading(manifest: Manifest, split: str, shard: Shard) -> TarReadOptions:
    """Read options with which the shard was indexed; packed shards have the default options."""
    how = manifest.notes.get("indexed", {}).get(split, {})
    known = {field.name for field in dataclasses.fields(TarReadOptions)}
    reading = TarReadOptions(**{name: value for name, value in how.items() if name in known})
    return dataclasses.replace(reading, checksum=shard.sha256 is not None)


def _classes(manifest: Manifest, split: str) -> ClassList:
    """Class list of a split's labels; the labels in packed shards are positions."""
    is_indexed = split in manifest.notes.get("indexed", {})
    return ClassList(manifest.classes, by_position="packing" in manifest.notes and not is_indexed)


def _difference(index: ShardIndex, found: ShardIndex) -> str | None:
    if len(index) != len(found):
        return f"the index has {len(index)} samples, but the tar has {len(found)}"
    for name in ("keys", "extensions", "offsets", "sizes", "labels", "checksums"):
        in_index, in_tar = getattr(index, name), getattr(found, name)
        if len(rows := np.flatnonzero(in_index != in_tar)):
            first = rows[0]
            example = f"first {index.keys[first]}: {in_index[first]} in the index, {in_tar[first]} in the tar"
            return f"{len(rows)} {name} in the index differ from the tar; {example}"
    if index.fields != found.fields or not np.array_equal(index.fields_offsets, found.fields_offsets):
        return "the fields in the index differ from the tar"
    return None


def _bytes(where: str) -> bytes:
    fs, path = locate(where)
    with translate_storage_errors(where):
        return fs.cat_file(path)  # pyright: ignore[reportReturnType]
