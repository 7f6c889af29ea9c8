"""Image folders: classes and splits from names, no lost images, unreadable files reported."""

from __future__ import annotations

import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.folder import image_folder


def image(path: Path, format: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Images are unequal: equal ones would come to one split.
    Image.new("RGB", (8, 6), tuple(zlib.crc32(str(path).encode()).to_bytes(4, "big")[:3])).save(path, format)
    return path


def folder(root: Path, **more: Any) -> Domain:
    return image_folder(root, **more)


def found(domain: Domain) -> dict[str, tuple[str | None, str | None, str]]:
    return {e.key: (e.label, e.split, e.extension) for e in domain}


def test_classes_are_folders(tmp_path: Path) -> None:
    image(tmp_path / "big dog" / "a b.v1.jpg")
    image(tmp_path / "big dog" / "deep" / "c.PNG")
    image(tmp_path / "ko\u0308ter" / "猫.webp")
    domain = folder(tmp_path, name="photos")
    assert domain.name == "photos"
    assert domain.classes == ("big dog", "köter")  # composed
    assert found(domain) == {
        "big dog-a b.v1": ("big dog", None, "jpg"),
        "big dog-deep-c": ("big dog", None, "png"),
        "ko\u0308ter-猫": ("köter", None, "webp"),
    }
    example = next(iter(domain))
    assert example.read() == (tmp_path / "big dog" / "a b.v1.jpg").read_bytes()


def test_what_is_no_image_is_counted(tmp_path: Path) -> None:
    image(tmp_path / "dog" / "a.jpg")
    for name in ("dog/notes.txt", "dog/.DS_Store", "readme", ".git/x.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert folder(tmp_path).notes["other files"] == {".txt": 1, "hidden": 1, "no extension": 1}


def test_folders_of_splits(tmp_path: Path) -> None:
    for n in range(20):
        image(tmp_path / "train" / "dog" / f"{n}.jpg")
        image(tmp_path / "Test" / "cat" / f"{n}.jpg")
    splits = Counter((label, split) for label, split, _ in found(folder(tmp_path)).values())
    # The test split stays; the missing split (val) is drawn from training.
    assert splits == {("dog", "train"): 18, ("dog", "val"): 2, ("cat", "test"): 20}
    image(tmp_path / "valid" / "dog" / "x.jpg")
    splits = Counter((label, split) for label, split, _ in found(folder(tmp_path)).values())
    assert splits == {("dog", "train"): 20, ("dog", "val"): 1, ("cat", "test"): 20}


def test_images_are_what_they_are_not_what_they_are_called(tmp_path: Path) -> None:
    image(tmp_path / "dog" / "a.jpg", "PNG")
    assert next(iter(found(folder(tmp_path)).values()))[2] == "png"


def test_unreadable_images(tmp_path: Path) -> None:
    good = image(tmp_path / "dog" / "a.png")
    for n in range(7):
        (tmp_path / "dog" / f"bad{n}.png").write_bytes(good.read_bytes()[:40] if n else b"")
    image(tmp_path / "dog" / "x.jpg", "ICO")
    (tmp_path / "dog" / "bad0.png").unlink()
    (tmp_path / "dog" / "bad0.png").symlink_to("/nowhere")
    with pytest.raises(
        ValueError,
        match=r"8 of 9 images cannot be read:\n.*: a link to /nowhere, which does not exist"
        r"(\n.*dog/bad\d.png: .+){4}\n.*and 3 more\n.*--skip-bad",
    ):
        folder(tmp_path)
    domain = folder(tmp_path, skip_bad=True)
    assert list(found(domain)) == ["dog-a"]
    assert domain.notes["unreadable"] == 8
    good.unlink()
    with pytest.raises(ValueError, match="8 of 8 images cannot be read"):
        folder(tmp_path, skip_bad=True)


def test_damage_behind_the_header_is_found_by_decoding(tmp_path: Path) -> None:
    path = image(tmp_path / "dog" / "a.tif")
    Image.effect_noise((64, 64), 50).save(path, compression="tiff_lzw")
    data = path.read_bytes()
    path.write_bytes(data[:1000] + bytes(1000) + data[2000:])
    assert len(found(folder(tmp_path))) == 1
    with pytest.raises(ValueError, match=r"a\.tif: "):
        folder(tmp_path, decode=True)


def test_an_image_that_claims_to_be_huge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "dog" / "a.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(ValueError, match="exceeds limit"):
        folder(tmp_path)


def test_without_labels(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    image(tmp_path / "deep" / "b.jpg")
    domain = folder(tmp_path, unlabelled=True, classes=("x", "y"))
    assert domain.classes == ("x", "y")
    assert found(domain) == {"a": (None, None, "jpg"), "deep-b": (None, None, "jpg")}
    with pytest.raises(ValueError, match="need the class list"):
        folder(tmp_path, unlabelled=True)


def test_folders_of_splits_without_labels(tmp_path: Path) -> None:
    for n in range(20):
        image(tmp_path / "Training" / f"{n}.jpg")
    image(tmp_path / "test_set" / "x.jpg")
    domain = folder(tmp_path, unlabelled=True, classes=("x", "y"))
    parts = Counter(part for _, part, _ in found(domain).values())
    assert parts == {"train": 18, "val": 2, "test": 1}  # validation images are drawn, as from labelled images
    image(tmp_path / "beside.jpg")
    domain = folder(tmp_path, unlabelled=True, classes=("x", "y"))
    assert {part for _, part, _ in found(domain).values()} == {None}


def test_a_class_list(tmp_path: Path) -> None:
    image(tmp_path / "dog" / "a.jpg")
    assert folder(tmp_path, classes=("zebra", "dog")).classes == ("zebra", "dog")
    with pytest.raises(ValueError, match="folders that the class list lacks: dog"):
        folder(tmp_path, classes=("zebra",))


def test_links_are_followed_once(tmp_path: Path) -> None:
    image(tmp_path / "elsewhere" / "a.jpg")
    (tmp_path / "d" / "dog").mkdir(parents=True)
    (tmp_path / "d" / "dog" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    assert list(found(folder(tmp_path / "d"))) == ["dog-link-a"]


def test_sub_folders_that_may_be_the_classes_are_remarked_on(tmp_path: Path) -> None:
    for name in ("animal/cat/1", "animal/dog/2", "plant/rose/3", "plant/oak/tall/4"):
        image(tmp_path / f"{name}.png")
    (remark,) = folder(tmp_path).notes["remarks"]
    words = (
        "the classes are animal, plant; all images are in sub-folders (cat, dog, oak, rose, ...), whose names"
    )
    assert remark.startswith(words)
    image(tmp_path / "plant" / "5.png")  # an image beside the sub-folders
    assert folder(tmp_path).notes["remarks"] == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "has no class folders with images"),
        (["a.jpg", "dog/b.jpg"], r"holds 1 images outside class folders \(first: a.jpg\)"),
        (["train/dog/a.jpg", "train/b.jpg"], "train holds 1 images outside"),
        (["train/dog/a.jpg", "cat/b.jpg"], r"folders of splits \(train\) beside others \(cat\)"),
        (["test/dog/a.jpg"], "there is no training split, only test"),
    ],
)
def test_folders_that_are_laid_out_wrongly(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        image(tmp_path / name)
    with pytest.raises(ValueError, match=message) as error:
        folder(tmp_path)
    assert str(tmp_path) in str(error.value) or "training" in message


def test_no_folder_or_an_empty_class(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        folder(tmp_path / "none")
    with pytest.raises(ValueError, match="a file; give a folder"):
        folder(image(tmp_path / "dog" / "a.jpg"))
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="cat: no images in this class folder"):
        folder(tmp_path)


def test_empty_classes(tmp_path: Path) -> None:
    image(tmp_path / "dog" / "a.jpg")
    (tmp_path / "cat").mkdir()
    assert folder(tmp_path, classes=("cat", "dog")).classes == ("cat", "dog")
    image(tmp_path / "s" / "train" / "cat" / "a.jpg")
    image(tmp_path / "s" / "test" / "dog" / "a.jpg")
    image(tmp_path / "s" / "train" / "dog" / "b.jpg")
    (tmp_path / "s" / "test" / "cat").mkdir()
    assert len(found(folder(tmp_path / "s"))) == 3


def test_what_is_not_read_is_named(tmp_path: Path) -> None:
    image(tmp_path / "dog" / "a.jpg")
    (tmp_path / "dog" / "b.HEIC").touch()
    assert folder(tmp_path).notes["remarks"] == [
        "left out: 1 .heic (HEIC): images in formats that are not read; convert them to JPEG or PNG"
    ]
    (tmp_path / "dog" / "a.jpg").unlink()
    with pytest.raises(ValueError, match=r"it holds 1 \.heic \(HEIC\), which cannot be read: convert them"):
        folder(tmp_path)


def test_the_destination_below_the_source_is_no_class(tmp_path: Path) -> None:
    image(tmp_path / "dog" / "a.jpg")
    (tmp_path / "packed").mkdir()
    assert folder(tmp_path, leave_out=tmp_path / "packed").classes == ("dog",)
    (tmp_path / "deep" / "packed").mkdir(parents=True)
    (tmp_path / "deep" / "packed" / "manifest.json").touch()
    assert folder(tmp_path, leave_out=tmp_path / "packed").classes == ("dog",)


def test_a_class_list_in_the_other_unicode_form(tmp_path: Path) -> None:
    image(tmp_path / "ko\u0308ter" / "a.jpg")
    assert folder(tmp_path, classes=("dog", "ko\u0308ter")).classes == ("dog", "köter")


def test_groups_by_a_regular_expression(tmp_path: Path) -> None:
    for n in range(6):
        image(tmp_path / "dog" / f"patient_{n // 2}-{n}.jpg")
    assert [e.group for e in folder(tmp_path, group=r"patient_(\d+)")] == ["0", "0", "1", "1", "2", "2"]
    assert {e.group for e in folder(tmp_path, group="dog/patient_1|patient")} == {"dog/patient_1", "patient"}
    with pytest.raises(ValueError, match=r"finds no group in 6 of 6 paths \(first: dog/patient_0-0.jpg\)"):
        folder(tmp_path, group="scene")
    with pytest.raises(ValueError, match="is no regular expression"):
        folder(tmp_path, group="(")


def test_the_validation_split_is_drawn_without_equal_images_of_training(tmp_path: Path) -> None:
    for n in range(20):
        for copy in range(2):
            path = tmp_path / "train" / "dog" / f"{n}-{copy}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (n, 0, 0)).save(path)
    image(tmp_path / "test" / "dog" / "x.png")
    splits = {key: split for key, (_, split, _) in found(folder(tmp_path)).items()}
    assert Counter(splits.values()) == {"train": 36, "val": 4, "test": 1}
    assert all(splits[f"dog-{n}-0"] == splits[f"dog-{n}-1"] for n in range(20))


def test_folders_named_by_numbers(tmp_path: Path) -> None:
    for n in range(12):
        (tmp_path / "f" / f"{n}").mkdir(parents=True)
        Image.new("RGB", (4, 4), (n, 0, 0)).save(tmp_path / "f" / f"{n}" / "a.png")
    domain = image_folder(tmp_path / "f")
    assert domain.classes == tuple(map(str, range(12)))
    by_text = tuple(sorted(domain.classes))
    listed = image_folder(tmp_path / "f", classes=by_text)
    assert listed.classes == by_text
    assert all(e.label == e.key.partition("-")[0] for e in listed)
    with pytest.raises(ValueError, match="folders that the class list lacks: 10, 11"):
        image_folder(tmp_path / "f", classes=tuple(map(str, range(10))))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cat", "cat"), ("golden_retriever", "golden-retriever"), ("cat ", "cat"), ("01", "1"),
        ("\uff43\uff41\uff54", "cat"),
        ("tabby\u00a0cat", "tabby cat"), ("cat\u200b", "cat"), ("Cats.", "cats"),
    ],
)  # fmt: skip
def test_classes_that_differ_in_spelling_alone_are_refused(tmp_path: Path, one: str, other: str) -> None:
    for n, path in enumerate((f"train/{one}", f"test/{other}", "train/dog", "test/dog")):
        image(tmp_path / path / f"{n}.png")
    with pytest.raises(
        ValueError, match="differ in spelling alone; give them one name, or name all classes by --cl"
    ):
        folder(tmp_path)
    assert folder(tmp_path, classes=(one, other, "dog")).classes == (one, other, "dog")


