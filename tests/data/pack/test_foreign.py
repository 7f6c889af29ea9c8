"""Foreign tars become datasets: any split, any label field, and an index is made once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fourds_dist.data.index import ShardIndex
from fourds_dist.data.manifest import MANIFEST, index_url, read_manifest
from fourds_dist.data.pack.foreign import Reading, index_foreign
from fourds_dist.data.pack.verify import verify
from tests.data.conftest import S3Server
from tests.data.tars import JPEG, samples, tar_bytes


def tars(folder: Path, **numbers: int) -> None:
    """NAME.tar with so many samples each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, number in numbers.items():
        (folder / f"{name.replace('_', '-')}.tar").write_bytes(tar_bytes(samples(number)))


def named(folder: Path, name: str, labels: list[str]) -> None:
    files = []
    for n, label in enumerate(labels):
        files += [(f"{n}.jpg", JPEG + bytes([n])), (f"{n}.txt", label.encode())]
    (folder / name).write_bytes(tar_bytes(files))


def labels_of(folder: Path, tar: str) -> list[int]:
    where = folder / f"{tar}.index"
    return ShardIndex.from_bytes(where.read_bytes(), str(where)).labels.tolist()


def test_a_folder_of_tars(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    tars(folder, train_0=7, train_1=5, val_0=4, test_0=1)
    done = index_foreign([str(folder)])
    assert done.manifest == read_manifest(str(folder))
    assert done.manifest.classes == ("0", "1", "2")
    assert {split: done.manifest.num_samples(split) for split in done.manifest.splits} == {
        "train": 12, "val": 4, "test": 1,
    }  # fmt: skip
    assert done.manifest.class_counts["train"] == (5, 4, 3)
    assert done.manifest.name == "old"
    assert (done.num_read, done.faults) == (4, ())
    assert labels_of(folder, "train-1.tar") == [0, 1, 2, 0, 1]
    assert verify(str(folder))[1] == []


def test_names_that_do_not_tell_are_for_training(tmp_path: Path) -> None:
    tars(tmp_path, part_0=2, val_0=3)
    manifest = index_foreign([str(tmp_path)]).manifest
    assert [shard.name for shard in manifest.splits["train"]] == ["part-0.tar"]
    assert manifest.num_samples("val") == 3
    assert manifest.notes["remarks"] == ["no split in the names of 1 tars, which count as train: part-0.tar"]
    tars(tmp_path / "other", part_0=2, part_1=2)
    manifest = index_foreign([f"{tmp_path}/other"]).manifest
    assert (set(manifest.splits), "remarks" in manifest.notes) == ({"train"}, False)


def test_an_index_is_made_once(tmp_path: Path) -> None:
    tars(tmp_path, a=3, b=3, c=3)
    index_foreign([str(tmp_path)])
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.index")}
    again = index_foreign([str(tmp_path)])
    assert again.num_read == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.index")} == times

    (tmp_path / "b.tar").write_bytes(tar_bytes(samples(3, begin=9)))  # of the same size
    os.utime(tmp_path / "b.tar", (1, 1))
    (tmp_path / "c.tar.index").write_bytes(b"harmed")
    changed = index_foreign([str(tmp_path)])
    assert changed.num_read == 2
    assert changed.manifest.fingerprint != again.manifest.fingerprint
    assert verify(str(tmp_path))[1] == []
    assert index_foreign([str(tmp_path)], reading=Reading(checksum=False)).num_read == 3


def test_further_splits_and_shards_that_are_gone(tmp_path: Path) -> None:
    tars(tmp_path, x_0=3, x_1=3, y_0=4)
    index_foreign([f"{tmp_path}/x-{{0..1}}.tar"], name="mine")
    done = index_foreign([f"{tmp_path}/y-*.tar"], split="test")
    assert done.manifest.name == "mine"
    assert list(done.manifest.splits) == ["train", "test"]
    assert done.manifest.class_counts["test"] == (2, 1, 1)
    (tmp_path / "x-1.tar").unlink()
    done = index_foreign([f"{tmp_path}/x-*.tar"], split="train")
    assert [shard.name for shard in done.manifest.splits["train"]] == ["x-0.tar"]
    assert done.manifest.num_samples("test") == 4


def test_sub_folders(tmp_path: Path) -> None:
    tars(tmp_path / "a", p=2)
    tars(tmp_path / "b", p=3)
    done = index_foreign([f"{tmp_path}/a", f"{tmp_path}/b/p.tar"])
    assert done.url == str(tmp_path)
    assert [shard.name for shard in done.manifest.splits["train"]] == ["a/p.tar", "b/p.tar"]
    assert (tmp_path / "b/p.tar.index").exists()
    assert verify(str(tmp_path))[1] == []


def test_a_manifest_elsewhere(tmp_path: Path) -> None:
    tars(tmp_path / "read-only/a", p=2)
    tars(tmp_path / "read-only/b", p=3)
    before = sorted((tmp_path / "read-only").rglob("*"))
    to = str(tmp_path / "mine")
    done = index_foreign([f"{tmp_path}/read-only/a", f"{tmp_path}/read-only/b"], to=to)
    assert sorted((tmp_path / "read-only").rglob("*")) == before
    for shard in done.manifest.splits["train"]:
        assert shard.name.startswith(f"{tmp_path}/read-only/")
        assert Path(index_url(to, shard.name)).parent == tmp_path / "mine"
        assert Path(index_url(to, shard.name)).exists()
    assert verify(to)[1] == []
    assert index_foreign([f"{tmp_path}/read-only/a", f"{tmp_path}/read-only/b"], to=to).num_read == 0


def test_names_of_classes_are_numbered_over_all_tars(tmp_path: Path) -> None:
    named(tmp_path, "0.tar", ["zebra", "ape"])
    named(tmp_path, "1.tar", ["köter", "zebra", "zebra"])
    reading = Reading(label="txt")
    done = index_foreign([str(tmp_path)], reading=reading)
    assert done.manifest.classes == ("ape", "köter", "zebra")
    assert done.manifest.class_counts["train"] == (1, 1, 3)
    assert (labels_of(tmp_path, "0.tar"), labels_of(tmp_path, "1.tar")) == ([2, 0], [1, 2, 2])
    assert verify(str(tmp_path))[1] == []

    named(tmp_path, "2.tar", ["bat"])  # moves the others' numbers
    again = index_foreign([str(tmp_path)], reading=reading)
    assert again.num_read == 1
    assert again.manifest.classes == ("ape", "bat", "köter", "zebra")
    assert (labels_of(tmp_path, "0.tar"), labels_of(tmp_path, "2.tar")) == ([3, 0], [1])
    assert verify(str(tmp_path))[1] == []

    (tmp_path / "2.tar").unlink()
    gone = index_foreign([str(tmp_path)], reading=reading)
    assert gone.manifest.classes == ("ape", "köter", "zebra")
    assert labels_of(tmp_path, "0.tar") == [2, 0]
    assert verify(str(tmp_path))[1] == []


def test_a_class_list_orders_and_binds(tmp_path: Path) -> None:
    named(tmp_path, "0.tar", ["zebra", "ape"])
    reading = Reading(label="txt")
    done = index_foreign([str(tmp_path)], reading=reading, classes=("zebra", "none", "ape"))
    assert done.manifest.class_counts["train"] == (1, 0, 1)
    with pytest.raises(ValueError, match="is a 'ape', which the class list lacks"):
        index_foreign([str(tmp_path)], reading=reading, classes=("zebra",))
    named(tmp_path, "val-0.tar", ["cat"])
    with pytest.raises(ValueError, match="is a 'cat', which the class list lacks"):
        index_foreign([f"{tmp_path}/val-0.tar"], split="val", reading=reading)
    with pytest.raises(ValueError, match="has other classes"):
        index_foreign([f"{tmp_path}/val-0.tar"], split="val", reading=reading, classes=("cat",))


def test_faulty_tars(tmp_path: Path) -> None:
    tars(tmp_path, a=5, b=5)
    whole = (tmp_path / "b.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[:9000])
    with pytest.raises(ValueError, match=r"b\.tar, .*ends at byte 9000"):
        index_foreign([str(tmp_path)])
    assert not (tmp_path / MANIFEST).exists()
    for _ in range(2):  # what is left out is told every time
        done = index_foreign([str(tmp_path)], reading=Reading(skip_bad=True))
        assert {fault.kind for fault in done.faults} == {"cut", "beside damage"}
        assert done.manifest.num_samples("train") == 5 + 3
    assert verify(str(tmp_path))[1] == []


def test_labels_that_do_not_go_together(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(tar_bytes([("a.jpg", JPEG), ("a.json", b'{"c": 1}')]))
    (tmp_path / "1.tar").write_bytes(tar_bytes([("a.jpg", JPEG), ("a.json", b'{"c": "dog"}')]))
    with pytest.raises(ValueError, match=r"0\.tar has class numbers where other tars have names \('dog'\)"):
        index_foreign([str(tmp_path)], reading=Reading(label="json:c"))
    (tmp_path / "1.tar").unlink()
    (tmp_path / "0.tar").write_bytes(tar_bytes([("a.jpg", JPEG)]))
    with pytest.raises(ValueError, match="no sample has a label; give the class list"):
        index_foreign([str(tmp_path)], reading=Reading(unlabelled=True))
    done = index_foreign([str(tmp_path)], reading=Reading(unlabelled=True), classes=("a", "b"))
    assert done.manifest.class_counts["train"] == (0, 0)


def test_urls_that_match_nothing(tmp_path: Path) -> None:
    tars(tmp_path / "d", a=1)
    for url, message in (
        (f"{tmp_path}/none", "none: no such folder"),
        (f"{tmp_path}/d/b-*.tar", "no shards match .*b-.*holds 1 tars, first a.tar"),
        (f"{tmp_path}/d/x.tar", "no shards match"),
        (str(tmp_path), "no shards match .* holds d"),
    ):
        with pytest.raises(ValueError, match=message):
            index_foreign([url])
    with pytest.raises(ValueError, match=r"a\.tar is given twice"):
        index_foreign([f"{tmp_path}/d", f"{tmp_path}/d/a.tar"])


def test_an_object_store(s3_server: S3Server) -> None:
    url = s3_server.new_bucket() + "/old"
    tars(s3_server.path(url), train_000=30, train_001=20, val_000=9)
    done = index_foreign([f"{url}/train-{{000..001}}.tar"])
    assert done.manifest.num_samples("train") == 50
    assert index_foreign([f"{url}/val-*.tar"], split="val").num_read == 1
    assert index_foreign([url]).num_read == 0
    assert verify(url)[1] == []
