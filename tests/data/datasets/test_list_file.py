"""Lists of images: paths with spaces, labels by name and number, and the line of what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest
from PIL import Image

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.list_file import image_list, read_classes
from tests.data.shards import write_dataset

IMAGES = ("a.png", "my dog.png", "deep/köter 1.png")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in IMAGES:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "photos" / name)
    return tmp_path


def listed(place: Path, text: str, **more: Any) -> Domain:
    (place / "list.txt").write_text(text, encoding="utf-8")
    return image_list(place / "list.txt", **more)


def labels(domain: Domain) -> list[tuple[str | None, str | None]]:
    return [(e.label, e.split) for e in domain]


def test_tabs_and_last_spaces(place: Path) -> None:
    domain = listed(
        place,
        "\ufeffphotos/a.png cat\r\nphotos/my dog.png\tbig dog\tval\n\nphotos/deep/köter 1.png cat\n",
        name="x",
    )
    assert (domain.name, domain.classes) == ("x", ("big dog", "cat"))
    assert labels(domain) == [("cat", None), ("big dog", "val"), ("cat", None)]
    assert [e.image for e in domain] == [place / "photos" / name for name in IMAGES]
    assert domain.notes["missing"] == 0


def test_numbers_stand_for_themselves_or_for_a_list_s_names(place: Path) -> None:
    text = "photos/a.png 2\nphotos/my dog.png 0\nphotos/deep/köter 1.png -1\n"
    domain = listed(place, text)
    assert domain.classes == ("0", "1", "2")
    assert labels(domain) == [("2", None), ("0", None), (None, None)]
    domain = listed(place, text, classes=("cat", "dog", "ape"))
    assert labels(domain) == [("ape", None), ("cat", None), (None, None)]
    with pytest.raises(ValueError, match="labels that the class list lacks: 2"):
        listed(place, text, classes=("cat", "dog"))
    # Names that are numbers are names.
    assert labels(listed(place, "photos/a.png 2\n", classes=("9", "2", "5"))) == [("2", None)]


def test_without_labels(place: Path) -> None:
    text = "photos/a.png\t\nphotos/my dog.png\t-1\n"
    assert labels(listed(place, text, classes=("cat",))) == [(None, None)] * 2
    with pytest.raises(ValueError, match="has no labels; give the class list"):
        listed(place, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("photos/a.png cat\nphotos/x.png", r"line 2: 'photos/x.png' has no label; end the line with a tab"),
        ("photos/a.png cat\nphotos/a.png dog", r"line 2: 'photos/a.png' is in line 1 already"),
        ("photos/a.png\tcat\textra", r"line 1: 'extra' is no split"),
        ("photos/my dog.png", r"1 of 1 images do not exist .*line 1: photos/my\)"),
        ("photos/a.png cat\nphotos/b.png cat", r"1 of 2 images do not exist .*line 2: photos/b.png"),
    ],
)
def test_lines_that_are_wrong(place: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        listed(place, text)
    assert f"{place}/list.txt" in str(error.value)


def test_missing_and_unreadable_images_may_be_skipped(place: Path) -> None:
    (place / "photos/bad.png").write_text("x")
    domain = listed(place, "photos/a.png cat\nphotos/b.png cat\nphotos/bad.png cat\n", skip_bad=True)
    assert labels(domain) == [("cat", None)]
    assert (domain.notes["missing"], domain.notes["unreadable"]) == (1, 1)


def test_no_list(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        image_list(tmp_path / "none.txt")
    with pytest.raises(ValueError, match="a folder; give a file"):
        image_list(tmp_path)
    (tmp_path / "l").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="as text in UTF-8"):
        image_list(tmp_path / "l")


def test_class_lists(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("big dog\n\n köter \n猫\n", encoding="utf-8")
    assert read_classes(file) == ("big dog", "köter", "猫")
    file.write_text("a\nb\na\n")
    with pytest.raises(ValueError, match="names the class 'a' twice"):
        read_classes(file)
    file.write_text("\n")
    with pytest.raises(ValueError, match="holds no classes"):
        read_classes(file)
    with pytest.raises(ValueError, match="no such file"):
        read_classes(tmp_path / "none")


def test_names_that_are_numbers_are_names(place: Path) -> None:
    text = "photos/a.png 2\nphotos/my dog.png 010\n"
    assert labels(listed(place, text, classes=("10", "2", "0"))) == [("2", None), ("10", None)]
    with pytest.raises(ValueError, match="labels that the class list lacks: 010; the list begins with 2, 3"):
        listed(place, text, classes=("2", "3"))
    with pytest.raises(ValueError, match="labels that the class list lacks: 010"):  # never a position
        listed(place, text, classes=("2", *map(str, range(20, 40))))


def test_paths_relative_to_another_folder(place: Path) -> None:
    (place / "photos/lists").mkdir()
    file = place / "photos/lists/l.txt"
    file.write_text("photos/a.png cat\nphotos/my dog.png dog\n")
    with pytest.raises(ValueError, match=f"relative to the list.*give --root {place}; else correct the list"):
        image_list(file)
    assert [e.image for e in image_list(file, root=place)] == [place / "photos" / n for n in IMAGES[:2]]
    with pytest.raises(ValueError, match="--root /none: no such folder"):
        image_list(file, root="/none")


def test_either_unicode_form_of_a_path(place: Path) -> None:
    text = "photos/deep/k\u00f6ter 1.png\tK\u00f6ter\nphotos/a.png\tKo\u0308ter\n"
    assert labels(listed(place, text)) == [("K\u00f6ter", None)] * 2
    assert labels(listed(place, text.replace("k\u00f6ter 1", "ko\u0308ter 1"))) == [("K\u00f6ter", None)] * 2


def test_the_classes_of_another_data_set(tmp_path: Path) -> None:
    url = write_dataset(tmp_path / "alt", [3], classes=("b", "a", "c"))
    assert read_classes(url) == read_classes(f"{url}/manifest.json") == ("b", "a", "c")
    fs = fsspec.filesystem("memory")
    fs.pipe("/labels-test/alt/manifest.json", (tmp_path / "alt/manifest.json").read_bytes())
    fs.pipe("/labels-test/classes.txt", "x\nK\u00f6ter\n".encode())
    assert read_classes("memory://labels-test/alt") == ("b", "a", "c")
    assert read_classes("memory://labels-test/classes.txt") == ("x", "K\u00f6ter")
    with pytest.raises(ValueError, match=r"^memory://labels-test/none\.txt: no such file"):
        read_classes("memory://labels-test/none.txt")
    with pytest.raises(ValueError, match=r"it has no manifest\.json"):
        read_classes(tmp_path)
    (tmp_path / "classes.json").write_text('[\n"a",\n"b"\n]')
    with pytest.raises(ValueError, match="is JSON; write one class name per line"):
        read_classes(tmp_path / "classes.json")


def test_a_class_list_of_many_names(tmp_path: Path) -> None:
    names = [f"person {n}" for n in range(50_000)]
    (tmp_path / "classes.txt").write_text("\n".join(names))
    assert read_classes(tmp_path / "classes.txt") == tuple(names)
    (tmp_path / "classes.txt").write_text("\n".join([*names, names[7]]))
    with pytest.raises(ValueError, match="names the class 'person 7' twice"):
        read_classes(tmp_path / "classes.txt")


def test_a_column_for_each_class(place: Path) -> None:
    paths = [f"photos/{name}" for name in IMAGES]
    rows = [f"{path},{int(n == 0)}.0,{int(n > 0)},FALSE" for n, path in enumerate(paths)]
    domain = listed(place, "\n".join(["image,MEL,NV,BCC", *rows]))
    assert domain.classes == ("MEL", "NV")
    assert [label for label, _ in labels(domain)] == ["MEL", "NV", "NV"]
    with pytest.raises(
        ValueError, match=r"list.txt: the list has a column for each class, and 2 of these are true in row 1"
    ):
        listed(place, f"image,a,b\n{paths[0]},1,1\n")
    with pytest.raises(ValueError, match="has no column label"):
        listed(place, f"image,a,b\n{paths[0]},3,1\n")


@pytest.mark.parametrize(
    ("header", "cells", "splits"),
    [
        ("is_train", ("1", "1", "0"), ["train", "train", "test"]),
        ("is_valid", ("True", "False", "False"), ["val", "train", "train"]),
        ("is_test,is_val", ("0,0", "1,0", "0,1"), ["train", "test", "val"]),
    ],
)
def test_flags_are_splits(place: Path, header: str, cells: tuple[str, ...], splits: list[str]) -> None:
    rows = [
        f"photos/{name},{'cat' if n else 'dog'},{cell}"
        for n, (name, cell) in enumerate(zip(IMAGES, cells, strict=True))
    ]
    domain = listed(place, "\n".join([f"path,label,{header}", *rows]), val_fraction=0, test_fraction=0)
    assert [split for _, split in labels(domain)] == splits
    assert domain.notes["remarks"] == []
    with pytest.raises(ValueError, match=r"line 2: 'maybe' in the column istest is neither true nor false"):
        listed(place, "path,label,is_test\nphotos/a.png,cat,maybe\n")


def test_json_in_its_forms(place: Path) -> None:
    paths = [f"photos/{name}" for name in IMAGES]
    objects = [{"file_name": path, "label": n % 2} for n, path in enumerate(paths)]
    forms = (
        objects,
        dict(zip(paths, (0, 1, 0), strict=True)),
        {"labels": [[p, n % 2] for n, p in enumerate(paths)]},
    )
    for form in forms:
        for indent in (None, 1):
            domain = listed(place, json.dumps(form, indent=indent))
            assert [label for label, _ in labels(domain)] == ["0", "1", "0"]
    with pytest.raises(ValueError, match=r"is in COCO's format, .* write a list of one label for each image"):
        listed(place, json.dumps({"images": [], "annotations": [], "categories": []}))


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("https://x.org/a.jpg", "they are URLs, but a list takes local files: download the images"),
        (
            "C:\\data\\photos\\a.png",
            r"begin with 'C:\\\\data\\\\', a folder of another machine: remove it",
        ),
        ("/home/x/photos/a.png", "begin with '/home/x/', a folder of another machine"),
    ],
)
def test_why_images_are_not_there(place: Path, path: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        listed(place, f"path,label\n{path},cat\n")


def test_splits_that_a_list_lacks_are_drawn_from_its_training_part(place: Path) -> None:
    rows = []
    for n in range(20):
        Image.new("RGB", (4, 4), (n, 0, 0)).save(place / f"{n}.png")
        rows.append(f"{n}.png,{'cat' if n % 2 else 'dog'},{'test' if n > 15 else 'train'}")
    told = [split for _, split in labels(listed(place, "\n".join(["path,label,split", *rows])))]
    assert (told.count("val"), told[16:]) == (2, ["test"] * 4)


def test_labels_that_resemble_several_labels_are_refused(place: Path) -> None:
    for text in ("cat|dog", "dog; cat", "cat, dog", "dog+cat", "cat dog"):
        rows = [f'photos/{name},"{label}"' for name, label in zip(IMAGES, (text, "dog", "cat"), strict=True)]
        with pytest.raises(ValueError, match="looks like several labels of one image"):
            listed(place, "\n".join(["path,label", *rows]))
    rows = [
        f'photos/{name},"{label}"'
        for name, label in zip(IMAGES, ("tench, Tinca", "cat", "dog & co"), strict=True)
    ]
    assert listed(place, "\n".join(["path,label", *rows])).classes == ("cat", "dog & co", "tench, Tinca")


def test_short_rows_of_a_table_without_a_label_are_refused_in_words(place: Path) -> None:
    (place / "list.csv").write_text("path,cat,dog\na.png,1\nb.png\n")
    with pytest.raises(ValueError, match="0 of these are true in row 2 below the header"):
        image_list(place / "list.csv")
