"""Splits and classes by the names of all sub-folders together; what can be read in two ways is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fourds_dist.data.datasets.folder_layout import arrange


def files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def read(root: Path, **more: object) -> dict[str, tuple[str, str | None]]:
    arranged = arrange(root, **({"classes": None, "layout": None, "leave_out": None} | more))  # pyright: ignore[reportArgumentType]
    return {str(f.path.relative_to(root)): (f.label, f.split) for f in arranged.folders}


@pytest.mark.parametrize(
    ("train", "test"),
    [("Training", "Testing"), ("train_set", "test_set"), ("seg_train", "seg_test"), ("01-trn", "02-tst")],
)
def test_splits_in_other_spellings(tmp_path: Path, train: str, test: str) -> None:
    files(tmp_path, *(f"{split}/{label}/1.jpg" for split in (train, test) for label in ("a", "b")))
    assert read(tmp_path) == {
        f"{folder}/{label}": (label, split)
        for folder, split in ((train, "train"), (test, "test"))
        for label in ("a", "b")
    }


def test_an_evaluation_split_beside_a_test_split_is_for_validation(tmp_path: Path) -> None:
    files(tmp_path, "train/a/1.jpg", "eval/a/1.jpg", "test/a/1.jpg")
    assert {split for _, split in read(tmp_path).values()} == {"train", "val", "test"}


@pytest.mark.parametrize(
    "names", [("bullet train", "steam train"), ("test tube", "train station"), ("#1", "@home")]
)
def test_classes_that_speak_of_splits(tmp_path: Path, names: tuple[str, ...]) -> None:
    files(tmp_path, *(f"{name}/1.jpg" for name in names))
    assert read(tmp_path) == {name: (name, None) for name in names}


def test_splits_within_classes_are_refused_and_read_as_asked(tmp_path: Path) -> None:
    files(
        tmp_path, *(f"{label}/{split}/1.jpg" for label in ("bottle", "cable") for split in ("train", "test"))
    )
    with pytest.raises(
        ValueError, match=r"bottle has the sub-folders test, train: .*CLASS/SPLIT.* --layout CLASS\)"
    ):
        read(tmp_path)
    assert read(tmp_path, layout="CLASS/SPLIT")["cable/test"] == ("cable", "test")
    assert read(tmp_path, layout="CLASS") == {"bottle": ("bottle", None), "cable": ("cable", None)}


def test_masks_beside_photographs_are_refused(tmp_path: Path) -> None:
    """As in MVTec AD, from above and from within an object's folder."""
    files(tmp_path, *(f"bottle/{name}/1.png" for name in ("train/good", "test/good", "ground_truth/broken")))
    files(tmp_path, *(f"nut/{name}/1.png" for name in ("train/good", "test/good", "ground_truth/broken")))
    with pytest.raises(ValueError, match="first move ground_truth, which looks like masks"):
        read(tmp_path)
    with pytest.raises(ValueError, match=r"folders of splits \(test, train\) beside others \(ground_truth\)"):
        read(tmp_path / "bottle")
    files(
        tmp_path / "busi", "benign/images/1.png", "benign/masks/1.png", "bad/images/1.png", "bad/masks/1.png"
    )
    with pytest.raises(ValueError, match=r"sub-folder masks, whose images look like masks"):
        read(tmp_path / "busi")


