"""The grey ranges of a run: of the configuration, or of the manifests of its domains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fourds_dist.data.decode.grey import GreyRange
from fourds_dist.data.format.manifest import read_manifest, write_manifest
from fourds_dist.stages.grey_ranges import grey_ranges_of
from fourds_dist.stages.settings import Settings
from tests.data.shards import write_dataset


def dataset(folder: Path, grey_range: GreyRange | None) -> str:
    url = write_dataset(folder, [3])
    write_manifest(url, replace(read_manifest(url), grey_range=grey_range))
    return url


def ranges(source: str | None, target: str | None, **data: object) -> tuple[GreyRange, ...]:
    tree = {"source": {"url": source}, "target": {"url": target}, "data": data}
    return grey_ranges_of(Settings.model_validate(tree))


def test_ranges_of_the_manifests_source_first(tmp_path: Path) -> None:
    deep, deeper = dataset(tmp_path / "deep", (0, 4095)), dataset(tmp_path / "deeper", (-10, 65535))
    plain = dataset(tmp_path / "plain", None)
    assert ranges(deep, deeper) == ((0, 4095), (-10, 65535))
    assert ranges(plain, deep) == ranges(None, deep) == ((0, 4095),)
    assert ranges(plain, plain) == ranges(None, None) == ()
    assert ranges(None, f"{deep}/train-{{00000..00000}}.tar") == ((0, 4095),)


def test_the_configuration_counts_before_manifests(tmp_path: Path) -> None:
    assert ranges(f"{tmp_path}/none", dataset(tmp_path / "deep", (0, 4095)), grey_range=(1, 2)) == (
        (1.0, 2.0),
    )


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path}/none"):
        ranges(None, f"{tmp_path}/none")
