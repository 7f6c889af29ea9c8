"""The label of a sample is read from a field, from keys in JSON, or from a folder of the path."""

from __future__ import annotations

import pytest

from fourds_dist.data.pack.label_field import LabelField
from fourds_dist.data.pack.tar import TarFault
from tests.data.pack.tars import JPEG, index_of, tar_bytes


def test_labels_from_folders_of_the_tar() -> None:
    data = tar_bytes(
        [("./train/cat.v1/1.jpg", JPEG), ("./train/cat.v1/2.jpg", JPEG), ("./train/Ko\u0308ter/1.jpg", JPEG)]
    )
    index = index_of(data, label=LabelField.parse("path"))
    assert (index.classes, index.labels.tolist()) == (("K\u00f6ter", "cat.v1"), [1, 1, 0])
    assert index_of(data, label=LabelField.parse("path:0")).classes == ("train",)
    assert index_of(data, label=LabelField.parse("path:-2")).classes == ("train",)
    listed = index_of(data, label=LabelField.parse("path:1"), classes=["cat.v1", "x", "K\u00f6ter"])
    assert listed.labels.tolist() == [0, 0, 2]
    with pytest.raises(TarFault, match=r"its path has only the folders train/cat.v1, but --label path:2"):
        index_of(data, label=LabelField.parse("path:2"))
    with pytest.raises(TarFault, match="its path has no folder, but --label path:-1 takes"):
        index_of(tar_bytes([("a.jpg", JPEG)]), label=LabelField.parse("path"))
    with pytest.raises(TarFault, match=r"has no field 'cls'.*take the folder's name by --label path"):
        index_of(data)
    numbered = tar_bytes([(f"{n}/a.jpg", JPEG) for n in (10, 9, 2)])
    assert index_of(numbered, label=LabelField.parse("path")).classes == ("2", "9", "10")


@pytest.mark.parametrize("content", [b"1.0", b"+1", b"\xef\xbb\xbf1\r\n", b"001"])
def test_spellings_of_a_class_number(content: bytes) -> None:
    assert index_of(tar_bytes([("a.jpg", JPEG), ("a.cls", content)])).labels.tolist() == [1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"9" * 5000, "is not a class number, an integer from 0"),
        (b"3000000000", "is not a class number, an integer from 0"),
        (b"x" * (1 << 20) + b"y", "1048577 bytes, more than"),
    ],
)
def test_a_label_decides_on_no_size(content: bytes, message: str) -> None:
    with pytest.raises(TarFault, match=message):
        index_of(tar_bytes([("a.jpg", JPEG), ("a.cls", content)]))


def test_deep_json_is_a_fault() -> None:
    data = tar_bytes([("a.jpg", JPEG), ("a.json", b"[" * 100_000)])
    with pytest.raises(TarFault, match="the field is not JSON"):
        index_of(data, label=LabelField.parse("json:c"))


def test_label_fields_on_the_command_line() -> None:
    assert str(LabelField.parse("json:a/b")) == "json:a/b"
    assert LabelField.parse(".CLS") == LabelField("cls")
    assert str(LabelField.parse("path")) == "path:-1"
    assert LabelField.parse(".path") == LabelField("path")
    for wrong in ("", "json:", ":x", "a/b"):
        with pytest.raises(ValueError, match="expected FIELD"):
            LabelField.parse(wrong)
