"""Files of the hub, from a stand-in on this machine: the cache, cut and changed downloads, and refusals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")
from huggingface_hub import constants

from fourds_dist.models.hub import fetch
from tests.models.hub_stand_in import Hub, hub_stand_in

FILES = ("model.safetensors", "pytorch_model.bin")
DATA = bytes(range(256)) * 64


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub_stand_in(monkeypatch, tmp_path / "cache") as served:
        served.files["owner/net"] = {"model.safetensors": DATA}
        yield served


def get(repository: str = "owner/net", files: tuple[str, ...] = FILES) -> Path:
    return fetch(
        repository, files, where="teacher.start=pretrained", instead="teacher.start={folder}/weights"
    )


def test_a_file_is_downloaded_once_and_the_cache_is_enough(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert get().read_bytes() == get("owner/net@main").read_bytes() == DATA
    assert hub.downloads == ["model.safetensors from 0"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert get().read_bytes() == DATA


def test_the_first_file_that_exists_is_taken(hub: Hub) -> None:
    hub.files["owner/net"] = {"pytorch_model.bin": DATA}
    assert get().name == "pytorch_model.bin"
    with pytest.raises(ValueError, match=r"owner/net has none of the files config\.json, a\.bin"):
        get(files=("config.json", "a.bin"))


def test_a_download_that_is_cut_off_is_continued(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.cut = [5000]
    assert get().read_bytes() == DATA
    assert hub.downloads == [f"model.safetensors from {start}" for start in (0, 5000)]


def test_a_changed_download_is_fetched_again_and_then_refused(hub: Hub) -> None:
    hub.changed = 1
    assert get().read_bytes() == DATA
    hub.files["owner/other"], hub.changed = {"model.safetensors": DATA[1:]}, 2
    with pytest.raises(
        ValueError, match=r"model\.safetensors of owner/other arrives with another SHA-256 sum"
    ):
        get("owner/other")
    assert get("owner/other").read_bytes() == DATA[1:]  # the wrong file is not left in the cache


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((403, "GatedRepo"), "the repository owner/net is gated; accept its conditions at .*/owner/net and set"),
        ((401, "GatedRepo"), "the repository owner/net is gated"),
        ((401, ""), "the hub has no repository owner/net, or it is private; check the name"),
        ((404, "RepoNotFound"), "the hub has no repository owner/net, or it is private"),
        ((403, ""), "the hub has no repository owner/net, or it is private"),
    ],
)  # fmt: skip
def test_repositories_without_access_are_refused(hub: Hub, answer: tuple[int, str], words: str) -> None:
    hub.refused["owner/net"] = answer
    with pytest.raises(ValueError, match=f"^teacher.start=pretrained: {words}"):
        get()


def test_wrong_names_are_refused(hub: Hub) -> None:
    with pytest.raises(ValueError, match="the repository owner/net has no revision 'v9'"):
        get("owner/net@v9")
    with pytest.raises(ValueError, match="'a/b/c' is no repository of the hub; give hf-hub:owner/name"):
        get("a/b/c")
    assert hub.downloads == []


def test_without_a_network_the_error_names_the_file_and_its_place(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"HF_HUB_OFFLINE is set") as caught:
        get()
    text = str(caught.value)
    assert f"model.safetensors of owner/net is not in the cache {tmp_path / 'cache'}" in text
    assert "`hf download owner/net model.safetensors config.json --local-dir net`" in text
    assert text.endswith("copy the folder here and set teacher.start=net/weights")
    with pytest.raises(ValueError, match=r"run `hf download owner/net --local-dir net` on a machine"):
        get(files=("config.json",))  # the weights that belong to it are downloaded too
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # huggingface_hub waits between its attempts
    with pytest.raises(ValueError, match=r"cannot be downloaded from http://127\.0\.0\.1:9 \(.*refused"):
        get()
