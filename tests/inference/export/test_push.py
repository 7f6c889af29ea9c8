"""Push to the hub and back, through huggingface_hub's client and a stand-in of the hub on this machine."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")
from huggingface_hub import ModelCard, constants

from fourds_dist import load_student
from fourds_dist.cli.dispatch import main
from fourds_dist.inference.export.push import Destination
from tests.models.hub_stand_in import Hub, account, hub_stand_in

TO = "hf://owner/street"
FILES = {".gitattributes", "README.md", "student.safetensors"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub_stand_in(monkeypatch, tmp_path / "cache") as served:
        served.accounts["token"] = account()
        monkeypatch.setenv("HF_TOKEN", "token")
        yield served


def export(run: Path, to: str = TO, *words: str) -> int:
    return main(["export", str(run), "--push", to, "--formats", "safetensors", *words])


def test_a_pushed_student_comes_back(
    hub: Hub,
    workplace: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, seven = workplace / "runs" / "digits", workplace / "seven.png"
    assert export(run, TO, "--private") == 0, capsys.readouterr().err
    assert f"pushed to {TO}: {hub.url}/owner/street/commit/" in capsys.readouterr().out
    assert hub.commits == [("owner/street", ["README.md", "student.safetensors"])]
    assert hub.private == {"owner/street"}

    expected = load_student(run).predict(seven, top=3)[0].ranking
    for spelling in (
        TO,
        "hf-hub:owner/street",
        "hf://owner/street@main",
        f"{TO}@{hub.heads['owner/street']}",
    ):
        student = load_student(spelling)
        assert student.predict(seven, top=3)[0].ranking == expected
        assert student.origin == spelling
    assert main(["predict", TO, str(seven)]) == 0
    assert main(["evaluate", TO, "--json", "-"]) == 0
    told = capsys.readouterr().out.replace(f'"{TO}"', f'"{run}/student.safetensors"')
    assert main(["predict", str(run), str(seven)]) == 0
    assert main(["evaluate", str(run), "--json", "-"]) == 0
    assert capsys.readouterr().out == told
    monkeypatch.delenv("HF_TOKEN")
    shutil.rmtree(tmp_path / "cache")
    assert main(["predict", TO, str(seven)]) == 1
    assert "the hub has no repository owner/street, or it is private" in capsys.readouterr().err

    card = ModelCard(hub.files["owner/street"]["README.md"].decode()).data
    assert (card.library_name, card.pipeline_tag, card.base_model) == (
        "fourds_dist",
        "image-classification",
        None,
    )
    assert card.eval_results is not None
    assert card.eval_results[0].metric_type == "accuracy"


def test_the_same_student_makes_no_commit_and_another_one_does(
    hub: Hub, run_folder: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.failed_uploads = 1
    assert export(run_folder, f"{TO}/") == 0, capsys.readouterr().err
    first = load_student(TO).predict(workplace / "seven.png")[0].confidence
    hub.files["owner/street"] |= {"student.onnx": b"of an older push", "notes.txt": b"of the owner"}
    capsys.readouterr()
    assert export(run_folder) == 0
    assert [changes for _, changes in hub.commits[1:]] == [["student.onnx"]]  # it is not of this student
    assert export(run_folder) == 0
    assert f"{TO} has these files already" in capsys.readouterr().out
    assert len(hub.commits) == 2
    shutil.copy(run_folder / "student_source.safetensors", run_folder / "student.safetensors")
    assert export(run_folder) == 0, capsys.readouterr().err
    assert [changes for _, changes in hub.commits[2:]] == [["README.md", "student.safetensors"]]
    assert hub.files["owner/street"].keys() == FILES | {"notes.txt"}
    assert load_student(TO).predict(workplace / "seven.png")[0].confidence != first


def test_a_branch_beside_the_files_in_a_folder(
    hub: Hub, workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "mine.txt").touch()
    assert export(workplace / "runs" / "digits", f"{TO}@v1", str(tmp_path / "shipped")) == 0, (
        capsys.readouterr().err
    )
    assert hub.files["owner/street"].keys() == {".gitattributes"}
    assert hub.files["owner/street@v1"].keys() == FILES
    assert (tmp_path / "shipped" / "student.safetensors").exists()
    assert load_student(f"{TO}@v1").classes[0] == "0"


def test_a_download_that_is_cut_off_is_continued(
    hub: Hub, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (workplace / "runs" / "digits" / "student.safetensors").read_bytes()
    hub.files["owner/street"] = {"student.safetensors": data}
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.cut = [5000]
    assert len(load_student(TO).classes) == 10
    assert hub.downloads == [f"student.safetensors from {start}" for start in (0, 5000)]


READER = account(role="read")
OF_ANOTHER = account("somebody", orgs=[{"name": "firm", "roleInOrg": "write"}])
ONLY_READS = account("somebody", orgs=[{"name": "Owner", "roleInOrg": "read"}])
SCOPED = {"scoped": [{"entity": {"name": "owner", "type": "user"}, "permissions": ["repo.content.read"]}]}
NARROW = account(role="fineGrained", token={"fineGrained": SCOPED})


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (None, "there is no token; set HF_TOKEN to a token that may write .*, or run `hf auth login`"),
        ({}, "the hub refuses the token; set HF_TOKEN to a valid one"),
        (READER, "the token 'owner-read' may not write to owner/street; set HF_TOKEN to a token of the type `write`"),
        (NARROW, "the token 'owner-fineGrained' may not write to owner/street"),
        (OF_ANOTHER, "account is somebody, which may not write to owner; give .* among somebody, firm, or"),
        (ONLY_READS, "somebody may only read in owner; ask its administrator for the role `write`"),
    ],
)  # fmt: skip
def test_tokens_that_may_not_write_are_refused_before_the_student_is_read(
    hub: Hub,
    token: dict[str, object] | None,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.accounts = {"token": token} if token else {}
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    assert main(["export", "nowhere", "--push", TO, "--formats", "safetensors"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: --push {TO}: ")
    assert re.search(words, error), error
    assert hub.files == {}


def test_tokens_that_may_write(hub: Hub, workplace: Path) -> None:
    scoped = [{"entity": {"name": "Owner"}, "permissions": ["repo.content.read", "repo.write"]}]
    for given in (
        account(role="fineGrained", token={"fineGrained": {"scoped": scoped}}),
        account("somebody", orgs=[{"name": "owner", "roleInOrg": "contributor"}]),
    ):
        hub.accounts["token"] = given
        assert export(workplace / "runs" / "digits") == 0
    assert len(hub.commits) == 1


def test_other_refusals_name_the_remedy(
    hub: Hub, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: str, run: str = "nowhere") -> str:
        assert main(["export", run, "--formats", "safetensors", *words]) == 1
        return capsys.readouterr().err

    for wrong in (
        "street",
        "hf://street",
        "hf://datasets/owner/x",
        "hf://owner/a b",
        "owner/street",
        "hf://owner/x@",
    ):
        assert f"--push {wrong}: give hf://owner/name" in refused("--push", wrong)
    assert "give DEST, a folder or URL, or --push hf://owner/name" in refused()
    assert f"give --push {TO}" in refused(TO)
    assert "--private is for --push" in refused("shipped", "--private")
    hub.files["owner/street"] = {"README.md": b"---\nlicense: mit\n---\n# Mine\n"}
    assert "README.md of the repository is no model card of fourds_dist" in refused("--push", TO)
    assert "the repository exists and is public" in refused("--push", TO, "--private")
    hub.files["owner/new"] = {"README.md": b"---\nlicense: mit\n---\n"}
    hub.refused_commits["owner/new"] = 403
    run = str(workplace / "runs" / "digits")
    error = refused("--push", "hf://owner/new", run=run)
    assert "the token may not write to owner/new (status 403)" in error
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set; unset it to push" in refused("--push", TO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(time, "sleep", lambda _: None)  # huggingface_hub waits between its attempts
    assert "http://127.0.0.1:9 cannot be reached (" in refused("--push", TO)


def test_repositories_of_another_kind(hub: Hub) -> None:
    hub.files["owner/language"] = {"model.gguf": b"x"}
    with pytest.raises(
        ValueError, match=r"owner/language has none of the files student\.safetensors, .*config\.json"
    ):
        load_student("hf://owner/language")


def test_names_of_destinations() -> None:
    assert Destination.of("hf-hub:owner/name@v1", is_private=True) == Destination("owner/name", "v1", True)
    assert Destination.of("hf://owner/name", is_private=False).url == "hf://owner/name"
