"""Images from folders and shards: labels by name, nothing lost silently."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from fourds_dist.data.stream.preprocessing import Preprocessing
from fourds_dist.inference.images import ShardImages, open_files, open_labelled
from tests.data.shards import numbers_in, write_dataset

PLAIN = Preprocessing(8, 8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def folder_of(root: Path, names: list[str]) -> Path:
    for shade, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10, 10), (40 * shade, 0, 0)).save(path)
    return root


def test_a_folder_s_labels_are_the_student_s_not_the_alphabet_s(tmp_path: Path) -> None:
    folder_of(tmp_path, ["bee/1.png", "ant/1.png", "ant/2.png"])
    images = open_labelled(str(tmp_path), ("bee", "ant"))
    (batch,) = images.batches(PLAIN)
    assert batch.labels.tolist() == [1, 1, 0]
    assert batch.pixels[:, 0, 0, 0].tolist() == [40, 80, 0]


def test_unknown_classes_and_flat_folders_are_refused(tmp_path: Path) -> None:
    folder_of(tmp_path, ["cow/1.png"])
    with pytest.raises(ValueError, match="no class 'cow'"):
        open_labelled(str(tmp_path), ("bee", "ant"))
    with pytest.raises(ValueError, match="no sub-folders"):
        open_labelled(str(tmp_path / "cow"), ("bee", "ant"))
    with pytest.raises(ValueError, match="nothing there"):
        open_labelled(str(tmp_path / "none"), ("bee", "ant"))


def test_unreadable_files_are_counted(tmp_path: Path) -> None:
    folder_of(tmp_path, ["a.png", "c.png"])
    (tmp_path / "b.png").write_bytes(b"no image")
    images = open_files([tmp_path])
    batches = list(images.batches(PLAIN, batch_size=2))
    assert [Path(name).name for b in batches for name in b.names] == ["a.png", "c.png"]
    assert [path.name for path in images.unreadable] == ["b.png"]
    (tmp_path / "b.png").unlink()
    (tmp_path / "b.png").symlink_to("/nowhere/b.png")
    images = open_files([tmp_path])
    assert len(list(images.batches(PLAIN))) == 1
    assert images.unreadable == {tmp_path / "b.png": "a link to /nowhere/b.png, which does not exist"}


def test_a_choice_of_shards_is_even_and_the_whole_is_in_order(tmp_path: Path) -> None:
    url = write_dataset(tmp_path / "set", [30, 30, 41])
    whole = open_labelled(url, ("ant", "bee", "cat"))
    assert isinstance(whole, ShardImages)
    pixels = torch.cat([batch.pixels for batch in whole.batches(PLAIN, batch_size=16)])
    assert numbers_in(pixels) == list(range(101))
    thin = torch.cat([batch.pixels for batch in whole.thinned(5).batches(PLAIN)])
    assert numbers_in(thin) == [0, 25, 50, 75, 100]


def test_other_classes_in_shards_are_refused(tmp_path: Path) -> None:
    url = write_dataset(tmp_path / "set", [6])
    with pytest.raises(ValueError, match=r"has the classes ant, bee, cat, the student bee, ant, cat"):
        open_labelled(url, ("bee", "ant", "cat"))


def test_images_that_are_left_out_are_reported(tmp_path: Path) -> None:
    folder_of(tmp_path, ["a.png", "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg"])
    (tmp_path / "b.HEIC").touch()
    images = open_files([tmp_path])
    assert [path.name for path in images.paths] == ["a.png"]
    assert "1 .heic (HEIC)" in images.left_out[0]
    assert "1 @eaDir" in images.left_out[1]


def test_names_in_the_other_unicode_form_are_the_student_s(tmp_path: Path) -> None:
    folder_of(tmp_path, ["ko\u0308ter/1.png", "bee/1.png"])
    for classes in (("köter", "bee"), ("ko\u0308ter", "bee")):
        images = open_labelled(str(tmp_path), classes)
        assert list(images.labels) == [1, 0]


def test_of_a_folder_of_splits_the_one_asked_for_is_taken(tmp_path: Path) -> None:
    folder_of(tmp_path, ["Training/bee/1.png", "Training/ant/1.png", "test_set/ant/2.png"])
    images = open_labelled(str(tmp_path), ("bee", "ant"))
    assert ([path.name for path in images.paths], list(images.labels)) == (["2.png"], [1])
    assert open_labelled(str(tmp_path), ("bee", "ant"), "train").num_images == 2
    with pytest.raises(ValueError, match="has the splits test, train, not val; give --split"):
        open_labelled(str(tmp_path), ("bee", "ant"), "val")


def test_a_url_is_not_a_file() -> None:
    with pytest.raises(
        ValueError, match=r"s3://b/x\.jpg: images are read from this machine's disks.*`fourds evaluate`"
    ):
        open_files(["s3://b/x.jpg"])


def test_files_with_several_frames_are_reported(tmp_path: Path) -> None:
    folder_of(tmp_path, ["a.png", "b.jpg"])
    frame = Image.new("RGB", (8, 8), "red")
    frame.save(tmp_path / "stack.tif", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    images = open_files([tmp_path])
    assert sum(len(batch.names) for batch in images.batches(PLAIN)) == 3
    (line,) = images.left_out
    assert f"1 (first: {tmp_path}/stack.tif); the first frame of each is taken" in line


def test_folders_with_numeric_names_are_reported_as_class_indices(tmp_path: Path) -> None:
    folder_of(tmp_path, ["1/a.png", "0/b.png"])
    images = open_labelled(str(tmp_path), ("bee", "ant"))
    assert "read as indices of the student's classes, from 0: 0 is bee" in images.left_out[0]
    assert open_labelled(str(tmp_path), ("1", "0")).left_out == ()