@pytest.mark.parametrize(
    "names",
    [("Entrenamiento", "Prueba"), ("fold1", "fold2"), ("Testt", "Trainingg"), ("labelled", "unlabelled")],
)
def test_folders_that_resemble_splits_of_one_class_list_are_refused(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    files(tmp_path, *(f"{part}/{label}/1.jpg" for part in names for label in ("a", "b")))
    with pytest.raises(ValueError, match=r"either a, b are the classes .*, or .*, .* are"):
        read(tmp_path)
    assert set(read(tmp_path, layout="CLASS")) == set(names)
    days = tmp_path / "days"
    files(days, *(f"{label}/{day}/1.jpg" for label in ("cat", "dog") for day in ("mon", "tue")))
    arranged = arrange(days, classes=None, layout=None, leave_out=None)
    assert "the classes are cat, dog, which all hold the sub-folders mon, tue" in arranged.remarks[0]


def test_a_lone_folder_around_the_classes_is_refused(tmp_path: Path) -> None:
    files(tmp_path, "images/a/1.jpg", "images/b/1.jpg")
    with pytest.raises(ValueError, match=rf"images is the only folder in .*pack {tmp_path}/images"):
        read(tmp_path)
    assert read(tmp_path, layout="CLASS") == {"images": ("images", None)}
    files(tmp_path / "data", *(f"all/{split}/{label}/1.jpg" for split in ("train", "test") for label in "ab"))
    with pytest.raises(
        ValueError, match=r"either these are splits that hold the classes \(pack .*data/all\)"
    ):
        read(tmp_path / "data")
    assert len(read(tmp_path / "data" / "all")) == 4
    files(tmp_path / "seg", *(f"{s}/{s}/{c}/1.jpg" for s in ("seg_train", "seg_test") for c in "ab"))
    with pytest.raises(ValueError, match="move them up into"):
        read(tmp_path / "seg")


def test_a_class_called_train(tmp_path: Path) -> None:
    files(tmp_path, "train/1.jpg", "car/1.jpg", "bus/1.jpg")
    with pytest.raises(ValueError, match=r"If train is a class, give --layout CLASS"):
        read(tmp_path)
    assert set(read(tmp_path, layout="CLASS")) == {"train", "car", "bus"}
    assert set(read(tmp_path, classes=("bus", "car", "train", "tram"))) == {"train", "car", "bus"}


def test_a_name_that_is_no_utf8_is_refused_with_its_folder(tmp_path: Path) -> None:
    files(tmp_path, "ok/1.jpg")
    os.makedirs(os.fsencode(tmp_path) + b"/K\xf6ter")  # noqa: PTH103  (pathlib takes text)
    with pytest.raises(ValueError, match=r"not in UTF-8: K\\xf6ter; rename it") as error:
        read(tmp_path)
    str(error.value).encode()


def test_split_names_in_other_languages(tmp_path: Path) -> None:
    for train, test in (
        ("训练集", "测试集"),
        ("学習", "テスト"),
        ("훈련데이터", "테스트"),
        ("обучающая выборка", "тест"),
    ):
        root = files(
            tmp_path / train, *(f"{split}/{label}/1.jpg" for split in (train, test) for label in "猫狗")
        )
        assert read(root)[f"{train}/猫"] == ("猫", "train")
        assert read(root)[f"{test}/狗"] == ("狗", "test")


@pytest.mark.parametrize(
    "names",
    [
        ("imagesTr", "imagesTs"),
        ("in_sample", "out-of-sample"),
        ("art_painting", "cartoon", "photo", "sketch"),
    ],
)
def test_parts_and_domains_around_the_classes_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    files(tmp_path, *(f"{part}/{label}/1.jpg" for part in names for label in ("a", "b", "c", "d", "e")))
    with pytest.raises(
        ValueError, match=r"are the classes \(rename .* or pack each as a separate dataset\), or .* are"
    ):
        read(tmp_path)
    assert set(read(tmp_path, layout="CLASS")) == set(names)


@pytest.mark.parametrize("place", ["{}", "train/{}", "Test/{}"])
def test_a_generic_folder_name_is_no_class(tmp_path: Path, place: str) -> None:
    for name in ("images", "JPEGImages", "all_pictures"):
        root = files(tmp_path / name, f"{place.format(name)}/Abyssinian_1.jpg")
        with pytest.raises(
            ValueError, match=rf"'{name}' would be the only class.* give --layout (SPLIT/)?CLASS"
        ):
            read(root)
        assert read(root, layout="SPLIT/CLASS" if "/" in place else "CLASS")
