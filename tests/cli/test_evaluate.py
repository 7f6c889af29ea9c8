"""`python -m fourds_dist.evaluate` as a command: table, JSON, and options that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fourds_dist.cli.evaluate import main as evaluate
from fourds_dist.cli.evaluate import parser
from tests.finished_run import one_of_each


def test_evaluate_an_image_folder(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label, data in one_of_each(workplace / "shards" / "digits").items():
        (tmp_path / "set" / str(label)).mkdir(parents=True)
        (tmp_path / "set" / str(label) / "1.png").write_bytes(data)
    (tmp_path / "set" / "3" / "2.png").write_bytes(b"no image")
    out = tmp_path / "scores.json"
    assert evaluate([str(workplace / "runs" / "digits"), str(tmp_path / "set"), "--json", str(out)]) == 0
    values = json.loads(out.read_text())
    assert values["num_images"] == 10
    assert values["num_unreadable"] == 1
    assert values["top1"]["value"] >= 0.6
    text, errors = capsys.readouterr()
    assert "top-1 accuracy" in text
    assert "left out: 1 unreadable" in text
    assert f"{tmp_path}/set/3/2.png: not read: it begins with b'no image'" in errors


def test_a_batch_size_that_is_none(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, data = str(workplace / "runs" / "digits"), str(workplace / "shards" / "digits")
    for number in ("0", "-3", "1000000000", "many"):
        with pytest.raises(SystemExit) as left:
            evaluate([run, data, "--batch-size", number])
        assert left.value.code == 2
        assert "give 1 to 65536" in capsys.readouterr().err


def test_the_test_split_of_the_run_s_target_is_the_default() -> None:
    options = parser().parse_args(["runs/digits"])
    assert (options.data, options.split, options.batch_size, options.json) == (None, "test", 128, None)
    options = parser().parse_args(["runs/digits", "photos", "--grey-range", "0", "4095", "--split", "val"])
    assert (options.data, options.split, options.grey_range) == ("photos", "val", [0.0, 4095.0])


def test_json_alone_on_the_standard_output(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        evaluate([str(workplace / "runs" / "digits"), str(workplace / "shards/digits-photos"), "--json", "-"])
        == 0
    )
    values = json.loads(capsys.readouterr().out)
    summary = json.loads((workplace / "runs/digits/summary.json").read_text())
    right = sum(values["confusion"][k][k] for k in range(10))
    assert right == summary["lines"][-1]["target"]["num_correct"]
