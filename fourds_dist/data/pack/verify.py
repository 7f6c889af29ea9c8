"""Reading a dataset over, all of it: does every shard still hold what manifest and index say?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fourds_dist.data.class_list import ClassList
from fourds_dist.data.grey import GreyRange
from fourds_dist.data.index import UNLABELLED, ShardIndex, packed_from
from fourds_dist.data.manifest import Manifest, Shard, index_url, read_manifest, shard_url
from fourds_dist.data.pack.foreign import Reading
from fourds_dist.data.pack.plan import OnProgress
from fourds_dist.storage import explained, locate

NOT_READABLE = "not a readable image"


def verify(
    url: str,
    *,
    decode: int | None = None,
    num_threads: int = 4,
    on_progress: OnProgress = lambda what, done, total: None,
) -> tuple[Manifest, list[str]]:
    """The manifest, and what is wrong, a line each: sizes, SHA-256 of the tars, the index against the tar, every
    image's checksum, the numbers of images of each class.

    Args:
        decode: also decode every image, of at most so many pixels; None: no image.

    Raises:
        ValueError: there is no manifest that can be read.
    """
    manifest = read_manifest(url)
    work = [(split, shard) for split, shards in manifest.splits.items() for shard in shards]
    counts = {split: np.zeros(len(manifest.classes) + 1, np.int64) for split in manifest.splits}
    problems: list[str] = []
    with ThreadPoolExecutor(num_threads) as pool:
        checked = pool.map(lambda job: _check(url, manifest, job[0], job[1], decode), work)
        for done, ((split, _), (found, labels)) in enumerate(zip(work, checked, strict=True), start=1):
            problems += found
            np.add.at(counts[split], labels, 1)  # -1 is the last
            on_progress("verifying", done, len(work))
    if not problems:
        problems += [
            f"{url}: the manifest counts other images of the classes of {split!r} than its shards hold"
            for split, count in counts.items()
            if tuple(count[:UNLABELLED].tolist()) != manifest.class_counts[split]
        ]
    return manifest, problems


def _check(
    url: str, manifest: Manifest, split: str, shard: Shard, decode: int | None
) -> tuple[list[str], np.ndarray]:
    """What is wrong with a shard, and the labels in it."""
    tar, where = shard_url(url, shard.name), index_url(url, shard.name)
    none = np.zeros(0, np.int32)
    try:
        index = ShardIndex.from_bytes(_bytes(where), where)
        found = _reading(manifest, split, shard).index(tar, _classes(manifest, split), [])
    except FileNotFoundError as error:
        return [f"{tar if tar.endswith(str(error.filename)) else where}: missing ({error})"], none
    except (ValueError, OSError) as error:
        return [str(error)], none
    problems = []
    if found.num_bytes != shard.num_bytes:
        problems.append(f"{tar}: {found.num_bytes} bytes, where the manifest says {shard.num_bytes}")
    elif shard.sha256 is not None and found.sha256 != shard.sha256:
        problems.append(f"{tar}: its SHA-256 is {found.sha256}, where the manifest says {shard.sha256}")
    if len(index) != shard.num_samples:
        problems.append(f"{where}: {len(index)} samples, where the manifest says {shard.num_samples}")
    if difference := _difference(index, found):
        problems.append(f"{where}: {difference}")
    elif decode:
        problems += _undecodable(tar, index, manifest.grey_range, decode)
    return problems, found.labels


def _undecodable(
    tar: str, index: ShardIndex, grey_range: GreyRange | None, most_pixels: int
) -> Iterator[str]:
    """Images that training could not decode, by their keys and the files that they were packed from."""
    from fourds_dist.data.decode import WHOLE_PX, decoded_whole  # here: it imports PyTorch

    fs, path = locate(tar)
    with explained(tar), fs.open(path, "rb") as file:
        for row in range(len(index)):
            file.seek(int(index.offsets[row]))
            data = file.read(int(index.sizes[row]))
            try:
                decoded_whole(data, WHOLE_PX, grey_range=grey_range, most_pixels=most_pixels)  # pyright: ignore[reportArgumentType]
            except ValueError as error:
                yield f"{tar}/{index.keys[row]}{packed_from(index, row)}: {NOT_READABLE}: {error}"


def _reading(manifest: Manifest, split: str, shard: Shard) -> Reading:
    """As the shard was indexed; ours hold a number in cls."""
    how = manifest.notes.get("indexed", {}).get(split, {})
    known = {field.name for field in dataclasses.fields(Reading)}
    reading = Reading(**{name: value for name, value in how.items() if name in known})
    return dataclasses.replace(reading, checksum=shard.sha256 is not None)


def _classes(manifest: Manifest, split: str) -> ClassList:
    """As the labels of its shards are to be read: those that fourds_dist packed hold positions."""
    is_foreign = split in manifest.notes.get("indexed", {})
    return ClassList(manifest.classes, by_position="packing" in manifest.notes and not is_foreign)


def _difference(index: ShardIndex, found: ShardIndex) -> str | None:
    if len(index) != len(found):
        return f"{len(index)} samples, but the tar has {len(found)}"
    for name in ("keys", "extensions", "offsets", "sizes", "labels", "checksums"):
        ours, theirs = getattr(index, name), getattr(found, name)
        if len(rows := np.flatnonzero(ours != theirs)):
            first = rows[0]
            example = f"first {index.keys[first]}: {ours[first]}, but {theirs[first]}"
            return f"{len(rows)} of its {name} differ from the tar's; {example}"
    if index.fields != found.fields or not np.array_equal(index.fields_offsets, found.fields_offsets):
        return "its fields are not the tar's"
    return None


def _bytes(where: str) -> bytes:
    fs, path = locate(where)
    with explained(where):
        return fs.cat_file(path)  # pyright: ignore[reportReturnType]
