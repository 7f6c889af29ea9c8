"""The report: agreement with the run's files, one file without external resources, no failure of the run."""

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

from fourds_dist.cli.report import main
from fourds_dist.inference.metrics import wilson
from fourds_dist.reports import analysis as examine
from fourds_dist.reports import charts, sections
from fourds_dist.reports.analysis import ADAPTED, BEFORE, STUDENT, TEACHER, PredictionAnalysis
from fourds_dist.reports.page import ReportPage, ReportSection, ReportTable
from fourds_dist.reports.report import write_report
from fourds_dist.runs.events import Note, StageStarted, encode
from fourds_dist.runs.layout import RunFile
from fourds_dist.stages.finished_run import Run


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


def test_analysis_agrees_with_the_summary(reported: Path) -> None:
    analysis, _ = PredictionAnalysis.from_bytes((reported / RunFile.EXAMINATION).read_bytes())
    table = {
        line["network"]: line["target"]
        for line in json.loads((reported / "summary.json").read_text())["lines"]
    }
    assert set(table) == set(analysis.probabilities) == {TEACHER, BEFORE, ADAPTED, STUDENT}
    for network, line in table.items():
        assert int(analysis.scores(network).right.sum()) == line["num_correct"], network


def test_mistakes_are_those_of_the_highest_confidence(reported: Path) -> None:
    analysis, _ = PredictionAnalysis.from_bytes((reported / RunFile.EXAMINATION).read_bytes())
    scores = analysis.scores(STUDENT)
    surest = np.sort(scores.confidence[~scores.right])[::-1][: examine.MOST_MISTAKES]
    assert [m.confidence for m in analysis.mistakes] == pytest.approx(surest.tolist(), abs=1e-5)
    assert all(m.truth != m.predicted for m in analysis.mistakes)


def test_adapters_keep_the_phase_and_change_the_amplitude(reported: Path) -> None:
    analysis, _ = PredictionAnalysis.from_bytes((reported / RunFile.EXAMINATION).read_bytes())
    assert len(analysis.adapters) == 4
    assert all(stage.phase_kept > 0.999 for stage in analysis.adapters)
    assert any(np.abs(stage.gain).max() > 0.05 for stage in analysis.adapters)
    assert analysis.example.shape == (3, 16, 16)


def test_the_stored_analysis_is_read_as_it_was_written(reported: Path) -> None:
    stored = (reported / RunFile.EXAMINATION).read_bytes()
    analysis, identity = PredictionAnalysis.from_bytes(stored)
    again, its_identity = PredictionAnalysis.from_bytes(analysis.to_bytes(identity))
    assert its_identity == identity
    for key, value in vars(analysis).items():
        np.testing.assert_equal(plain(getattr(again, key)), plain(value))


def plain(value: object) -> object:
    return (
        [vars(item) for item in value]
        if isinstance(value, list | tuple) and value and hasattr(value[0], "__dict__")
        else value
    )


def test_the_page_is_complete_and_self_contained(reported: Path) -> None:
    html = page(reported)
    student = json.loads((reported / "summary.json").read_text())["lines"][-1]["target"]
    assert f"test split is {student['num_correct'] / student['num_samples']:.1%}" in html
    for section in ("result", "classes", "mistakes", "learning", "adapters", "speed", "events", "repeat"):
        assert f'<section id="{section}">' in html
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", html)
    assert not re.search(r"url\((?!#)|@import|<script|<link", html)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert all(f'id="{name}"' in html for name in re.findall(r'href="#([^"]+)"', html))
    charts = re.findall(r'<img src="data:image/svg\+xml;base64,[^"]+" alt="([^"]+)"', html)
    assert len(charts) == html.count("<img") == len(list((reported / "report").glob("*.png")))
    analysis, _ = PredictionAnalysis.from_bytes((reported / RunFile.EXAMINATION).read_bytes())
    worst = analysis.mistakes[0]
    assert f"true: {worst.truth}, predicted: {worst.predicted}, confidence: {worst.confidence:.0%}" in html
    recall = analysis.scores(STUDENT).recall[0]
    assert f'<td>{analysis.classes[0]}</td><td class="n">{recall:.1%}</td>' in html
    assert (
        f'{student["num_correct"] / student["num_samples"]:.1%}</td><td class="n">{interval_of(student)}</td>'
        in html
    )


