"""Image folders with a table: labels, splits, and images that are missing or not listed."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.metadata_folder import metadata_files, metadata_folder


def folder_of(place: Path, *paths: str) -> Path:
    for path in paths:
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(place / path)
    return place


def rows(domain: Domain) -> list[tuple[str, str | None, str | None]]:
    return sorted((e.key, e.label, e.split) for e in domain)


def test_a_table_at_the_root(tmp_path: Path) -> None:
    folder_of(tmp_path, "1.png", "deep/2.png", "3.png")
    (tmp_path / "metadata.csv").write_text("file_name,label,text\n1.png,cat,a\ndeep/2.png,dog,b\n")
    domain = metadata_folder(tmp_path)
    assert domain.classes == ("cat", "dog")
    assert rows(domain) == [("1", "cat", None), ("deep/2", "dog", None)]
    assert domain.notes["remarks"] == [
        f"left out: 1 images that no table lists (first: {tmp_path}/3.png)",
        "columns that were not read: text",
    ]


@pytest.mark.parametrize("around", ["", "data/"])
def test_a_table_in_every_split(tmp_path: Path, around: str) -> None:
    for split, labels in {"train": "abab", "validation": "ab", "test": "ba"}.items():
        place = tmp_path / around / split
        folder_of(place, *(f"{number}.png" for number in range(len(labels))))
        lines = [json.dumps({"file_name": f"{n}.png", "label": label}) for n, label in enumerate(labels)]
        (place / "metadata.jsonl").write_text("\n".join(lines))
    assert len(metadata_files(tmp_path)) == 3
    found = rows(metadata_folder(tmp_path))
    assert (f"{around}test/0", "b", "test") in found
    assert [split for _, _, split in found].count("val") == 2


def test_splits_in_paths_and_classes_in_folders(tmp_path: Path) -> None:
    names = [f"{split}/{label}/{n}.png" for split in ("train", "val", "test") for label in "ab" for n in "12"]
    folder_of(tmp_path, *names)
    pq.write_table(pa.table({"file_name": names, "size": [1] * len(names)}), tmp_path / "metadata.parquet")
    found = rows(metadata_folder(tmp_path))
    assert found[0] == ("test/a/1", "a", "test")
    assert {(label, split) for _, label, split in found} == {
        (a, b) for a in "ab" for b in ("train", "val", "test")
    }


def test_tables_that_cannot_be_used(tmp_path: Path) -> None:
    folder_of(tmp_path, "1.png", "a/2.png")
    table = tmp_path / "metadata.csv"
    table.write_text("file_name,label\n1.png,a\n4.png,b\n5.png,b\n")
    with pytest.raises(
        ValueError, match=r"metadata\.csv: 2 of 3 images do not exist .*first: line 3: 4\.png"
    ):
        metadata_folder(tmp_path)
    assert metadata_folder(tmp_path, skip_bad=True).notes["missing"] == 2
    table.write_text("file_name,text\n1.png,a\na/2.png,b\n")
    with pytest.raises(ValueError, match=r"has no column label, and 1\.png is in no class folder"):
        metadata_folder(tmp_path)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "1.png", "label": "a"}\n')
    with pytest.raises(ValueError, match=r"has metadata\.csv and metadata\.jsonl; remove one"):
        metadata_folder(tmp_path)
