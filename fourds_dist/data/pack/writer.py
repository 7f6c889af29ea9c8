"""Write a domain as a dataset folder: shards and their indices first, the manifest last.

Each shard is written to a local temporary file, indexed, and then renamed or uploaded, so that no partial shard is
ever visible. During packing, packing.json lists the files that may exist. After a crash, the next run removes exactly
the files in this list.
"""

from __future__ import annotations

import contextlib
import errno
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.decode.grey import GreyRange
from fourds_dist.data.files.progress import OnProgress
from fourds_dist.data.format.index import ShardIndex
from fourds_dist.data.format.manifest import (
    MANIFEST,
    Manifest,
    Shard,
    format_manifest,
    index_url,
    parse_manifest,
    shard_url,
    write_manifest,
)
from fourds_dist.data.pack.destination import (
    check_destination,
    held_dataset,
    holds_another,
    left_by_crash,
)
from fourds_dist.data.pack.entry import Spool
from fourds_dist.data.pack.grey_measuring import common_root, grey_of, sources_of
from fourds_dist.data.pack.indexing import index_tar
from fourds_dist.data.pack.packing_lock import PACKING, PackingLock
from fourds_dist.data.pack.plan import PackPlan, PlannedShard, check_numbers, make_plan
from fourds_dist.io.storage import is_local, locate, put_file, translate_storage_errors, write_bytes

SHARD_BYTES = 128 << 20


def pack_domain(
    domain: Domain,
    url: str,
    *,
    shard_bytes: int = SHARD_BYTES,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 42,
    overwrite: bool = False,
    grey_range: GreyRange | None = None,
    num_threads: int = 2,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Manifest:
    """Write a domain to a dataset folder at a path or URL, and return its manifest.

    Equal input, seed and shard_bytes give equal bytes. A folder that already holds the same data is not changed.

    Args:
        shard_bytes: target size of a shard, in bytes.
        val_fraction, test_fraction: shares of the labelled images without a given split, class by class; unlabelled
            images go to training. In a domain without any label, shares of all images without a given split.
        seed: seed of these splits and of the order of samples in the shards.
        overwrite: replace a finished dataset.
        grey_range: (black, white) of images of more than 8 bits; None: measured over all such images (`grey`).
        num_threads: number of shards written at the same time, each to its own temporary file.
        on_progress: called with ("reading", images done, None), ("measuring", images done, images in all), and
            ("comparing" or "writing", shards done, shards in all).

    Raises:
        ValueError: the domain cannot be packed, the folder holds other data, there is no space, or the store denies
            access. The folder then holds either its earlier finished dataset, or no manifest and no file of this run.
    """
    url = url.rstrip("/")
    check_numbers(shard_bytes, val_fraction, test_fraction)
    # Refuses notes that are not JSON, and invalid class lists.
    format_manifest(Manifest(domain.name, domain.classes, {}, {}, domain.notes))
    with _write_errors(url):
        check_destination(url, name=domain.name, classes=domain.classes, overwrite=overwrite)
    with _write_errors(url), PackingLock(url) as claim, Spool() as spool:
        with translate_storage_errors(url):
            existing = held_dataset(url)
            if existing is None:
                _remove_shards(url, left_by_crash(url))
        with _write_errors(url):
            plan = make_plan(
                domain,
                spool,
                shard_bytes=shard_bytes,
                val_fraction=val_fraction,
                test_fraction=test_fraction,
                seed=seed,
                on_progress=on_progress,
            )
        with translate_storage_errors(url), _write_errors(url):
            is_same = existing is not None and _is_same(url, existing, plan, spool, on_progress)
        if existing is not None and not is_same and not overwrite:
            raise ValueError(holds_another(url, existing))
        packing = {"seed": seed, "shard_bytes": shard_bytes}
        if plan.num_drawn:
            packing |= {"val_fraction": val_fraction, "test_fraction": test_fraction}
        notes = {**domain.notes, "packing": packing}
        if plan.remarks:
            notes["remarks"] = [*domain.notes.get("remarks", ()), *plan.remarks]
        with _write_errors(url):
            grey = grey_of(plan, spool, num_threads, on_progress) if grey_range is None else None
        if grey is not None:
            grey_range, notes["grey"] = grey.range, asdict(grey)
        with translate_storage_errors(url), _write_errors(url):
            if existing is not None and is_same:
                _remove(url, [PACKING])
                if existing.grey_range == grey_range:
                    return existing
                # The shards are equal; only the grey range differs.
                existing = replace(existing, grey_range=grey_range, notes=notes)
                write_manifest(url, existing)
                on_progress("writing", 0, 0)
                return existing
            old = [shard.name for shards in existing.splits.values() for shard in shards] if existing else []
            names = [shard.name for shard in plan.shards]
            claim.list_shards(sorted({*old, *names}))
            try:
                _remove(url, [MANIFEST])
                _remove_shards(url, old)
                shards = _write_shards(url, plan, spool, num_threads, claim.checking(on_progress))
                claim.check()
            except BaseException:
                if not claim.is_ours():  # the files in the folder belong to another process
                    raise
                # packing.json lists files that cannot be removed now, for the next run.
                with contextlib.suppress(Exception):
                    _remove_shards(url, [*old, *names])
                    _remove(url, [PACKING])
                raise
            splits: dict[str, list[Shard]] = {}
            for planned, shard in zip(plan.shards, shards, strict=True):
                splits.setdefault(planned.split, []).append(shard)
            manifest = Manifest(
                plan.name,
                plan.classes,
                {k: tuple(v) for k, v in splits.items()},
                plan.class_counts,
                notes,
                grey_range,
            )
            manifest = parse_manifest(format_manifest(manifest), url)  # equal to a manifest that is read back
            write_manifest(url, manifest)
            _remove(url, [PACKING])
    return manifest


def _is_same(url: str, existing: Manifest, plan: PackPlan, spool: Spool, on_progress: OnProgress) -> bool:
    """Whether a finished dataset equals the planned one."""
    written = [
        (split, shard.name, shard.num_samples)
        for split, shards in existing.splits.items()
        for shard in shards
    ]
    planned = [(shard.split, shard.name, len(shard.entries)) for shard in plan.shards]
    if (existing.name, existing.classes, written) != (plan.name, plan.classes, planned):
        return False
    for done, shard in enumerate(plan.shards):
        on_progress("comparing", done, len(plan.shards))
        where = index_url(url, shard.name)
        fs, path = locate(where)
        try:
            index = ShardIndex.from_bytes(fs.cat_file(path), where)  # pyright: ignore[reportArgumentType]
        except (ValueError, FileNotFoundError):
            return False
        if not fs.exists(locate(shard_url(url, shard.name))[1]) or not _holds(index, shard):
            return False
        checksums = [zlib.crc32(entry.read(spool)) for entry in shard.entries]
        if not np.array_equal(index.checksums, np.array(checksums, np.uint32)):
            return False
    return True


def _holds(index: ShardIndex, shard: PlannedShard) -> bool:
    rows = zip(index.keys, index.extensions, index.labels, index.sizes, strict=True)
    return [(str(k), str(e), int(label), int(n)) for k, e, label, n in rows] == [
        (entry.key, entry.extension, entry.label, entry.size) for entry in shard.entries
    ]


def _write_shards(
    url: str, plan: PackPlan, spool: Spool, num_threads: int, on_progress: OnProgress
) -> list[Shard]:
    fs, folder = locate(url)
    local, root = is_local(fs), common_root(plan)
    with contextlib.ExitStack() as stack:
        # A rename works within one file system only, so local shards are written in the dataset folder.
        temporary = Path(folder) if local else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pool = stack.enter_context(ThreadPoolExecutor(num_threads))
        futures = [pool.submit(_write_shard, url, shard, spool, temporary, root) for shard in plan.shards]
        try:
            for done, future in enumerate(as_completed(futures)):
                future.result()
                on_progress("writing", done + 1, len(futures))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in futures]


