"""Images that a run takes as they are: the kind of a path, its classes, and fingerprints of its files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.inputs import (
    ImageInput,
    InputKind,
    class_difference,
    kind_of_input,
    lacks_labels,
    open_input,
)
from fourds_dist.data.format.class_list import ClassList
from tests.data.shards import write_dataset


def image(path: Path, side: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side + 2)).save(path)
    return path


def folder_of(place: Path, *paths: str) -> Path:
    for path in paths:
        image(place / path)
    return place


def opened(place: Path, classes: tuple[str, ...] | None = None) -> ImageInput:
    found = open_input(str(place), classes=classes)
    assert found is not None
    return found


def domain_of(found: ImageInput) -> Domain:
    return found.domain(
        "x", found.classes, leave_out=None, num_threads=1, on_progress=lambda what, done, total: None
    )


def rows(found: ImageInput) -> list[tuple[str, str | None, str | None]]:
    return sorted((Path(e.image).name, e.label, e.split) for e in domain_of(found))  # pyright: ignore


def test_images_without_labels_take_the_classes_of_the_other_domain(tmp_path: Path) -> None:
    flat = folder_of(tmp_path / "flat", *(f"{n}.png" for n in range(10)))
    split = folder_of(tmp_path / "split", "train/1.png", "train/2.png", "test/1.png")
    (tmp_path / "list.csv").write_text("path,label\nflat/1.png,\nflat/2.png,-1\n")
    for place in (flat, split, tmp_path / "list.csv"):
        assert lacks_labels(str(place))
        images = opened(place, ("a", "b"))
        assert (images.is_unlabelled, images.labels, images.classes) == (True, frozenset(), ("a", "b"))
        assert class_difference("other", ClassList(("a", "b")), images) is None
        assert {label for _, label, _ in rows(images)} == {None}
        assert list(domain_of(images).classes) == ["a", "b"]
    assert (opened(flat, ("a", "b")).num_train, opened(split, ("a", "b")).num_train) == (7, 2)
    for paths in (("cat/1.png",), ("train/cat/1.png",), ("1.png", "cat/1.png"), ("train/1.png", "cat/1.png")):
        assert not lacks_labels(str(folder_of(tmp_path / str(paths).replace("/", "-"), *paths)))
    with pytest.raises(ValueError, match="outside class folders"):
        opened(flat)


def test_the_kind_of_a_path(tmp_path: Path) -> None:
    write_dataset(tmp_path / "shards", [1])
    folder = folder_of(tmp_path / "a b", "cat/1.png", "dog/1.png")
    (tmp_path / "l.csv").write_text("path,label\n")
    kinds = {"shards": None, "nowhere": None, "a b": InputKind.FOLDER, "l.csv": InputKind.LIST}
    assert {name: kind_of_input(str(tmp_path / name)) for name in kinds} == kinds
    assert kind_of_input(f"file://{folder}/") == InputKind.FOLDER
    (folder / "metadata.jsonl").write_text("{}\n")
    assert kind_of_input(str(folder)) == InputKind.METADATA
    for url in ("s3://bucket/photos", "memory://x", f"{tmp_path}/train-{{0..9}}.tar", f"{tmp_path}/*.tar"):
        assert kind_of_input(url) is None
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"x\.zip is a file of another kind; give a folder"):
        kind_of_input(str(tmp_path / "x.zip"))


def test_a_folder_by_names_alone(tmp_path: Path) -> None:
    place = folder_of(tmp_path, *(f"{name}/{number}.png" for name in ("9", "10") for number in range(10)))
    (tmp_path / "11").mkdir()
    found = opened(place)
    assert (found.classes, found.empty, len(found.files)) == (("9", "10"), {"11"}, 20)
    assert found.num_train == 14
    assert found.sides(3) == [4, 4, 4]
    given = folder_of(tmp_path / "given", "train/a/1.png", "train/b/1.png", "test/a/2.png")
    assert opened(given).num_train == 2
    with pytest.raises(ValueError, match="no class folders with images"):
        open_input(str(tmp_path / "11"))


def test_the_fingerprint_is_of_names_sizes_and_times(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "x", "a/1.png", "b/1.png")
    names = ("a", "b")
    first = opened(place).fingerprint(names)
    assert opened(place).fingerprint(names) == first
    assert opened(place).fingerprint(("b", "a")) != first
    os.utime(place / "a/1.png", ns=(1, 1))
    touched = opened(place).fingerprint(names)
    image(place / "b/2.png")
    assert len({first, touched, opened(place).fingerprint(names)}) == 3


def test_lists_in_parquet(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.png", "b.png", "c.png")
    table = pa.table(
        {
            "file_name": ["a.png", "b.png", "c.png"],
            "label": pa.array([1, 0, None], pa.int64()),
            "vector": [[1.0], [2.0], [3.0]],
        }
    )
    pq.write_table(table, tmp_path / "plain.parquet")
    assert rows(opened(tmp_path / "plain.parquet")) == [
        ("a.png", "1", None),
        ("b.png", "0", None),
        ("c.png", None, None),
    ]
    info = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    named = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(named, tmp_path / "named.parquet")
    assert rows(opened(tmp_path / "named.parquet"))[0] == ("a.png", "dog", None)
    words = table.set_column(1, "label", pa.array(["x", "y", "y"]).dictionary_encode())
    pq.write_table(words, tmp_path / "words.pq")
    assert opened(tmp_path / "words.pq").classes == ("x", "y")


def test_parquet_files_that_are_no_lists(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"x\.parquet cannot be read as Parquet"):
        open_input(str(tmp_path / "x.parquet"))
    inside = pa.array([{"bytes": b"abc", "path": None}])
    pq.write_table(pa.table({"image": inside, "label": [0]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="holds the images themselves, in the column 'image'"):
        open_input(str(tmp_path / "x.parquet"))


def test_classes_that_differ(tmp_path: Path) -> None:
    found = opened(folder_of(tmp_path, "cat/1.png", "dog/1.png"))
    assert class_difference("s", ClassList(("cat", "dog")), found) is None
    message = class_difference("/s", ClassList(("ape", "dog")), found)
    assert message is not None
    assert f"only {tmp_path} has 'cat' and only /s has 'ape'" in message
    assert "an empty folder for a class" in message
    (tmp_path / "ape").mkdir()
    found = opened(tmp_path)
    assert class_difference("/s", ClassList(("ape", "cat", "dog")), found) is None
    listed = tmp_path / "l.csv"
    listed.write_text("path,label\ncat/1.png,0\ndog/1.png,2\n")
    # Numbers leave a gap in both, and numbers are positions in a list of names.
    found = opened(listed)
    assert class_difference("/s", ClassList(found.classes), found) is None
    assert class_difference("/s", ClassList(("a", "b", "c")), found) is not None
    listed.write_text("path,label\ncat/1.png,0\ndog/1.png,1\n")
    assert class_difference("/s", ClassList(("a", "b")), opened(listed)) is None
