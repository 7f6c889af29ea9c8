"""Names of splits as data sets spell them, and names that resemble them."""

from __future__ import annotations

import pytest

from fourds_dist.data.files.split_names import rest_of, split_in, split_named, splits_of


@pytest.mark.parametrize(
    ("split", "names"),
    [
        (
            "train",
            "train Train TRAINING trn train_set set-train trainset TrainSet training_data train2017 01_train "
            "trainval train+val images_train Train-Images",
        ),
        ("val", "val VALID validation valset val_set dev Dev-Set devset set.val val2017 validationSet"),
        (
            "test",
            "test Testing tst test_set testset TestData eval evaluation holdout hold-out held_out test02",
        ),
    ],
)
def test_names_that_are_splits(split: str, names: str) -> None:
    assert {name: split_named(name) for name in names.split()} == dict.fromkeys(names.split(), split)
    assert split_named("Test images (1)") == "test"
    assert split_named("ｔｅｓｔ") == "test"  # noqa: RUF001  (full-width letters)


@pytest.mark.parametrize(
    "name",
    ["latest", "contest", "trainer", "bullet train", "test tube", "invalid", "train_test", "dog", "", "7"],
)
def test_names_that_are_no_splits(name: str) -> None:
    assert split_named(name) is None


def test_a_split_in_a_longer_name_or_a_folder() -> None:
    assert split_in("imagenet1k-validation-00.tar") == "val"
    assert split_in("s3://b/contest/train/00000.tar") == "train"
    assert split_in("test/photos-train-0.tar") == "train"
    assert split_in("photos_trn_000.tar") == "train"
    assert split_in("test-and-train-0.tar") is None
    assert split_in("latest/photos-0.tar") is None
    assert rest_of("Cats_trainSet 3") == ("cats",)


def test_names_side_by_side_tell_more() -> None:
    assert splits_of(["train", "eval"]) == {"train": "train", "eval": "test"}
    assert splits_of(["train", "eval", "test"]) == {"train": "train", "eval": "val", "test": "test"}
    assert splits_of(["train", "val", "holdout"])["holdout"] == "test"
    rig = ["test-rig-train-0.tar", "test-rig-val-0.tar", "test-rig-holdout-0.tar"]
    assert list(splits_of(rig).values()) == ["train", "val", "test"]
    assert splits_of(["a/test-0.tar", "a/test-1.tar"]) == {"a/test-0.tar": "test", "a/test-1.tar": "test"}
    assert splits_of(["train/0.tar", "x/0.tar"]) == {"train/0.tar": "train", "x/0.tar": None}
    assert splits_of([]) == {}
