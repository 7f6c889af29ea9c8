"""The report: what it says is what the run holds, one file without a network, and never a failed run."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from fourds_dist.report import main
from fourds_dist.results import examine
from fourds_dist.results.examine import ADAPTED, BEFORE, STUDENT, TEACHER, Examination
from fourds_dist.results.page import Page, Section
from fourds_dist.results.report import write_report
from fourds_dist.results.run import Run, find_runs
from fourds_dist.results.sections import RunSections
from fourds_dist.runs.events import Note, StageStarted, encode
from fourds_dist.runs.layout import RunFile


@pytest.fixture(scope="module")
def reported(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run with its report."""
    copied = Path(
        shutil.copytree(workplace / "runs" / "digits", tmp_path_factory.mktemp("reported") / "digits")
    )
    (copied / "report.html").unlink(missing_ok=True)
    assert write_report(str(copied)) == f"{copied}/report.html"
    return copied


def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_every_network_is_seen_as_in_the_table(reported: Path) -> None:
    seen, _ = Examination.from_bytes((reported / RunFile.EXAMINATION).read_bytes())
    table = {
        line["network"]: line["target"]
        for line in json.loads((reported / "summary.json").read_text())["lines"]
    }
    assert set(table) == set(seen.probabilities) == {TEACHER, BEFORE, ADAPTED, STUDENT}
    for network, line in table.items():
        assert int(seen.scores(network).right.sum()) == line["num_correct"], network


def test_mistakes_are_the_surest_ones(reported: Path) -> None:
    seen, _ = Examination.from_bytes((reported / RunFile.EXAMINATION).read_bytes())
    scores = seen.scores(STUDENT)
    surest = np.sort(scores.confidence[~scores.right])[::-1][: examine.MOST_MISTAKES]
    assert [m.confidence for m in seen.mistakes] == pytest.approx(surest.tolist(), abs=1e-5)
    assert all(m.truth != m.called for m in seen.mistakes)


def test_adapters_keep_the_phase_and_change_the_amplitude(reported: Path) -> None:
    seen, _ = Examination.from_bytes((reported / RunFile.EXAMINATION).read_bytes())
    assert seen.adapters is not None
    assert len(seen.adapters.stages) == 4
    assert all(stage.phase_kept > 0.999 for stage in seen.adapters.stages)
    assert any(np.abs(stage.gain).max() > 0.05 for stage in seen.adapters.stages)


def test_the_page_is_whole_and_stands_alone(reported: Path) -> None:
    html = page(reported)
    student = json.loads((reported / "summary.json").read_text())["lines"][-1]["target"]
    assert f"recognises {student['num_correct'] / student['num_samples']:.1%} of the target" in html
    for section in ("result", "classes", "mistakes", "learning", "adapters", "speed", "events", "repeat"):
        assert f'<section id="{section}">' in html
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", html)
    assert not re.search(r"url\((?!#)|@import|<script|<link", html)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert all(f'id="{name}"' in html for name in re.findall(r"url\(#([^)]+)\)", html))


def test_pictures_lie_beside_it(reported: Path) -> None:
    names = {path.stem for path in (reported / "report").glob("*.png")}
    told = "accuracy confusion gains-before gains-teacher calibration mix amplitude mistakes feature-maps throughput"
    assert {*told.split(), "wait", "distill-losses", "distill-accuracy", "distill-rates"} <= names
    for path in (reported / "report").glob("*.png"):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert pixels.std() > 1, path


def test_it_is_rebuilt_without_data_or_networks_and_looks_again_when_the_result_is_another(
    reported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(reported, tmp_path / "digits"))
    monkeypatch.setattr(examine, "examine", lambda *_: pytest.fail("looked again"))
    first = page(run).replace(str(reported), str(run))
    assert main([str(run)]) == 0
    assert page(run) == first
    (run / "summary.json").write_text((run / "summary.json").read_text().replace('"digits"', '"other"', 1))
    with pytest.raises(BaseException, match="looked again"):
        main([str(run), "--traceback"])


