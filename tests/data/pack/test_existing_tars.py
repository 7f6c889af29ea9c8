"""Existing tars become datasets: any split, any label field, and an index is made once."""

from __future__ import annotations

import io
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fourds_dist.data.format.index import ShardIndex
from fourds_dist.data.format.manifest import MANIFEST, index_url, read_manifest, write_manifest
from fourds_dist.data.pack.existing_tars import TarReadOptions, index_existing_tars
from fourds_dist.data.pack.verify import verify
from tests.data.conftest import S3Server
from tests.data.pack.tars import JPEG, samples, tar_bytes
from tests.data.shards import write_dataset
from tests.rights import privileged, unprivileged


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
    done = index_existing_tars([str(folder)])
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
    tars(tmp_path, part_0=2)
    (tmp_path / "val-0.tar").write_bytes(tar_bytes(samples(3, begin=2)))
    manifest = index_existing_tars([str(tmp_path)]).manifest
    assert [shard.name for shard in manifest.splits["train"]] == ["part-0.tar"]
    assert manifest.num_samples("val") == 3
    assert manifest.notes["remarks"] == ["no split in the names of 1 tars, which count as train: part-0.tar"]
    tars(tmp_path / "other", part_0=2)
    (tmp_path / "other" / "part-1.tar").write_bytes(tar_bytes(samples(2, begin=2)))
    manifest = index_existing_tars([f"{tmp_path}/other"]).manifest
    assert (set(manifest.splits), "remarks" in manifest.notes) == ({"train"}, False)


def test_a_name_of_a_class_is_no_split(tmp_path: Path) -> None:
    for name, label in (("bus-0.tar", 0), ("freight-train-0.tar", 1), ("test_tubes-0.tar", 2)):
        numbered(tmp_path, name, [label] * 4)
    words = r"test_tubes-0\.tar counts as test by its name.* train lacks \(2\): .* give --split train"
    with pytest.raises(ValueError, match=words):
        index_existing_tars([str(tmp_path)])
    assert not (tmp_path / MANIFEST).exists()
    manifest = index_existing_tars([str(tmp_path)], split="train").manifest
    assert manifest.class_counts == {"train": (4, 4, 4)}


def test_an_index_is_made_once(tmp_path: Path) -> None:
    tars(tmp_path, a=3, b=3, c=3)
    index_existing_tars([str(tmp_path)])
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.index")}
    again = index_existing_tars([str(tmp_path)])
    assert again.num_read == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.index")} == times

    (tmp_path / "b.tar").write_bytes(tar_bytes(samples(3, begin=9)))  # of the same size
    os.utime(tmp_path / "b.tar", (1, 1))
    (tmp_path / "c.tar.index").write_bytes(b"harmed")
    changed = index_existing_tars([str(tmp_path)])
    assert changed.num_read == 2
    assert changed.manifest.fingerprint != again.manifest.fingerprint
    assert verify(str(tmp_path))[1] == []
    assert index_existing_tars([str(tmp_path)], reading=TarReadOptions(checksum=False)).num_read == 3


def test_further_splits_and_shards_that_are_gone(tmp_path: Path) -> None:
    tars(tmp_path, x_0=3, x_1=3, y_0=4)
    index_existing_tars([f"{tmp_path}/x-{{0..1}}.tar"], name="mine")
    done = index_existing_tars([f"{tmp_path}/y-*.tar"], split="test")
    assert done.manifest.name == "mine"
    assert list(done.manifest.splits) == ["train", "test"]
    assert done.manifest.class_counts["test"] == (2, 1, 1)
    (tmp_path / "x-1.tar").unlink()
    done = index_existing_tars([f"{tmp_path}/x-*.tar"], split="train")
    assert [shard.name for shard in done.manifest.splits["train"]] == ["x-0.tar"]
    assert done.manifest.num_samples("test") == 4


def test_sub_folders(tmp_path: Path) -> None:
    tars(tmp_path / "a", p=2)
    tars(tmp_path / "b", p=3)
    done = index_existing_tars([f"{tmp_path}/a", f"{tmp_path}/b/p.tar"])
    assert done.url == str(tmp_path)
    assert [shard.name for shard in done.manifest.splits["train"]] == ["a/p.tar", "b/p.tar"]
    assert (tmp_path / "b/p.tar.index").exists()
    assert verify(str(tmp_path))[1] == []


