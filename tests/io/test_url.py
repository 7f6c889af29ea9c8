"""Patterns of shards, and folders whose names resemble patterns."""

from __future__ import annotations

from pathlib import Path

import pytest
from braceexpand import braceexpand
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fourds_dist.cli.pack import main
from fourds_dist.data.format.manifest import read_manifest
from fourds_dist.data.stream.split import StreamConfig, open_split
from fourds_dist.io.url import MOST_GLOBS, MOST_NAMES, _number_of_names, expanded, matching, split_pattern
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


@pytest.mark.parametrize("name", ["ds", "train-0.tar", "train-{000..099}.tar"])
def test_an_address_with_a_query_is_refused_without_showing_its_value(name: str) -> None:
    with pytest.raises(ValueError, match=r"with a query \(\?X-Amz-Signature=\.\.\.\)") as error:
        split_pattern(f"https://host/{name}?X-Amz-Signature=5ecret&b=1")
    assert str(error.value).startswith(f"https://host/{name}: ")
    assert "5ecret" not in str(error.value)
    with pytest.raises(ValueError, match="with a query"):
        read_manifest(f"https://host/{name}?X-Amz-Signature=5ecret")


def test_a_name_that_is_the_pattern() -> None:
    names = ["train [1].tar", "train 1.tar", "a{b.tar"]
    assert matching(names, "train [1].tar") == {"train [1].tar"}
    assert matching(names, "train [12].tar") == {"train 1.tar"}
    assert matching(names, "a{b.tar") == {"a{b.tar"}
    assert matching(names, "a{c.tar") == set()


HUGE = [
    ("train-{0..999999999}.tar", "1000000000 names"),
    ("train-{0..1000000}.tar", "1000001 names"),
    ("train-{999999999..0}.tar", "1000000000 names"),
    ("train-{-1000000..1000000..1}.tar", "2000001 names"),
    ("train-{0..9}{0..999}{0..999}.tar", "10000000 names"),
    ("train-" + "{a,a}" * 40 + ".tar", "1099511627776 names"),
    ("train-{{a,b}" + "{0..999}" * 3 + "}.tar", "2000000000 names"),
    ("train-{x,{0..999999999}}.tar", "1000000001 names"),
    ("train-{0.." + "9" * 5000 + "}.tar", "over 10^18 names"),
    ("train-{0..9999999}{0..999999999999}.tar", "over 10^18 names"),
    ("train-{0..9999}*.tar", "10000 globs"),
]


@pytest.mark.parametrize(("pattern", "number"), HUGE, ids=[str(n) for n in range(len(HUGE))])
def test_a_range_of_any_size_is_refused_before_it_is_made(tmp_path: Path, pattern: str, number: str) -> None:
    most = MOST_GLOBS if "globs" in number else MOST_NAMES
    for make in (lambda: expanded(pattern, pattern), lambda: matching(["train-1.tar"], pattern)):
        with pytest.raises(ValueError, match=f"stands for .*{most} are allowed; give a smaller") as error:
            make()
        assert f"{pattern} stands for {number}," in str(error.value)


def test_large_steps_make_small_ranges() -> None:
    assert expanded("{0..999999999..500000000}", "it") == ["0", "500000000"]
    assert expanded("{a..e..2}{,x}{,x}", "it") == ["a", "ax", "axx", "c", "cx", "cxx", "e", "ex", "exx"]
    with pytest.raises(ValueError, match="p: its braces do not match or are more than 50 deep"):
        expanded("{" * 3000 + "}" * 3000, "p")


@given(st.text("{},.12ax\\-*", max_size=14))
def test_names_are_counted_as_they_are_expanded(pattern: str) -> None:
    number = _number_of_names(pattern)
    if number is not None:
        assert number == len(list(braceexpand(pattern)))
    else:
        assert pattern.count("{") + pattern.count("}") > 0
