"""The manifest: equal after a round trip, and every kind of wrong one is refused with a remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourds_dist.data.format.manifest import (
    MANIFEST,
    Manifest,
    Shard,
    format_manifest,
    index_url,
    parse_manifest,
    read_manifest,
    shard_url,
    write_manifest,
)
from fourds_dist.io.extras import fix
from tests.data.conftest import S3Server, forget_connections

PHOTOS = Manifest(
    "photos",
    ("big dog", "köter", "猫"),
    {"train": (Shard("train-00000.tar", 7, 9000, "a" * 64), Shard("b/x.tar", 2, 10, None)), "test": ()},
    {"train": (3, 2, 1), "test": (0, 0, 0)},
    {"origin": "a test", "nested": {"n": [1, 2.5, None]}},
)


def test_a_round_trip(tmp_path: Path) -> None:
    write_manifest(f"{tmp_path}/new/photos", PHOTOS)
    assert read_manifest(f"{tmp_path}/new/photos/") == PHOTOS
    assert [p.name for p in (tmp_path / "new/photos").iterdir()] == [MANIFEST]


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.sets(names, min_size=1, max_size=4), st.lists(st.integers(0, 10**12), max_size=3), names)
def test_any_names_and_sizes_survive(classes: set[str], sizes: list[int], name: str) -> None:
    shards = tuple(Shard(f"{n}.tar", size, size, None) for n, size in enumerate(sizes))
    manifest = Manifest(name, tuple(classes), {"val": shards}, {"val": (0,) * len(classes)}, {name: name})
    assert parse_manifest(format_manifest(manifest), "m") == manifest


def test_the_fingerprint_is_the_data_s() -> None:
    same = replace(PHOTOS, name="other", notes={})
    assert same.fingerprint == PHOTOS.fingerprint
    assert len(PHOTOS.fingerprint) == 16
    first, second = PHOTOS.splits["train"]
    others = [
        replace(PHOTOS, classes=("köter", "big dog", "猫")),
        replace(PHOTOS, splits={**PHOTOS.splits, "train": (second, first)}),
        replace(PHOTOS, splits={"val": PHOTOS.splits["train"], "test": ()}),
        *(
            replace(PHOTOS, splits={**PHOTOS.splits, "train": (replace(first, **change), second)})
            for change in ({"name": "c.tar"}, {"num_samples": 8}, {"num_bytes": 9001}, {"sha256": "b" * 64})
        ),
    ]
    assert len({PHOTOS.fingerprint, *(other.fingerprint for other in others)}) == len(others) + 1


def changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    content = json.loads(format_manifest(PHOTOS))
    change(content)
    return json.dumps(content).encode()


WRONG: dict[str, tuple[bytes, str]] = {
    "truncated": (format_manifest(PHOTOS)[:-40], "truncated or not JSON"),
    "empty": (b"", "truncated or not JSON"),
    "binary": (b"\x93NUMPY\x01\x00", "truncated or not JSON"),
    "a list": (b"[1, 2]", "has no format number"),
    "another program's": (b'{"name": "x"}', "has no format number"),
    "newer": (changed(lambda c: c.update(format=2)), "newer fourds_dist wrote the file; update"),
    "older": (changed(lambda c: c.update(format=0)), "pack the data again"),
    "no classes": (changed(lambda c: c.update(classes=[])), "at least one"),
    "classes that are numbers": (changed(lambda c: c.update(classes=[1, 2, 3])), "list of names"),
    "a class twice": (changed(lambda c: c.update(classes=["a", "b", "a"])), "class 'a' is listed twice"),
    "an unknown split": (
        changed(lambda c: c["splits"].update(dev=c["splits"].pop("train"))),
        "unknown split 'dev'",
    ),
    "a shard twice": (
        changed(lambda c: c["splits"]["train"]["shards"][1].update(name="train-00000.tar")),
        "shard 'train-00000.tar' is listed twice",
    ),
    "a shard outside": (
        changed(lambda c: c["splits"]["train"]["shards"][1].update(name="../x.tar")),
        "not a valid shard name",
    ),
    "a negative count": (
        changed(lambda c: c["splits"]["train"]["shards"][1].update(num_samples=-1)),
        "has -1 samples",
    ),
    "counts of too few classes": (
        changed(lambda c: c["splits"]["train"].update(class_counts=[1, 2])),
        "2 class counts for 3 classes",
    ),
    "a negative class count": (
        changed(lambda c: c["splits"]["train"].update(class_counts=[1, 2, -1])),
        "a class count that is not a whole number from 0",
    ),
    "more labels than samples": (
        changed(lambda c: c["splits"]["train"].update(class_counts=[9, 9, 9])),
        "27 labels on 9 samples",
    ),
    "an edited count": (
        changed(lambda c: c["splits"]["train"]["shards"][0].update(num_samples=70)),
        "its fingerprint is",
    ),
    "a missing key": (changed(lambda c: c.pop("splits")), "inconsistent: KeyError"),
    "an unknown key of a shard": (
        changed(lambda c: c["splits"]["train"]["shards"][0].update(colour=1)),
        "inconsistent: TypeError",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_manifests_are_refused(tmp_path: Path, name: str) -> None:
    data, message = WRONG[name]
    (tmp_path / MANIFEST).write_bytes(data)
    with pytest.raises(ValueError, match=message) as error:
        read_manifest(str(tmp_path))
    assert f"{tmp_path}/{MANIFEST}" in str(error.value)


def test_a_folder_without_a_manifest_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere: no such folder; check the address, or pack"):
        read_manifest(f"{tmp_path}/nowhere")
    with pytest.raises(ValueError, match="it is empty"):
        read_manifest(str(tmp_path))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"it holds notes\.txt"):
        read_manifest(str(tmp_path))
    with pytest.raises(ValueError, match=r"is a file; give the folder"):
        read_manifest(f"{tmp_path}/notes.txt")
    (tmp_path / "000.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=rf"1 tars but no .*`python -m fourds_dist.pack index {tmp_path}`"):
        read_manifest(str(tmp_path))
    (tmp_path / "packing.json").write_text("{}")
    with pytest.raises(ValueError, match="a packing that did not finish; run the same"):
        read_manifest(str(tmp_path))


def test_what_is_no_manifest_is_not_written(tmp_path: Path) -> None:
    for wrong, message in (
        (replace(PHOTOS, notes={"path": tmp_path}), "notes of 'photos' are not JSON"),
        (replace(PHOTOS, notes={"nan": float("nan")}), "notes of 'photos' are not JSON"),
        (replace(PHOTOS, class_counts={"train": (1,), "test": (0, 0, 0)}), "1 class counts for 3 classes"),
        (replace(PHOTOS, name="\udcff"), "is not valid text"),
    ):
        with pytest.raises(ValueError, match=message):
            write_manifest(str(tmp_path), wrong)
    assert list(tmp_path.iterdir()) == []


def test_shards_elsewhere_keep_their_index_beside_the_manifest() -> None:
    assert shard_url("s3://b/photos/", "a/x.tar") == "s3://b/photos/a/x.tar"
    assert index_url("s3://b/photos/", "a/x.tar") == "s3://b/photos/a/x.tar.index"
    assert shard_url("here", "s3://b/a/x.tar") == "s3://b/a/x.tar"
    one, two = index_url("here", "s3://b/a/x.tar"), index_url("here", "/disk/x.tar")
    assert one.startswith("here/x.tar.")
    assert two.startswith("here/x.tar.")
    assert one != two


def test_stores_without_a_driver() -> None:
    with pytest.raises(ValueError, match=f"gs://b/x.*{re.escape(fix('gcs'))}"):
        read_manifest("gs://b/x")
    with pytest.raises(ValueError, match=r"foo://b/x.*Protocol not known"):
        read_manifest("foo://b/x")


def test_an_object_store(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{s3_server.new_bucket()}/photos"
    with pytest.raises(ValueError, match=f"{url}: no such folder"):
        read_manifest(url)
    write_manifest(url, PHOTOS)
    assert read_manifest(url) == PHOTOS

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong" * 5)
    forget_connections()
    with pytest.raises(
        ValueError, match=rf"{url}/{MANIFEST}: access denied.*AWS_ACCESS_KEY_ID or AWS_PROFILE"
    ):
        read_manifest(url)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    forget_connections()
    with pytest.raises(ValueError, match=r"no credentials were found.*profile 'default' of ~/\.aws"):
        read_manifest(url)
    monkeypatch.setenv("AWS_PROFILE", "work")
    forget_connections()
    with pytest.raises(ValueError, match=r"\(work\)"):
        read_manifest(url)
    monkeypatch.undo()
    forget_connections()
    assert read_manifest(url) == PHOTOS


def test_a_server_that_is_not_there(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec.config

    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": "http://127.0.0.1:9"})
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    forget_connections()
    with pytest.raises(ValueError, match=r"cannot be reached \(.*FSSPEC_S3_ENDPOINT_URL"):
        read_manifest("s3://bucket/photos")
    monkeypatch.undo()
    forget_connections()


def test_class_names_are_read_in_one_unicode_form(tmp_path: Path) -> None:
    write_manifest(str(tmp_path), replace(PHOTOS, classes=("big dog", "ko\u0308ter", "猫")))
    assert read_manifest(str(tmp_path)) == PHOTOS
    write_manifest(str(tmp_path), replace(PHOTOS, classes=("köter", "ko\u0308ter", "猫")))
    with pytest.raises(ValueError, match="has the class 'köter' twice, in two Unicode forms"):
        read_manifest(str(tmp_path))