def test_a_manifest_elsewhere(tmp_path: Path) -> None:
    tars(tmp_path / "read-only/a", p=2)
    tars(tmp_path / "read-only/b", p=3)
    before = sorted((tmp_path / "read-only").rglob("*"))
    to = str(tmp_path / "mine")
    done = index_existing_tars([f"{tmp_path}/read-only/a", f"{tmp_path}/read-only/b"], to=to)
    assert sorted((tmp_path / "read-only").rglob("*")) == before
    for shard in done.manifest.splits["train"]:
        assert shard.name.startswith(f"{tmp_path}/read-only/")
        assert Path(index_url(to, shard.name)).parent == tmp_path / "mine"
        assert Path(index_url(to, shard.name)).exists()
    assert verify(to)[1] == []
    assert index_existing_tars([f"{tmp_path}/read-only/a", f"{tmp_path}/read-only/b"], to=to).num_read == 0


def test_names_of_classes_are_numbered_over_all_tars(tmp_path: Path) -> None:
    named(tmp_path, "0.tar", ["zebra", "ape"])
    named(tmp_path, "1.tar", ["köter", "zebra", "zebra"])
    reading = TarReadOptions(label="txt")
    done = index_existing_tars([str(tmp_path)], reading=reading)
    assert done.manifest.classes == ("ape", "köter", "zebra")
    assert done.manifest.class_counts["train"] == (1, 1, 3)
    assert (labels_of(tmp_path, "0.tar"), labels_of(tmp_path, "1.tar")) == ([2, 0], [1, 2, 2])
    assert verify(str(tmp_path))[1] == []

    named(tmp_path, "2.tar", ["bat"])  # moves the others' numbers
    again = index_existing_tars([str(tmp_path)], reading=reading)
    assert again.num_read == 1
    assert again.manifest.classes == ("ape", "bat", "köter", "zebra")
    assert (labels_of(tmp_path, "0.tar"), labels_of(tmp_path, "2.tar")) == ([3, 0], [1])
    assert verify(str(tmp_path))[1] == []

    (tmp_path / "2.tar").unlink()
    gone = index_existing_tars([str(tmp_path)], reading=reading)
    assert gone.manifest.classes == ("ape", "köter", "zebra")
    assert labels_of(tmp_path, "0.tar") == [2, 0]
    assert verify(str(tmp_path))[1] == []


def test_a_class_list_orders_and_binds(tmp_path: Path) -> None:
    named(tmp_path, "0.tar", ["zebra", "ape"])
    reading = TarReadOptions(label="txt")
    done = index_existing_tars([str(tmp_path)], reading=reading, classes=("zebra", "none", "ape"))
    assert done.manifest.class_counts["train"] == (1, 0, 1)
    with pytest.raises(ValueError, match="is a 'ape', which the class list lacks"):
        index_existing_tars([str(tmp_path)], reading=reading, classes=("zebra",))
    named(tmp_path, "val-0.tar", ["cat"])
    with pytest.raises(ValueError, match="is a 'cat', which the class list lacks"):
        index_existing_tars([f"{tmp_path}/val-0.tar"], split="val", reading=reading)
    with pytest.raises(ValueError, match="has other classes"):
        index_existing_tars([f"{tmp_path}/val-0.tar"], split="val", reading=reading, classes=("cat",))


