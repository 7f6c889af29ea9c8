"""Writing a domain as a dataset folder: shards and their indices first, the manifest last.

Shards are written to a local temporary file each, indexed from there, and then renamed or uploaded, so that none is
seen half written. While it goes on, packing.json lists the files that may be there; it is how a later run knows what
a crash has left, and the only thing that lets it remove anything.
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

from fourds_dist.data.grey import GreyRange
from fourds_dist.data.index import ShardIndex, index_tar
from fourds_dist.data.manifest import (
    MANIFEST,
    Manifest,
    Shard,
    format_manifest,
    index_url,
    parse_manifest,
    shard_url,
    write_manifest,
)
from fourds_dist.data.pack.claim import PACKING, Claim
from fourds_dist.data.pack.destination import (
    check_destination,
    held_dataset,
    holds_another,
    left_by_crash,
)
from fourds_dist.data.pack.measuring import common_root, grey_of, sources_of
from fourds_dist.data.pack.plan import OnProgress, Plan, PlannedShard, Spool, check_numbers, make_plan
from fourds_dist.data.sources.domain import Domain
from fourds_dist.storage import explained, is_local, locate, put_file, write_bytes

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
    """Write a domain to a dataset folder at a path or URL, and give its manifest.

    Equal input, seed and shard_bytes give equal bytes. A folder that already holds the very same data is left as it is.

    Args:
        shard_bytes: size of a shard to aim at.
        val_fraction, test_fraction: of the labelled images whose split the domain leaves open, class by class;
            unlabelled ones go to training.
        seed: decides those splits, and the order of samples in the shards.
        overwrite: replace a finished dataset.
        grey_range: (black, white) of images of more than 8 bits; None: measured over all of them (`grey`).
        num_threads: shards that are written at a time, each with a temporary file of its own.
        on_progress: is told ("reading", images, None), ("measuring", images, of how many), ("comparing" or "writing",
            shards, of how many).

    Raises:
        ValueError: a domain that cannot be packed; a folder that holds other data; no space; a store that refuses. The
            folder then holds no manifest and nothing of this run, or still the finished dataset it held before.
    """
    url = url.rstrip("/")
    check_numbers(shard_bytes, val_fraction, test_fraction)
    # Notes that are not JSON and class lists that cannot be are refused here too.
    format_manifest(Manifest(domain.name, domain.classes, {}, {}, domain.notes))
    with _write_errors(url):
        check_destination(url, name=domain.name, classes=domain.classes, overwrite=overwrite)
    with _write_errors(url), Claim(url) as claim, Spool() as spool:
        with explained(url):
            held = held_dataset(url)
            if held is None:
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
        with explained(url), _write_errors(url):
            is_same = held is not None and _is_same(url, held, plan, spool, on_progress)
        if held is not None and not is_same and not overwrite:
            raise ValueError(holds_another(url, held))
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
        with explained(url), _write_errors(url):
            if held is not None and is_same:
                _remove(url, [PACKING])
                if held.grey_range == grey_range:
                    return held
                held = replace(
                    held, grey_range=grey_range, notes=notes
                )  # the same shards, to be read otherwise
                write_manifest(url, held)
                on_progress("writing", 0, 0)
                return held
            old = [shard.name for shards in held.splits.values() for shard in shards] if held else []
            names = [shard.name for shard in plan.shards]
            claim.list_shards(sorted({*old, *names}))
            try:
                _remove(url, [MANIFEST])
                _remove_shards(url, old)
                shards = _write_shards(url, plan, spool, num_threads, claim.checking(on_progress))
                claim.check()
            except BaseException:
                if not claim.is_ours():  # what is there now is another's
                    raise
                with contextlib.suppress(
                    Exception
                ):  # what cannot be removed now, packing.json lists for the next run
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
            manifest = parse_manifest(format_manifest(manifest), url)  # as everybody will read it
            write_manifest(url, manifest)
            _remove(url, [PACKING])
    return manifest


def _is_same(url: str, held: Manifest, plan: Plan, spool: Spool, on_progress: OnProgress) -> bool:
    """Whether a finished dataset holds just what would be written."""
    there = [
        (split, shard.name, shard.num_samples) for split, shards in held.splits.items() for shard in shards
    ]
    planned = [(shard.split, shard.name, len(shard.entries)) for shard in plan.shards]
    if (held.name, held.classes, there) != (plan.name, plan.classes, planned):
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
    url: str, plan: Plan, spool: Spool, num_threads: int, on_progress: OnProgress
) -> list[Shard]:
    fs, folder = locate(url)
    local, root = is_local(fs), common_root(plan)
    with contextlib.ExitStack() as stack:
        # Renaming works within a file system alone, so local shards begin their life in their own folder.
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
    from webdataset.writer import TarWriter  # here, since it imports PyTorch

    partial = folder / f"{shard.name}.partial"
    try:
        # An int for mtime: a float would take a PAX header for each member.
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
                f"{shard_url(url, shard.name)} does not read back as it was written; check the disk"
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
        raise ValueError(f"{url} cannot be written: {error}; make that first") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ValueError(
                f"no space left while packing {url} ({error.strerror}); what was written is removed. Needed are the "
                f"size of the images there, and as much again in {tempfile.gettempdir()} (TMPDIR) unless the images "
                "are files already"
            ) from None
        if error.errno in (errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise ValueError(
                f"{url} cannot be written: {error}; check the address and its permissions"
            ) from None
        raise