def interval_of(target: dict[str, int]) -> str:
    low, high = wilson(target["num_correct"], target["num_samples"])
    return f"{low:.1%} to {high:.1%}"


def test_png_files_are_written(reported: Path) -> None:
    names = {path.stem for path in (reported / "report").glob("*.png")}
    expected = "confusion calibration mix amplitude mistakes feature-maps"
    more = "throughput wait distill-losses distill-accuracy distill-rates"
    assert {*expected.split(), *more.split()} <= names
    for path in (reported / "report").glob("*.png"):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert pixels.std() > 1, path


def test_rebuilding_uses_the_stored_analysis_unless_the_result_changed(
    reported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(reported, tmp_path / "digits"))
    monkeypatch.setattr(examine, "analyse", lambda *_: pytest.fail("analysed again"))
    first = page(run).replace(str(reported), str(run))
    assert main([str(run)]) == 0
    assert page(run) == first
    (run / "summary.json").write_text((run / "summary.json").read_text().replace('"digits"', '"other"', 1))
    with pytest.raises(BaseException, match="analysed again"):
        main([str(run), "--traceback"])


def test_analysis_ends_at_the_time_limit_and_is_repeated_for_more_images(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(run_folder / "report")
    monkeypatch.setattr(examine, "TIME_LIMIT_S", 1e-9)
    assert write_report(str(run_folder))
    analysis, _ = PredictionAnalysis.from_bytes((run_folder / RunFile.EXAMINATION).read_bytes())
    assert len(analysis.labels) == examine.ROUND - 1 or len(analysis.labels) == examine.ROUND
    assert f"Evaluated on {len(analysis.labels)} of the 359 images of" in page(run_folder)
    assert (
        len(set(analysis.labels.tolist())) >= 8
    )  # spread over the split, which lies in order of classes or not
    assert main([str(run_folder)]) == 0
    assert f"Evaluated on {len(analysis.labels)} of the 359 images of" in page(run_folder)
    assert main([str(run_folder), "--images", "5000"]) == 0
    assert "Evaluated on all 359 images of" in page(run_folder)


def test_restarts_are_reported(run_folder: Path) -> None:
    metrics = run_folder / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text(
        "".join(line for line in lines if '"event": "note"' not in line)
    )  # a busy machine adds notes
    assert "No restarts" in sections.events(Run(str(run_folder))).words[0]
    length = {"num_epochs": 1, "num_steps_per_epoch": 30, "global_batch_size": 32}
    events = [
        Note(step=7, text="worker 1 was lost <&>; went on").stamped("distill", 0),
        StageStarted(step=20, **length, num_workers=1, device="CPU").stamped("distill", 60),
    ]
    with metrics.open("a") as file:
        file.write("".join(encode(event) + "\n" for event in events) + '{"stage": "distill", "ev')
    section = sections.events(Run(str(run_folder)))
    html = ReportPage("run", "verdict", [], [section]).html()
    assert "<td>1970-01-01 00:00:00</td><td>distillation</td>" in html
    assert "worker 1 was lost &lt;&amp;&gt;; went on" in html
    assert "resumed from step 20: 32 images a step" in html
    assert "No restarts" not in html


def test_the_student_ratio_is_drawn_and_is_no_loss(run_folder: Path) -> None:
    assert "student_ratio" not in {chart.name for chart in learning(run_folder).charts}
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if (row["stage"], row["event"]) == ("distill", "step"):
            row["method_values"]["student_ratio"] = row["epoch"] / 3
    (run_folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "student_ratio" in {chart.name for chart in learning(run_folder).charts}
    losses = {name for step in Run(str(run_folder)).steps("distill") for name in step.losses}
    assert losses
    assert not any("student_ratio" in name for name in losses)


def test_a_run_of_one_epoch_and_one_logged_step_has_charts_without_warnings(run_folder: Path) -> None:
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    kept = [row for row in rows if row.get("epoch", 1) == 1]
    (run_folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    assert write_report(str(run_folder))
    names = {chart.name for chart in learning(run_folder).charts}
    assert {"distill-losses", "distill-accuracy", "distill-validation-losses", "distill-rates"} <= names


def test_names_with_html_characters_are_escaped() -> None:
    name = "<script>&\"'"
    chart = charts.lines(name, name, {name: ([1.0], [1.0])})
    table = ReportTable((name,), [(name,)])
    section = ReportSection("s", name, [name], [table], [chart], [(name, name)])
    html = ReportPage(name, name, [(name, name)], [section]).html()
    assert "<script" not in html
    assert html.count("&lt;script&gt;&amp;&#34;&#39;") >= 12


def learning(run_folder: Path) -> ReportSection:
    section = sections.learning(Run(str(run_folder)))
    assert section is not None
    return section


def test_a_run_that_is_not_done_has_a_report(run_folder: Path) -> None:
    (run_folder / "summary.json").unlink()
    assert write_report(str(run_folder))
    html = page(run_folder)
    assert "This run is not done" in html
    assert "Distillation: training losses" in html


def test_without_its_data_the_report_names_what_is_missing(run_folder: Path, tmp_path: Path) -> None:
    config = (run_folder / "config.yaml").read_text()
    (run_folder / "config.yaml").write_text(re.sub(r"url: \S+digits-photos", f"url: {tmp_path}/gone", config))
    shutil.rmtree(run_folder / "report", ignore_errors=True)
    assert write_report(str(run_folder))
    assert "The test images were not analysed" in page(run_folder)
    assert "gone" in page(run_folder)


def test_it_never_fails_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert write_report(str(tmp_path / "none")) is None
    assert "has no run" in caplog.text


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
    assert "Best run: b, with a student accuracy of 100.0%" in html
    assert re.search(r"method.temperature</td><td>2.0</td><td>4.0", html)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert f'<td class="n">100.0%</td><td class="n">{interval_of(table["lines"][-1]["target"])}</td>' in html
    assert re.search(r'alt="Student: validation accuracy by epoch: b ends at [.\d]+, a ends at [.\d]+"', html)
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "again"), "--images", "9"]) == 1
    assert "leave out --images, or give one run" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_in_object_storage(reported: Path) -> None:
    store = fsspec.filesystem("memory")
    try:
        store.put(f"{reported}/", "/bucket/runs/digits/", recursive=True)
        store.rm("/bucket/runs/digits/report.html")
        assert write_report("memory://bucket/runs/digits") == "memory://bucket/runs/digits/report.html"
        assert b"The student&#39;s accuracy" in store.cat_file("/bucket/runs/digits/report.html")
        picture = store.cat_file("/bucket/runs/digits/report/confusion.png")
        assert Image.open(io.BytesIO(picture)).format == "PNG"
        assert Run("memory://bucket/runs/digits").summary is not None
    finally:
        store.rm("/bucket", recursive=True)


def test_a_truncated_summary_is_an_error(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = run_folder / "summary.json"
    summary.write_text(summary.read_text()[:100])
    assert main([str(run_folder)]) == 1
    assert f"{summary} is not a results table" in capsys.readouterr().err


def test_commands_to_repeat_it_are_quoted(run_folder: Path, tmp_path: Path) -> None:
    moved = Path(shutil.move(run_folder, tmp_path / "my runs"))
    code = dict(sections.repeating(Run(str(moved))).code)
    words = shlex.split(code["Repeat the run"])
    assert words[3] == f"{moved}/config.yaml"
    assert shlex.split(code["Use the student"])[3] == str(moved)