def test_looking_ends_when_its_time_is_up_and_goes_on_when_more_images_are_asked_for(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(run_folder / "report")
    monkeypatch.setattr(examine, "PATIENCE_S", 1e-9)
    assert write_report(str(run_folder))
    seen, _ = Examination.from_bytes((run_folder / RunFile.EXAMINATION).read_bytes())
    assert len(seen.labels) == examine.ROUND - 1 or len(seen.labels) == examine.ROUND
    assert f"From {len(seen.labels)} of the 359 images of" in page(run_folder)
    assert len(set(seen.labels.tolist())) >= 8  # spread over the split, which lies in order of classes or not
    assert main([str(run_folder)]) == 0
    assert f"From {len(seen.labels)} of the 359 images of" in page(run_folder)
    assert main([str(run_folder), "--images", "5000"]) == 0
    assert "From all 359 images of" in page(run_folder)


def test_what_was_survived_is_told(run_folder: Path) -> None:
    assert "Nothing went wrong" in RunSections(Run(str(run_folder)), None).events().words[0]
    length = {"num_epochs": 1, "num_steps_per_epoch": 30, "global_batch_size": 32}
    events = [
        Note(step=7, text="worker 1 was lost <&>; went on").stamped("distill", 0),
        StageStarted(step=20, **length, num_workers=1, device="CPU").stamped("distill", 60),
    ]
    with (run_folder / "metrics.jsonl").open("a") as file:
        file.write("".join(encode(event) + "\n" for event in events) + '{"stage": "distill", "ev')
    section = RunSections(Run(str(run_folder)), None).events()
    html = Page("run", "verdict", [], [section]).html()
    assert "<td>1970-01-01 00:00:00</td><td>distillation</td>" in html
    assert "worker 1 was lost &lt;&amp;&gt;; went on" in html
    assert "went on from step 20: 32 images a step" in html
    assert "Nothing went wrong" not in html


def test_an_apprentice_s_standing_is_drawn_and_is_no_loss(run_folder: Path) -> None:
    assert "standing" not in {chart.name for chart in learning(run_folder).charts}
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if (row["stage"], row["event"]) == ("distill", "step"):
            row["method_values"]["apprentice/standing"] = row["epoch"] / 3
    (run_folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "standing" in {chart.name for chart in learning(run_folder).charts}
    losses = {name for step in Run(str(run_folder)).steps("distill") for name in step.losses}
    assert losses
    assert not any("standing" in name for name in losses)


def learning(run_folder: Path) -> Section:
    section = RunSections(Run(str(run_folder)), None).learning()
    assert section is not None
    return section


def test_a_run_that_is_not_done_has_a_report_as_far_as_it_came(run_folder: Path) -> None:
    (run_folder / "summary.json").unlink()
    assert write_report(str(run_folder))
    html = page(run_folder)
    assert "This run is not done" in html
    assert "Distillation: losses" in html


def test_without_its_data_the_report_says_what_is_missing(run_folder: Path, tmp_path: Path) -> None:
    config = (run_folder / "config.yaml").read_text()
    (run_folder / "config.yaml").write_text(re.sub(r"url: \S+digits-photos", f"url: {tmp_path}/gone", config))
    shutil.rmtree(run_folder / "report", ignore_errors=True)
    assert write_report(str(run_folder))
    assert "There is no look at single images here" in page(run_folder)
    assert "gone" in page(run_folder)


def test_it_never_fails_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert write_report(str(tmp_path / "none")) is None
    assert "holds no run" in caplog.text


def test_runs_side_by_side(reported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        shutil.copytree(reported, tmp_path / "runs" / name)
    config = tmp_path / "runs" / "b" / "config.yaml"
    config.write_text(config.read_text().replace("temperature: 4.0", "temperature: 2.0", 1))
    summary = tmp_path / "runs" / "b" / "summary.json"
    table = json.loads(summary.read_text())
    table["lines"][-1]["target"]["num_correct"] = 359
    summary.write_text(json.dumps(table))
    assert main([str(tmp_path / "runs")]) == 1
    assert "--out" in capsys.readouterr().err
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "both")]) == 0
    html = page(tmp_path / "both")
    assert "Best: b, whose student recognises 100.0%" in html
    assert re.search(r"method.temperature</td><td>2.0</td><td>4.0", html)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_in_object_storage(reported: Path) -> None:
    store = fsspec.filesystem("memory")
    try:
        store.put(f"{reported}/", "/bucket/runs/digits/", recursive=True)
        store.rm("/bucket/runs/digits/report.html")
        assert write_report("memory://bucket/runs/digits") == "memory://bucket/runs/digits/report.html"
        assert b"The student recognises" in store.cat_file("/bucket/runs/digits/report.html")
        picture = store.cat_file("/bucket/runs/digits/report/confusion.png")
        assert Image.open(io.BytesIO(picture)).format == "PNG"
        assert Run("memory://bucket/runs/digits").outcome is not None
    finally:
        store.rm("/bucket", recursive=True)


def test_a_run_named_twice_is_one(reported: Path, tmp_path: Path) -> None:
    assert [run.url for run in find_runs([str(reported), f"{reported}/"])] == [str(reported)]
    assert len(find_runs([str(reported), str(reported.parent)])) == 1


def test_a_table_cut_short_is_named(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = run_folder / "summary.json"
    summary.write_text(summary.read_text()[:100])
    assert main([str(run_folder)]) == 1
    assert f"{summary} is no table of a run" in capsys.readouterr().err


def test_commands_to_repeat_it_are_quoted(run_folder: Path, tmp_path: Path) -> None:
    moved = Path(shutil.move(run_folder, tmp_path / "my runs"))
    code = dict(RunSections(Run(str(moved)), None).repeating().code)
    words = shlex.split(code["Run it again"])
    assert words[3] == f"{moved}/config.yaml"
    assert shlex.split(code["Use its student"])[3] == str(moved)
