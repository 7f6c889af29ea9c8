"""The command: every subcommand parses, errors take one line, and a folder becomes a dataset that verifies."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fourds_dist.cli.pack import main
from fourds_dist.data.format.manifest import read_manifest
from tests.data.pack.tars import samples, tar_bytes


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for label in ("big dog", "köter"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for n in range(10):
            Image.new("RGB", (20, 20), (n * 20, 0, 99)).save(tmp_path / "photos" / label / f"{n} x.png")
    return tmp_path / "photos"


def test_a_source_s_domains_get_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digits", str(tmp_path), "--size", "12", "--crops-per-digit", "1", "--shard-mb", "0.3"]) == 0
    for name in ("digits", "digits-photos"):
        manifest = read_manifest(f"{tmp_path}/{name}")
        assert manifest.notes["size"] == 12
        assert sum(manifest.num_samples(split) for split in manifest.splits) == 1797
        assert len(manifest.splits["train"]) > 1
    assert "digits-photos: 10 classes" in capsys.readouterr().out


def test_folder_verify_sheet(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dest = str(tmp_path / "set")
    assert main(["folder", str(photos), dest, "--seed", "3", "--val-fraction", "0.2"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"│ train │ +12 │ +0 │ +6 │ +1 │", out), out
    assert re.search(r"│ val +│ +4 │ +0 │ +2 │ +1 │", out), out
    manifest = read_manifest(dest)
    assert manifest.name == "set"
    assert manifest.classes == ("big dog", "köter")

    assert main(["folder", str(photos), dest, "--seed", "3", "--val-fraction", "0.2"]) == 0
    assert "the dataset was packed already" in capsys.readouterr().out
    assert main(["folder", str(photos), dest]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {dest} holds another dataset")
    assert error.count("\n") == 1
    assert main(["folder", str(photos), dest, "--overwrite"]) == 0

    assert main(["verify", dest]) == 0
    assert "every shard matches" in capsys.readouterr().out
    assert main(["sheet", dest, dest, str(tmp_path / "sheet.png"), "--images", "2"]) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] > 200
    (tmp_path / "set" / "val-00000.tar").unlink()
    capsys.readouterr()
    assert main(["verify", dest]) == 1
    assert f"error: {dest}/val-00000.tar: missing" in capsys.readouterr().err


def test_domains_that_agree(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "classes.txt").write_text("köter\nape\nbig dog\n", encoding="utf-8")
    more = ["--classes", str(tmp_path / "classes.txt")]
    assert main(["folder", str(photos), str(tmp_path / "a"), *more]) == 0
    assert "no images in train: 1 classes (ape)" in capsys.readouterr().out
    assert main(["folder", str(photos), str(tmp_path / "b"), "--unlabelled", *more]) == 0
    a, b = read_manifest(str(tmp_path / "a")), read_manifest(str(tmp_path / "b"))
    assert a.classes == b.classes == ("köter", "ape", "big dog")
    assert a.class_counts["train"] == (7, 0, 7)
    splits = ("train", "val", "test")
    assert [b.class_counts[split] for split in splits] == [(0, 0, 0)] * 3
    assert [b.num_samples(split) for split in splits] == [14, 2, 4]


def test_skipped_images_are_reported(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "köter" / "bad.jpg").write_text("x")
    assert main(["folder", str(photos), str(tmp_path / "a")]) == 1
    assert "köter/bad.jpg" in capsys.readouterr().err
    assert main(["folder", str(photos), str(tmp_path / "a"), "--skip-bad"]) == 0
    assert "left out: 1 images unreadable" in capsys.readouterr().out


def test_a_list(photos: Path, tmp_path: Path) -> None:
    (photos / "list.txt").write_text("big dog/1 x.png dog\nköter/2 x.png\tmongrel\ttest\n", encoding="utf-8")
    assert main(["list", str(photos / "list.txt"), str(tmp_path / "a")]) == 0
    assert read_manifest(str(tmp_path / "a")).class_counts == {"train": (1, 0), "test": (0, 1)}


def test_existing_tars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train-0.tar").write_bytes(tar_bytes(samples(6)))
    (tmp_path / "train-1.tar").write_bytes(tar_bytes(samples(6))[:7000])
    url = f"{tmp_path}/train-{{0..1}}.tar"
    assert main(["index", url]) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(r"error: .*train-1\.tar, .*byte \d+: the tar ends at byte 7000 .*\n", error), error
    assert main(["index", url, "--skip-bad"]) == 0
    captured = capsys.readouterr()
    assert "left out: 1 x cut; first:" in captured.err
    assert "read 2 of 2 tars\n" in captured.out or "read 1 of 2 tars; 1 had a current index\n" in captured.out
    assert read_manifest(str(tmp_path)).num_samples("train") == 8
    with pytest.raises(ValueError, match="ends at byte"):
        main(["index", url, "--traceback"])


def test_help_and_nonsense(capsys: pytest.CaptureFixture[str]) -> None:
    for words, code in (
        (["--help"], 0),
        (["folder", "--help"], 0),
        ([], 2),
        (["nonsense"], 2),
        (["folder", "x"], 2),
    ):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == code
    assert "photos/train/dog/1.jpg" in capsys.readouterr().out


def test_as_a_module(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fourds_dist.pack", "verify", str(tmp_path / "none")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {tmp_path}/none: no such folder")
    assert "Traceback" not in done.stderr
