"""Whether a dataset folder can be packed into, asked before anything is read for it; nothing is written."""

from __future__ import annotations

from collections.abc import Sequence

from fourds_dist.data.manifest import MANIFEST, Manifest, read_manifest
from fourds_dist.data.pack.claim import PACKING, check_free
from fourds_dist.json_text import parsed_json
from fourds_dist.storage import check_writable, explained, locate, refuse_http


def check_destination(
    url: str, *, name: str, classes: Sequence[str] | None = None, overwrite: bool = False
) -> None:
    """Refuse a folder that packing would refuse in the end.

    A finished dataset of the same name may be the very one that would be packed, which only packing can tell; so its
    folder may also be one that cannot be written.

    Args:
        name: of the dataset to be packed.
        classes: of that dataset, where they are known.
        overwrite: another dataset is to be replaced.

    Raises:
        ValueError: another process packs there; a file; tars that are not ours; another dataset, without `overwrite`;
            a folder that cannot be written.
    """
    url = url.rstrip("/")
    refuse_http(url)
    check_free(url)
    with explained(url):
        held = held_dataset(url)
    if held is None or overwrite:
        check_writable(url)
    elif held.name != name or (classes is not None and held.classes != tuple(classes)):
        raise ValueError(holds_another(url, held))


def held_dataset(url: str) -> Manifest | None:
    """The finished dataset in a folder, if there is one.

    Raises:
        ValueError: the folder is a file, holds tars that are not ours to replace, or a manifest that cannot be read.
    """
    fs, folder = locate(url)
    fs.invalidate_cache()
    if not fs.exists(folder):
        return None
    if not fs.isdir(folder):
        raise ValueError(f"{url} is a file; give a folder to pack into")
    if fs.exists(f"{folder}/{MANIFEST}"):
        return read_manifest(url)
    left = {f"{folder}/{name}" for name in left_by_crash(url)}
    found = [str(name) for name in fs.ls(folder, detail=False)]
    if tars := [name for name in found if name.endswith(".tar") and name not in left]:
        raise ValueError(
            f"{url} holds {len(tars)} tars that were not packed by fourds_dist; choose another folder, or use them by "
            f"`python -m fourds_dist.pack index {url}`"
        )
    return None


def left_by_crash(url: str) -> list[str]:
    """Shards that a packing which was killed may have left in a folder."""
    fs, path = locate(f"{url}/{PACKING}")
    try:
        held = parsed_json(fs.cat_file(path))  # pyright: ignore[reportArgumentType]
        return [str(name) for name in held["shards"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):  # cut short itself, so nothing had been written yet
        return []


def holds_another(url: str, held: Manifest) -> str:
    """What is wrong with a folder of another dataset."""
    num_images = sum(held.num_samples(split) for split in held.splits)
    return f"{url} holds another dataset ({held.name}: {num_images} images); --overwrite replaces it"