def test_faulty_tars(tmp_path: Path) -> None:
    tars(tmp_path, a=5, b=5)
    whole = (tmp_path / "b.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[:9000])
    with pytest.raises(ValueError, match=r"b\.tar, .*ends at byte 9000"):
        index_existing_tars([str(tmp_path)])
    assert not (tmp_path / MANIFEST).exists()
    for _ in range(2):  # samples that are left out are reported every time
        done = index_existing_tars([str(tmp_path)], reading=TarReadOptions(skip_bad=True))
        assert {fault.kind for fault in done.faults} == {"cut", "beside damage"}
        assert done.manifest.num_samples("train") == 5 + 3
    assert verify(str(tmp_path))[1] == []


def test_labels_that_do_not_go_together(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(tar_bytes([("a.jpg", JPEG), ("a.json", b'{"c": 1}')]))
    (tmp_path / "1.tar").write_bytes(tar_bytes([("a.jpg", JPEG), ("a.json", b'{"c": "dog"}')]))
    with pytest.raises(
        ValueError, match=r"0\.tar has class numbers, but other tars have class names \('dog'\)"
    ):
        index_existing_tars([str(tmp_path)], reading=TarReadOptions(label="json:c"))
    (tmp_path / "1.tar").unlink()
    (tmp_path / "0.tar").write_bytes(tar_bytes([("a.jpg", JPEG)]))
    with pytest.raises(ValueError, match="no sample has a label; give the class list"):
        index_existing_tars([str(tmp_path)], reading=TarReadOptions(unlabelled=True))
    done = index_existing_tars([str(tmp_path)], reading=TarReadOptions(unlabelled=True), classes=("a", "b"))
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
            index_existing_tars([url])
    with pytest.raises(ValueError, match=r"a\.tar is given twice"):
        index_existing_tars([f"{tmp_path}/d", f"{tmp_path}/d/a.tar"])


def test_an_object_store(s3_server: S3Server, tmp_path: Path) -> None:
    url = s3_server.new_bucket() + "/old"
    tars(tmp_path, train_000=30, train_001=20, val_000=9)
    s3_server.upload(tmp_path, url)
    done = index_existing_tars([f"{url}/train-{{000..001}}.tar"])
    assert done.manifest.num_samples("train") == 50
    assert index_existing_tars([f"{url}/val-*.tar"], split="val").num_read == 1
    assert index_existing_tars([url]).num_read == 0
    assert verify(url)[1] == []


def numbered(folder: Path, name: str, labels: list[int]) -> None:
    files = []
    for n, label in enumerate(labels):
        files += [(f"{n}.jpg", JPEG + bytes([n])), (f"{n}.cls", b"%d" % label)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(tar_bytes(files))


def named_labels(folder: Path, tar: str) -> list[str | None]:
    classes = read_manifest(str(folder)).classes
    return [None if label < 0 else classes[label] for label in labels_of(folder, tar)]


BY_TEXT = tuple(sorted(map(str, range(12))))  # 0, 1, 10, 11, 2, ...


@pytest.mark.parametrize("first", [None, BY_TEXT, tuple("abcdefghijkl")])
def test_numbers_in_a_list_of_numbers_are_names(tmp_path: Path, first: tuple[str, ...] | None) -> None:
    numbered(tmp_path, "0.tar", list(range(12)))
    index_existing_tars([str(tmp_path)], classes=first)  # whatever index is there already
    done = index_existing_tars([str(tmp_path)], classes=BY_TEXT)
    assert done.manifest.classes == BY_TEXT
    assert named_labels(tmp_path, "0.tar") == list(map(str, range(12)))
    assert verify(str(tmp_path))[1] == []
    assert index_existing_tars([str(tmp_path)]).manifest.classes == BY_TEXT  # the list was given once
    done = index_existing_tars([str(tmp_path)], classes=tuple("abcdefghijkl"))
    assert named_labels(tmp_path, "0.tar") == list("abcdefghijkl")
    assert verify(str(tmp_path))[1] == []


def test_a_list_of_some_of_the_numbers(tmp_path: Path) -> None:
    numbered(tmp_path, "0.tar", [0, 1, 2, 3])
    with pytest.raises(ValueError, match="sample '0' is a '0', which the class list lacks"):
        index_existing_tars([str(tmp_path)], classes=("2", "3"))
    done = index_existing_tars([str(tmp_path)], classes=("2", "3"), reading=TarReadOptions(skip_bad=True))
    assert len(done.faults) == 2
    assert named_labels(tmp_path, "0.tar") == ["2", "3"]


def test_minus_one_is_a_class_if_the_list_has_it(tmp_path: Path) -> None:
    numbered(tmp_path, "0.tar", [-1, 1, 1])
    with pytest.raises(ValueError, match="the only label is 1, and 1 images have none"):
        index_existing_tars([str(tmp_path)])
    index_existing_tars([str(tmp_path)], classes=("-1", "1"))
    assert named_labels(tmp_path, "0.tar") == ["-1", "1", "1"]
    assert verify(str(tmp_path))[1] == []
    index_existing_tars([str(tmp_path)], classes=("a", "b"))
    assert named_labels(tmp_path, "0.tar") == [None, "b", "b"]


def test_labels_that_are_codes_or_ids(tmp_path: Path) -> None:
    numbered(tmp_path, "0.tar", [4711] * 5)
    numbered(tmp_path, "1.tar", [8150] * 5 + [2147483647])
    with pytest.raises(ValueError, match=r"sample '5' of .*/1\.tar: the class number 2147483647 would make"):
        index_existing_tars([str(tmp_path)])
    assert not (tmp_path / MANIFEST).exists()
    codes = ("8150", "4711", "2147483647")
    assert index_existing_tars([str(tmp_path)], classes=codes).manifest.class_counts["train"] == (5, 5, 1)
    assert verify(str(tmp_path))[1] == []
    numbered(tmp_path / "ids", "0.tar", list(range(60)))
    with pytest.raises(
        ValueError,
        match=r"/ids has 60 .* ids, not classes; name another field by --label, or name the classes",
    ):
        index_existing_tars([str(tmp_path / "ids")], to=str(tmp_path / "elsewhere"))


def test_numbers_as_json_numbers_and_text(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(tar_bytes([("a.jpg", JPEG), ("a.json", b'{"c": 1}')]))
    (tmp_path / "1.tar").write_bytes(tar_bytes([("a.jpg", JPEG), ("a.json", b'{"c": "03"}')]))
    done = index_existing_tars([str(tmp_path)], reading=TarReadOptions(label="json:c"))
    assert done.manifest.classes == ("0", "1", "2", "3")
    assert [labels_of(tmp_path, f"{n}.tar") for n in (0, 1)] == [[1], [3]]


@pytest.mark.parametrize("unlabelled", [False, True])
def test_faults_never_leave_a_set_without_labels(tmp_path: Path, unlabelled: bool) -> None:
    images, labels = [(f"{n}.jpg", JPEG) for n in range(9)], [(f"{n}.cls", b"1") for n in range(9)]
    (tmp_path / "0.tar").write_bytes(tar_bytes(images + labels))
    reading = TarReadOptions(skip_bad=True, unlabelled=unlabelled)
    with pytest.raises(
        ValueError, match=r"no sample is left; \d+ faults were skipped, the first: .*--sort=name"
    ):
        index_existing_tars([str(tmp_path)], reading=reading, classes=("a", "b"))
    assert not (tmp_path / MANIFEST).exists()


def test_a_packed_folder_keeps_its_classes(tmp_path: Path) -> None:
    classes = ("10", "2", "0")
    write_dataset(tmp_path / "ours", [3, 3], classes=classes)
    manifest = read_manifest(str(tmp_path / "ours"))
    write_manifest(str(tmp_path / "ours"), replace(manifest, notes={"packing": {}}))
    for index in (tmp_path / "ours").glob("*.index"):
        index.unlink()
    again = index_existing_tars([str(tmp_path / "ours")]).manifest
    assert (again.classes, again.class_counts) == (classes, manifest.class_counts)
    assert verify(str(tmp_path / "ours"))[1] == []
    with pytest.raises(ValueError, match=r"has other classes .*pack it again"):
        index_existing_tars([str(tmp_path / "ours")], classes=("0", "2", "10"))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as name, unprivileged():
        folder = Path(name)
        with privileged():
            tars(folder, a=3)
            folder.chmod(0o555)
        with pytest.raises(
            ValueError, match=r"cannot be written .*; give a folder for the manifest .* by --to DEST"
        ):
            index_existing_tars([name])
        with tempfile.TemporaryDirectory() as mine:
            assert index_existing_tars([name], to=mine).manifest.num_samples("train") == 3
        with privileged():
            folder.chmod(0o755)


def test_images_that_are_left_out_are_reported(tmp_path: Path) -> None:
    members = [
        (f"{n}.{x}", data)
        for n in range(3)
        for x, data in (("jpg", JPEG), ("png", b"\x89PNG"), ("cls", b"0"))
    ]
    (tmp_path / "train-0.tar").write_bytes(
        tar_bytes([*members[:-3], ("2.jpg", JPEG + b"2"), ("2.cls", b"0")])
    )
    remarks = index_existing_tars([str(tmp_path)]).manifest.notes["remarks"]
    assert "more images than the one that is used: 2 png; to use another one, give --image png" in remarks[0]


def test_images_of_several_frames_are_counted_and_stay_so(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (8, 8), (100 * n, 0, 0)) for n in range(3)]
    members: list[tuple[str, bytes]] = []
    for form, extension in (("GIF", "gif"), ("TIFF", "tif"), ("PNG", "png"), ("WEBP", "webp")):
        for several in (False, True):
            out = io.BytesIO()
            pages[0].save(out, form, **({"save_all": True, "append_images": pages[1:]} if several else {}))
            key = f"{extension}-{several}"
            members += [(f"{key}.{extension}", out.getvalue()), (f"{key}.cls", b"0")]
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.tar").write_bytes(tar_bytes(members))
    for num_read in (1, 0):  # read, and then known from the index
        indexed = index_existing_tars([str(tmp_path / "set")])
        assert indexed.num_read == num_read
        remarks = [text for text in indexed.manifest.notes["remarks"] if "several frames" in text]
        assert len(remarks) == 1
        assert "stacks of pages): 4 (first: gif-True); the first frame of each is taken" in remarks[0]
