"""A dataset folder packed again: the same images, labels and splits in other shards."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from fourds_dist.cli.pack import main
from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.example import Example
from fourds_dist.data.format.index import ShardIndex
from fourds_dist.data.format.manifest import read_manifest
from fourds_dist.data.pack.reshard import packed_domain
from fourds_dist.data.pack.writer import pack_domain
from tests.data.pack.test_scaling import encoded, picture


def packed(folder: Path) -> str:
    """Eight images of two classes, two unlabelled ones, in three splits."""
    splits = ("train", "train", "val", "test")
    labels = [None if n in (4, 5) else "ab"[n % 2] for n in range(10)]
    examples = [
        Example(f"n{n}", encoded(picture(50 + n, 30), "PNG"), "png", label, splits[n % 4])
        for n, label in enumerate(labels)
    ]
    url = str(folder / "first")
    pack_domain(Domain("first", ("a", "b"), lambda: examples, {"origin": "drawn"}), url, shard_bytes=4000)
    return url


def rows(url: str) -> dict[str, tuple[bytes, str | None, str | None]]:
    return {example.key: (example.read(), example.label, example.split) for example in packed_domain(url)[0]}


def test_images_labels_and_splits_stay(tmp_path: Path) -> None:
    url, again = packed(tmp_path), str(tmp_path / "again")
    assert len(read_manifest(url).splits["train"]) > 1
    assert main(["reshard", url, again, "--shard-mb", "10"]) == 0
    assert rows(again) == rows(url)
    manifest = read_manifest(again)
    assert {split: len(shards) for split, shards in manifest.splits.items()} == {
        "train": 1,
        "val": 1,
        "test": 1,
    }
    assert manifest.notes["origin"] == "drawn"
    assert manifest.notes["resharded from"].startswith("first ")
    assert manifest.class_counts == read_manifest(url).class_counts


def test_smaller_images_into_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = packed(tmp_path)
    assert main(["reshard", url, "memory://smaller", "--max-side", "55", "--name", "smaller"]) == 0
    assert "4 images scaled to at most 55 px, 6 smaller ones copied" in capsys.readouterr().out
    assert read_manifest("memory://smaller").name == "smaller"
    largest = max(Image.open(io.BytesIO(data)).size[0] for data, _, _ in rows("memory://smaller").values())
    assert largest == 55
    assert main(["verify", "memory://smaller", "--decode"]) == 0


def test_damage_and_a_destination_that_is_the_source_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = packed(tmp_path)
    assert main(["reshard", url, url]) == 1
    assert "cannot be replaced by itself" in capsys.readouterr().err
    assert main(["reshard", url, str(tmp_path / "x"), "--quality", "80"]) == 1
    assert "give --max-side too" in capsys.readouterr().err
    shard = Path(url) / "train-00000.tar"
    begin = int(ShardIndex.from_bytes(Path(f"{shard}.index").read_bytes(), "").offsets[0])
    data = bytearray(shard.read_bytes())
    data[begin + 40] ^= 255
    shard.write_bytes(data)
    assert main(["reshard", url, str(tmp_path / "y")]) == 1
    assert "differs from its checksum" in capsys.readouterr().err
    assert not (tmp_path / "y" / "manifest.json").exists()