def test_letters_and_signs_are_classes_of_their_own(tmp_path: Path) -> None:
    names = ("A", "a", "C", "C++", "C#", "-5 deg", "5 deg", "1.0 mm", "10 mm")
    for name in names:
        image(tmp_path / name / "1.png")
    assert set(folder(tmp_path).classes) == set(names)


def test_a_split_of_other_folders_than_the_training_classes_is_refused(tmp_path: Path) -> None:
    for path in ("train/n01/images/a", "train/n02/images/b", "val/images/c"):
        image(tmp_path / f"{path}.png")
    with pytest.raises(
        ValueError, match=r"folders of val \(images\) differ from the folders of train \(n01, n02\)"
    ):
        folder(tmp_path)
    image(tmp_path / "val/n01/d.png")
    assert folder(tmp_path).classes == ("images", "n01", "n02")


def test_a_link_to_a_folder_above_is_not_followed(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        image(tmp_path / "set" / label / "1.png")
    (tmp_path / "set/cat/all").symlink_to("..")
    (tmp_path / "set/cat/self").symlink_to(".")
    domain = folder(tmp_path / "set")
    assert found(domain) == {"cat-1": ("cat", None, "png"), "dog-1": ("dog", None, "png")}
    assert domain.notes["remarks"] == ["folders skipped: 1 links to a folder above"]


def test_files_with_several_frames_are_reported(tmp_path: Path) -> None:
    first = Image.new("RGB", (8, 8), "red")
    more = [Image.new("RGB", (8, 8), "blue")]
    (tmp_path / "cat").mkdir()
    for name in ("a.tif", "b.gif", "c.webp", "d.png", "e.mpo", "f.png"):
        first.save(tmp_path / "cat" / name, save_all=name != "f.png", append_images=more)
    (remark,) = folder(tmp_path).notes["remarks"]  # pyright: ignore[reportGeneralTypeIssues]
    assert "several frames (animations, stacks of pages): 4 (first:" in remark


def test_archives_and_tables_are_errors_with_a_remedy(tmp_path: Path) -> None:
    image(tmp_path / "cat" / "1.png")
    for name, message in (
        ("x.zip", "unpack archives first$"),
        ("train-0.parquet", "save the images in them as files"),
    ):
        (tmp_path / "dog").mkdir(exist_ok=True)
        (tmp_path / "dog" / name).write_bytes(b"PK")
        with pytest.raises(ValueError, match=message):
            folder(tmp_path)
        (tmp_path / "dog" / name).unlink()
