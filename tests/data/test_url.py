"""Patterns of shards, and folders whose names look like patterns."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fourds_dist.data.manifest import read_manifest
from fourds_dist.data.split import StreamConfig, open_split
from fourds_dist.data.url import matching, split_pattern
from fourds_dist.pack import main
from tests.data.conftest import S3Server


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("x/photos", ("x/photos", None)),
        ("x/photos/", ("x/photos", None)),
        ("x/train-{000..099}.tar", ("x", "train-{000..099}.tar")),
        ("train-*.tar", (".", "train-*.tar")),
        ("/train-0.tar", ("/", "train-0.tar")),
        ("memory://b/p/*/x.tar", ("memory://b/p", "*/x.tar")),
        ("memory://{a,b}.tar", ("memory:/", "{a,b}.tar")),
    ],
)
def test_folder_and_pattern(url: str, parts: tuple[str, str | None]) -> None:
    assert split_pattern(url) == parts


@pytest.mark.parametrize("name", ["photos [2024]", "{a}", "{a,b}", "what?", "*", "x.tar", "a{b"])
@pytest.mark.parametrize("store", ["disk", "memory", "s3"])
def test_a_set_can_be_opened_wherever_it_can_be_packed(
    tmp_path: Path, s3_server: S3Server, name: str, store: str
) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for n in range(10):
            Image.new("RGB", (8, 8), (n * 20, len(label), ord(label[0]))).save(
                tmp_path / "photos" / label / f"{n}.png"
            )
    bucket = {"disk": str(tmp_path), "memory": f"memory:/{tmp_path}"}.get(store) or s3_server.new_bucket()
    url = f"{bucket}/sets/{name}"
    assert main(["folder", str(tmp_path / "photos"), url]) == 0
    assert main(["folder", str(tmp_path / "photos"), url]) == 0
    for where in (url, f"{url}/", f"{url}/train-*.tar", f"{url}/train-{{00000..00003}}.tar"):
        assert open_split(StreamConfig(url=where), "train").num_samples == 14
    assert main(["verify", url]) == 0
    assert main(["index", url, "--label", "cls", "--to", str(tmp_path / "index"), "--split", "train"]) == 0
    assert read_manifest(str(tmp_path / "index")).num_samples("train") == 20


def test_a_name_that_is_the_pattern() -> None:
    names = ["train [1].tar", "train 1.tar", "a{b.tar"]
    assert matching(names, "train [1].tar") == {"train [1].tar"}
    assert matching(names, "train [12].tar") == {"train 1.tar"}
    assert matching(names, "a{b.tar") == {"a{b.tar"}
    assert matching(names, "a{c.tar") == set()
