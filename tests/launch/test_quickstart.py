"""Packing of the quickstart's domains: what is missing is packed, and other datasets stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.config.loading import load
from fourds_dist.data.datasets.digits import CLASSES, digits
from fourds_dist.data.format.manifest import read_manifest
from fourds_dist.data.pack.verify import verify
from fourds_dist.launch.quickstart import missing_domains, pack_quickstart
from fourds_dist.stages.settings import Settings
from tests.data.shards import write_dataset


def test_the_quickstart_packs_what_is_not_there(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fourds_dist.launch.quickstart.digits", lambda: digits(size=8, crops_per_digit=2))
    config = tmp_path / "quick.yaml"
    config.write_text(f"prepare: digits\nsource: {{ url: {tmp_path}/s }}\ntarget: {{ url: {tmp_path}/t }}\n")
    settings = load(Settings, str(config))
    pack_quickstart(settings)
    assert capsys.readouterr().err.splitlines() == [
        f"packing digits into {tmp_path}/s",
        f"packing digits-photos into {tmp_path}/t",
    ]
    manifests = [read_manifest(f"{tmp_path}/{name}") for name in "st"]
    assert [m.name for m in manifests] == ["digits", "digits-photos"]
    assert [m.classes for m in manifests] == [CLASSES, CLASSES]
    assert manifests[1].num_samples("train") == 2 * manifests[0].num_samples("train")
    assert verify(f"{tmp_path}/t")[1] == []

    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    pack_quickstart(settings)
    assert capsys.readouterr().err == ""
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times

    config.write_text(f"prepare: digits\nsource: {{ url: {tmp_path}/t }}\ntarget: {{ url: {tmp_path}/s }}\n")
    with pytest.raises(
        ValueError, match=r"source\.url: .*/t holds another dataset than prepare: digits makes"
    ):
        pack_quickstart(load(Settings, str(config)))


def test_missing_domains_in_the_order_of_their_keys(tmp_path: Path) -> None:
    given = load(Settings, None, ["prepare=digits", f"source.url={tmp_path}/s/", f"target.url={tmp_path}/t"])
    assert [(domain.name, url) for domain, url in missing_domains(given)] == [
        ("digits", f"{tmp_path}/s/"),
        ("digits-photos", f"{tmp_path}/t"),
    ]
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_packed_into_is_refused_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    write_dataset(tmp_path / "other", [3])
    for words, message in (
        (["target.url=t"], "prepare: digits needs source.url, a folder to pack into"),
        (["source.url=s"], "prepare: digits needs target.url, a folder to pack into"),
        (
            [f"source.url={tmp_path}/s", f"target.url={tmp_path}/other"],
            r"target\.url: .*/other holds another dataset ",
        ),
        ([f"source.url={tmp_path}/s", f"target.url={tmp_path}/file/t"], "/file/t cannot be written"),
    ):
        with pytest.raises(ValueError, match=message):
            pack_quickstart(load(Settings, None, ["prepare=digits", *words]))
    assert not (tmp_path / "s").exists()  # nothing is packed, also where only the second folder is at fault
