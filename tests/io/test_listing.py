"""What is there and how large, asked for in few requests; a hundred thousand shards start in seconds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourds_dist.data import DataConfig, StreamConfig, TrainStream, open_split
from fourds_dist.data.format.manifest import Manifest, Shard, write_manifest
from fourds_dist.io import listing
from fourds_dist.io.listing import prefixes, sizes
from tests.data.conftest import S3Server

NAMES = [f"train-{n:05}.tar{end}" for n in range(60) for end in ("", ".index")]


def filled(folder: Path, names: list[str]) -> None:
    for at, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * at)


@pytest.mark.parametrize("many", [10, 10**6], ids=["side by side", "in one"])
@pytest.mark.parametrize("where", ["disk", "s3"])
def test_sizes_of_what_is_there(tmp_path, s3_server: S3Server, monkeypatch, where, many):
    monkeypatch.setattr(listing, "MANY", many)
    filled(tmp_path, [*NAMES, "other.txt", f"{NAMES[3]}/below", "sub/train-00001.tar"][: len(NAMES) + 1])
    filled(tmp_path, ["sub/" + NAMES[0]])
    (tmp_path / NAMES[5]).unlink()
    url = str(tmp_path)
    if where == "s3":
        url = f"{s3_server.new_bucket()}/set"
        s3_server.upload(tmp_path, url)
    found = sizes(url, NAMES)
    assert found == {name: at for at, name in enumerate(NAMES) if at != 5}
    assert sizes(f"{url}/nowhere", NAMES) == {}


def test_a_store_that_lets_no_one_list_is_asked_for_each(tmp_path, s3_server: S3Server, monkeypatch):
    url = f"{s3_server.new_bucket()}/set"
    filled(tmp_path, NAMES[:-1])
    s3_server.upload(tmp_path, url)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError("ListBucket")

    monkeypatch.setattr("s3fs.S3FileSystem.ls", refused)
    assert sizes(url, NAMES) == {name: at for at, name in enumerate(NAMES[:-1])}


@given(st.lists(st.text("ab0", min_size=1, max_size=8), min_size=1, max_size=300, unique=True))
def test_every_name_has_a_prefix(names):
    found = prefixes(names)
    assert all(any(name.startswith(prefix) for prefix in found) for name in names)


def test_many_names_are_cut_evenly():
    found = prefixes([f"train-{n:06}.tar" for n in range(100_000)])
    assert 16 <= len(found) <= 500


@pytest.mark.slow
def test_a_hundred_thousand_shards_start_in_seconds(tmp_path):
    """A hundred million samples, six terabytes: manifest read, everything listed, the first order drawn."""
    num = 100_000
    for number in range(num):
        with (tmp_path / f"train-{number:06}.tar").open("wb") as file:
            file.truncate(60_000_000)
        (tmp_path / f"train-{number:06}.tar.index").touch()
    shards = tuple(Shard(f"train-{n:06}.tar", 1000, 60_000_000) for n in range(num))
    write_manifest(str(tmp_path), Manifest("many", ("a",), {"train": shards}, {"train": (0,)}))
    began = time.process_time()
    split = open_split(StreamConfig(url=str(tmp_path)), "train")
    split.check_shards()
    stream = TrainStream({"target": split}, DataConfig(), global_batch_size=256, rank=0, world_size=1, seed=0)
    order = stream._streams[0].order
    middle = order.num_steps_per_epoch // 2
    assert len(order.epoch(0).batch(middle)) == 256
    assert time.process_time() - began < 10