def _write_shard(url: str, shard: PlannedShard, spool: Spool, folder: Path, root: str) -> Shard:
    from webdataset.writer import TarWriter  # here: it imports PyTorch

    partial = folder / f"{shard.name}.partial"
    try:
        # mtime is an int, since a float adds a PAX header to each member.
        with partial.open("wb") as file, TarWriter(file, mtime=0, encoder=False) as tar:
            for entry in shard.entries:
                image, label = entry.read(spool), str(entry.label).encode()
                tar.write({"__key__": entry.key, entry.extension: image, "cls": label})
        with partial.open("rb") as file:
            index = index_tar(file, shard_url(url, shard.name), measure=False)
        if any(sources := sources_of(shard.entries, root)):
            index = replace(index, sources=np.array(sources, dtype=np.str_))
        if not _holds(index, shard):
            raise OSError(
                f"{shard_url(url, shard.name)} differs from the data that was written; check the disk"
            )
        written = Shard(shard.name, len(index), index.num_bytes, index.sha256)
        put_file(shard_url(url, shard.name), partial)
        write_bytes(index_url(url, shard.name), index.to_bytes())
    finally:
        partial.unlink(missing_ok=True)
    return written


def _remove_shards(url: str, names: list[str]) -> None:
    for name in names:
        _remove(url, [name, f"{name}.index", f"{name}.partial", f"{name}.index.partial"])


def _remove(url: str, names: list[str]) -> None:
    for name in names:
        fs, path = locate(f"{url}/{name}")
        with contextlib.suppress(FileNotFoundError):
            fs.rm_file(path)
    fs, _ = locate(url)
    fs.invalidate_cache()


@contextlib.contextmanager
def _write_errors(url: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:  # object stores: no such bucket
        raise ValueError(f"{url} cannot be written: {error}; create the bucket or folder first") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ValueError(
                f"no space left while packing {url} ({error.strerror}); the shards written so far are removed. Packing "
                f"needs the size of all images there, and the same size in {tempfile.gettempdir()} (TMPDIR) unless the "
                "images are files"
            ) from None
        if error.errno in (errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise ValueError(
                f"{url} cannot be written: {error}; check the path and its permissions"
            ) from None
        raise
