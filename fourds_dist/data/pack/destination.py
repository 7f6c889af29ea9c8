"""Check whether a dataset can be packed into a folder, before any image is read and without writing."""

from __future__ import annotations

from collections.abc import Sequence

from fourds_dist.data.format.manifest import MANIFEST, Manifest, read_manifest
from fourds_dist.data.pack.packing_lock import PACKING, check_unlocked
from fourds_dist.io.json_text import parse_json
from fourds_dist.io.storage import check_writable, locate, refuse_http, translate_storage_errors


def check_destination(
    url: str, *, name: str, classes: Sequence[str] | None = None, overwrite: bool = False
) -> None:
    """Refuse a folder into which packing would fail.

    A finished dataset of the same name and classes passes, also in a read-only folder: only packing can compare its
    images with the new ones, and equal datasets are not written again.

    Args:
        name: name of the dataset to be packed.
        classes: classes of that dataset; None: not known yet.
        overwrite: replace another dataset.

    Raises:
        ValueError: another process packs into the folder; the URL is a file; the folder holds tars that fourds_dist
            did not pack, or another dataset without `overwrite`; the folder cannot be written.
    """
    url = url.rstrip("/")
    refuse_http(url)
    check_unlocked(url)
    with translate_storage_errors(url):
        existing = held_dataset(url)
    if existing is None or overwrite:
        check_writable(url)
    elif existing.name != name or (classes is not None and existing.classes != tuple(classes)):
        raise ValueError(holds_another(url, existing))


def held_dataset(url: str) -> Manifest | None:
    """Return the manifest of the finished dataset in a folder; None: there is none.

    Raises:
        ValueError: the URL is a file, or the folder holds tars that fourds_dist did not pack, or a manifest that
            cannot be read.
    """
    fs, folder = locate(url)
    fs.invalidate_cache()
    if not fs.exists(folder):
        return None
    if not fs.isdir(folder):
        raise ValueError(f"{url} is a file; give a folder to pack into")
    if fs.exists(f"{folder}/{MANIFEST}"):
        return read_manifest(url)
    leftover = {f"{folder}/{name}" for name in left_by_crash(url)}
    found = [str(name) for name in fs.ls(folder, detail=False)]
    if tars := [name for name in found if name.endswith(".tar") and name not in leftover]:
        raise ValueError(
            f"{url} holds {len(tars)} tars that were not packed by fourds_dist; choose another folder, or use the tars "
            f"as they are: `python -m fourds_dist.pack index {url}`"
        )
    return None


def left_by_crash(url: str) -> list[str]:
    """Return the names of shards that a killed packing process may have left in a folder (from packing.json)."""
    fs, path = locate(f"{url}/{PACKING}")
    try:
        content = parse_json(fs.cat_file(path))  # pyright: ignore[reportArgumentType]
        return [str(name) for name in content["shards"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):  # packing.json is truncated, so no shard was written yet
        return []


def holds_another(url: str, existing: Manifest) -> str:
    """Error message for a folder that holds another dataset."""
    num_images = sum(existing.num_samples(split) for split in existing.splits)
    return f"{url} holds another dataset ({existing.name}: {num_images} images); --overwrite replaces it"
