"""Photographs of the benchmarks: their statistics, and the folders and shards that hold them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from fourds_dist.benchmark import photos
from fourds_dist.data import StreamConfig, open_split
from fourds_dist.data.pack.verify import verify


def test_photographs_are_like_photographs_and_no_two_alike(folder):
    files = [path.read_bytes() for path in (folder / "folder").glob("*/*.jpg")]
    assert len(set(files)) == 24
    assert 35_000 < np.mean([len(file) for file in files]) < 90_000
    assert {Image.open(io.BytesIO(file)).size for file in files} == {(500, 375)}
    assert list(photos.photos(2)) == list(photos.photos(2))


def test_photographs_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    sizes = [len(file) for file in photos.photos(6)]
    assert 35_000 < np.mean(sizes) < 90_000


def test_another_seed_or_quality_gives_other_images() -> None:
    (first,), (other_seed,), (smaller,) = (
        photos.photos(1),
        photos.photos(1, seed=1),
        photos.photos(1, quality=50),
    )
    assert first != other_seed
    assert len(smaller) < len(first) / 2
    assert photos.photos_by_all_cores(1) == [first]


def test_a_folder_per_class(tmp_path: Path) -> None:
    photos.write_folder(tmp_path, [b"%d" % n for n in range(12)])
    files = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.glob("*/*")}
    assert len(files) == 12
    assert files["00/000010.jpg"] == b"10"
    assert files["01/000011.jpg"] == b"11"


def test_shards_are_even_and_hold_each_image_once(tmp_path: Path) -> None:
    images = [b"image %d" % n for n in range(11)]
    paths = photos.write_shards(tmp_path / "new", images, 3)
    assert [path.name for path in paths] == [f"train-{n:05}.tar" for n in range(3)]
    found, sizes = {}, []
    for path in paths:
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # pyright: ignore
        found |= members
        sizes.append(len(members) // 2)
    assert sizes == [3, 4, 4]
    assert [found[f"{n:06}.jpg"] for n in range(11)] == images
    assert [int(found[f"{n:06}.cls"]) for n in range(11)] == [n % 10 for n in range(11)]


def test_a_dataset_verifies(tmp_path: Path) -> None:
    image = io.BytesIO()
    Image.new("RGB", (8, 8)).save(image, "JPEG")
    photos.write_dataset(tmp_path, [image.getvalue()] * 13, num_shards=2)
    manifest, problems = verify(str(tmp_path))
    assert problems == []
    assert manifest.class_counts["train"] == (2, 2, 2, 1, 1, 1, 1, 1, 1, 1)
    assert open_split(StreamConfig(url=str(tmp_path)), "train").num_samples == 13
