"""`verify` finds every change of a dataset."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fourds_dist.cli.pack import main
from fourds_dist.data import DataConfig, DataError, StreamConfig, evaluation_batches, open_split
from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.example import Example
from fourds_dist.data.format.index import ShardIndex
from fourds_dist.data.format.manifest import MANIFEST, Manifest, read_manifest, write_manifest
from fourds_dist.data.pack.verify import verify
from fourds_dist.data.pack.writer import pack_domain
from tests.data.deep_images import encoded


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    def produce():
        for n in range(12):
            yield Example(f"k{n:02}", bytes([n]) * 600, "jpg", "ab"[n % 2], "train")

    pack_domain(Domain("d", ("a", "b"), produce), str(tmp_path), shard_bytes=20_000)
    return tmp_path


def edit_index(folder: Path, **change: Callable[[ShardIndex], np.ndarray]) -> None:
    path = folder / "train-00000.tar.index"
    index = ShardIndex.from_bytes(path.read_bytes(), "i")
    path.write_bytes(
        dataclasses.replace(index, **{name: made(index) for name, made in change.items()}).to_bytes()
    )


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def edit_manifest(folder: Path, change: Callable[[Manifest], Manifest]) -> None:
    write_manifest(str(folder), change(read_manifest(str(folder))))


def first_image(folder: Path) -> int:
    return int(ShardIndex.from_bytes((folder / "train-00000.tar.index").read_bytes(), "i").offsets[0])


def test_nothing_wrong(packed: Path) -> None:
    told = []
    manifest, problems = verify(str(packed), on_progress=lambda *progress: told.append(progress))
    assert problems == []
    assert manifest == read_manifest(str(packed))
    assert told[-1] == ("verifying", len(manifest.splits["train"]), len(manifest.splits["train"]))


HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "an image": (lambda d: flip(d / "train-00000.tar", first_image(d)), "checksums in the index differ from the tar"),
    "padding": (lambda d: flip(d / "train-00000.tar", first_image(d) + 601), "the tar's SHA-256 is"),
    "a header": (lambda d: flip(d / "train-00000.tar", first_image(d) - 512), "the header cannot be read"),
    "a cut": (lambda d: os.truncate(d / "train-00000.tar", 4000), "ends at byte"),
    "a lost tar": (lambda d: (d / "train-00000.tar").unlink(), "train-00000.tar: missing"),
    "a lost index": (lambda d: (d / "train-00000.tar.index").unlink(), "train-00000.tar.index: missing"),
    "a harmed index": (lambda d: flip(d / "train-00000.tar.index", 700), "train-00000.tar.index"),
    "labels": (lambda d: edit_index(d, labels=lambda i: i.labels[::-1].copy() * 0), "labels in the index differ"),
    "offsets": (lambda d: edit_index(d, offsets=lambda i: i.offsets - 1), "offsets in the index differ"),
    "keys": (lambda d: edit_index(d, keys=lambda i: i.keys[::-1].copy()), "keys in the index differ"),
    "fields": (lambda d: edit_index(d, fields_offsets=lambda i: i.fields_offsets + 1), "fields in the index differ"),
    "counts": (
        lambda d: edit_manifest(d, lambda m: dataclasses.replace(m, class_counts={"train": (5, 7)})),
        "class counts of 'train' in the manifest differ",
    ),
    "tars exchanged": (
        lambda d: (d / "train-00000.tar").write_bytes((d / "train-00001.tar").read_bytes()),
        "train-00000.tar",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HARM)
def test_damage_is_reported(packed: Path, name: str) -> None:
    harm, message = HARM[name]
    harm(packed)
    _, problems = verify(str(packed))
    assert any(message in problem for problem in problems), problems
    assert all(str(packed) in problem for problem in problems)


def test_without_a_manifest(packed: Path) -> None:
    content = json.loads((packed / MANIFEST).read_text())
    (packed / MANIFEST).write_text(json.dumps(content)[:-5])
    with pytest.raises(ValueError, match="truncated"):
        verify(str(packed))


@pytest.fixture(scope="module")
def damaged(tmp_path_factory) -> Path:
    """Images of which four of forty cannot be decoded, though headers and lengths are whole, packed as `set`."""
    root = tmp_path_factory.mktemp("damaged")
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 60), np.uint8)
    for number, pixels in enumerate(noise):
        path = root / "my scans" / ("cat", "dog")[number % 2] / f"Teil {number}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = encoded(Image.fromarray(pixels), "TIFF", compression="tiff_lzw")
        path.write_bytes(data[:900] + bytes(900) + data[1800:] if number % 10 == 0 else data)
    assert main(["folder", str(root / "my scans"), str(root / "my set")]) == 0
    return root


def test_images_that_cannot_be_decoded_are_all_found_by_their_files(damaged: Path, capsys) -> None:
    url = str(damaged / "my set")
    assert main(["verify", url]) == 0
    assert main(["verify", url, "--decode"]) == 1
    told = capsys.readouterr().err
    for number in range(0, 40, 10):
        assert f"(packed from cat/Teil {number}.tif): not a readable image: " in told
    assert told.count("error: ") == 4
    assert "pack or index again with --decode --skip-bad" in told


def test_training_names_the_files_and_a_remedy_that_works(damaged: Path, tmp_path: Path, capsys) -> None:
    def read(url: str) -> int:
        splits = [open_split(StreamConfig(url=url), name) for name in ("train", "val", "test")]
        config = DataConfig(resize_px=32, crop_px=32, max_bad_fraction=0)
        how = {"batch_size_per_rank": 8, "rank": 0, "world_size": 1}
        return sum(len(batch) for split in splits for batch in evaluation_batches(split, config, **how))

    with pytest.raises(DataError) as raised:
        read(str(damaged / "my set"))
    text = str(raised.value)
    assert "(packed from cat/Teil " in text
    command = re.search(r"list all with `python -m fourds_dist.pack (verify .* --decode)`", text)
    assert command is not None
    assert main(shlex.split(command[1])) == 1
    assert "leave them out by packing again with --decode --skip-bad" in text
    assert main(["folder", str(damaged / "my scans"), str(tmp_path), "--decode", "--skip-bad"]) == 0
    assert "left out: 4 images unreadable" in capsys.readouterr().out
    assert read(str(tmp_path)) == 36


def test_existing_tars_can_skip_them(damaged: Path, tmp_path: Path, capsys) -> None:
    url = str(damaged / "my set")
    assert main(["index", url, "--to", str(tmp_path / "plain")]) == 0
    assert main(["index", url, "--to", str(tmp_path / "strict"), "--decode"]) == 1
    told = capsys.readouterr().err
    assert re.search(
        r"sample 'cat-Teil-\d+' has an image that cannot be read: .*; repair the image, or leave out such samples",
        told,
    )
    assert main(["index", url, "--to", str(tmp_path / "whole"), "--decode", "--skip-bad"]) == 0
    assert re.search(r"left out: 4 x unreadable image; first: .*cat-Teil-", capsys.readouterr().err)
    for name, status in {"plain": 1, "whole": 0}.items():
        assert main(["verify", str(tmp_path / name), "--decode"]) == status


def test_larger_images_by_option(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    for number in range(10):
        path = tmp_path / "maps" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("1", (9460, 10) if number else (9460, 9460)).save(path)
    folder, url = str(tmp_path / "maps"), str(tmp_path / "set")
    assert main(["folder", folder, url]) == 1
    assert "raise --max-megapixels here and data.max_megapixels in runs" in capsys.readouterr().err
    assert main(["folder", folder, url, "--max-megapixels", "90"]) == 0
    assert main(["verify", url, "--decode"]) == 1
    assert "--max-megapixels of pack, evaluate and predict" in capsys.readouterr().err
    assert main(["verify", url, "--decode", "--max-megapixels", "90"]) == 0
